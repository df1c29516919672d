//! The questions a sweep asks: one small probe for each thing the service stands on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::bus::Bus;
use crate::channels::board::Board;
use crate::seam::seam;
use crate::store::Store;

/// One question to one dependency.
#[async_trait]
pub trait Probe: Send + Sync {
    /// The dependency's name, as in the settings, the metrics and the body of `/readyz`.
    fn name(&self) -> &'static str;

    /// Asks. The sweep gives up after `limit`, so a probe may simply wait.
    ///
    /// # Errors
    /// What is wrong, in one line fit for an operator.
    async fn check(&self, limit: Duration) -> Result<(), String>;
}

/// Asks the store for a trivial answer.
pub struct StoreProbe(pub Arc<dyn Store>);

#[async_trait]
impl Probe for StoreProbe {
    fn name(&self) -> &'static str {
        "store"
    }

    async fn check(&self, _limit: Duration) -> Result<(), String> {
        seam!("inside_probe");
        self.0.ping().await.map_err(|error| error.to_string())
    }
}

/// Asks the bus whether it would carry an event.
pub struct BusProbe(pub Arc<dyn Bus>);

#[async_trait]
impl Probe for BusProbe {
    fn name(&self) -> &'static str {
        "bus"
    }

    async fn check(&self, limit: Duration) -> Result<(), String> {
        self.0.ping(limit).await.map(|_| ()).map_err(|error| error.to_string())
    }
}

/// Channels in use below which no share is computed: two tenants' dead receivers among three are not our outage.
const CHANNELS_MIN: usize = 5;

/// Looks whether most receivers at once are out of reach, which then is our network and not theirs.
pub struct ChannelsProbe(pub Board);

#[async_trait]
impl Probe for ChannelsProbe {
    fn name(&self) -> &'static str {
        "channels"
    }

    async fn check(&self, _limit: Duration) -> Result<(), String> {
        let tally = self.0.tally();
        if tally.in_use >= CHANNELS_MIN && tally.open * 2 > tally.in_use {
            return Err(format!("{} of {} channels in use are failing", tally.open, tally.in_use));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TenantId, new_id};
    use crate::outbound::breaker::BreakerSettings;

    #[tokio::test]
    async fn a_few_dead_receivers_are_theirs_and_most_of_many_are_ours() {
        let board = Board::new(BreakerSettings { failures_max: 1, ..BreakerSettings::default() });
        let probe = ChannelsProbe(board.clone());
        let tenant = TenantId::new("demo").unwrap();
        let channels: Vec<_> = (0..6).map(|_| new_id()).collect();
        for channel in &channels[..4] {
            board.entry(&tenant, *channel).failed();
        }
        assert_eq!(probe.check(Duration::ZERO).await, Ok(()), "four of four is too few to judge");
        board.entry(&tenant, channels[4]).succeeded();
        board.entry(&tenant, channels[5]).succeeded();
        assert_eq!(probe.check(Duration::ZERO).await, Err("4 of 6 channels in use are failing".to_owned()));
        board.entry(&tenant, channels[0]).succeeded();
        assert_eq!(probe.check(Duration::ZERO).await, Ok(()));
    }
}
