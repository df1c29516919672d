//! Sending everybody away, gently: the clients come back to another instance, and must not come all at once.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{CloseReason, Hub, registry::Connection};

/// How often some connections are closed while draining.
const BEAT: Duration = Duration::from_millis(20);

/// The pace of a drain.
#[derive(Debug, Clone, Copy)]
pub struct DrainPlan {
    /// Connections closed in a second, if `within` leaves time for that pace; 500.
    pub per_second: u32,
    /// What the drain may take in all. At least a quarter of it is left for clients to take their last frames.
    pub within: Duration,
    /// A client is told to come back after this long, jittered up to twice as long, in ms.
    pub reconnect_after_ms: u64,
}

impl Default for DrainPlan {
    fn default() -> Self {
        Self { per_second: 500, within: Duration::from_secs(5), reconnect_after_ms: 1_000 }
    }
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that were asked to close.
    pub asked: usize,
    /// Connections still open at the end.
    pub left: usize,
}

impl Hub {
    /// Refuses every new connection from now on, then closes the open ones in shuffled order, evenly over time, and
    /// waits until they are gone. Each is handed what waits for it, and then
    /// [`Batch::Closed`](super::Batch::Closed) with [`CloseReason::Draining`].
    ///
    /// There is no way back, and a second drain beside the first does no harm.
    pub async fn drain(&self, plan: DrainPlan) -> DrainReport {
        let end = Instant::now() + plan.within;
        let mut open = self.registry().begin_drain();
        // Shuffled, so that neither one tenant nor those who came first are hit together.
        fastrand::shuffle(&mut open);
        let asked = self.ask_evenly(&open, plan).await;
        drop(open);
        // Late means that some are left; the report says how many.
        let _ = timeout_at(end, self.empty()).await;
        DrainReport { asked, left: self.stats().sockets }
    }

    async fn ask_evenly(&self, open: &[Arc<Connection>], plan: DrainPlan) -> usize {
        let wanted = Duration::from_secs_f64(open.len() as f64 / f64::from(plan.per_second.max(1)));
        let beats = (wanted.min(plan.within * 3 / 4).as_millis() / BEAT.as_millis()).max(1) as usize;
        let mut asked = 0;
        for (beat, some) in open.chunks(open.len().div_ceil(beats).max(1)).enumerate() {
            if beat > 0 {
                sleep(BEAT).await;
            }
            asked += some.iter().filter(|connection| self.close(connection, plan.reason())).count();
        }
        asked
    }
}

impl DrainPlan {
    /// Why one connection closes, and when its client is to come back: another time for each.
    pub fn reason(&self) -> CloseReason {
        CloseReason::Draining { after_ms: self.reconnect_after_ms + fastrand::u64(0..=self.reconnect_after_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::{
        Batch, Limits, Refused, Subscriber,
        testing::{House, tenant, texts},
    };
    use futures_util::future::join_all;

    const PLAN: DrainPlan = DrainPlan { per_second: 500, within: Duration::from_secs(5), reconnect_after_ms: 1_000 };

    /// Stays until it is told to go; answers when, and when to come back.
    async fn client(mut subscriber: Subscriber) -> (Duration, u64) {
        let start = Instant::now();
        loop {
            if let Batch::Closed(reason) = subscriber.next_batch().await {
                let CloseReason::Draining { after_ms } = reason else { panic!("closed as {reason:?}") };
                return (start.elapsed(), after_ms);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_closed_evenly_over_time_and_come_back_spread() {
        let house = House::new();
        let clients = (0..1_000).map(|n| client(house.connect(["a", "b"][n % 2], ["x"])));
        let (report, gone) = tokio::join!(house.hub.drain(PLAN), join_all(clients));
        assert_eq!(report, DrainReport { asked: 1_000, left: 0 });
        let within =
            |from: u64, to: u64| gone.iter().filter(|(at, _)| (from..to).contains(&(at.as_millis() as u64))).count();
        let quarters = [within(0, 500), within(500, 1_000), within(1_000, 1_500), within(1_500, 2_001)];
        assert!(quarters.iter().all(|gone| (200..=300).contains(gone)), "{quarters:?}");
        assert!(gone.iter().all(|(_, after_ms)| (1_000..=2_000).contains(after_ms)));
        let distinct: std::collections::HashSet<_> = gone.iter().map(|(_, after_ms)| after_ms).collect();
        assert!(distinct.len() > 100, "{} different times", distinct.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_gets_what_waits_for_it_before_it_is_sent_away() {
        let house = House::new();
        let mut subscriber = house.connect("a", ["x"]);
        house.publish("a", "x", "last").await;
        house.pump();
        let taking = async {
            let last = subscriber.next_batch().await;
            let end = subscriber.next_batch().await;
            drop(subscriber);
            (last, end)
        };
        let (report, (last, end)) = tokio::join!(house.hub.drain(PLAN), taking);
        assert_eq!(texts(&last), ["last"]);
        assert!(matches!(end, Batch::Closed(CloseReason::Draining { .. })));
        assert_eq!(report, DrainReport { asked: 1, left: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_in_time_and_says_who_is_left() {
        let house = House::new();
        let _deaf: Vec<_> = (0..10_000).map(|_| house.connect("a", ["x"])).collect();
        let start = Instant::now();
        assert_eq!(house.hub.drain(PLAN).await, DrainReport { asked: 10_000, left: 10_000 });
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn while_draining_newcomers_are_told_when_to_try_again() {
        let house = House::new();
        house.hub.drain(PLAN).await;
        let refused = house.hub.connect(tenant("a"), &[], Limits::default()).err();
        let Some(Refused::Draining { retry_after }) = refused else { panic!("{refused:?}") };
        assert!((1..=5).contains(&retry_after.as_secs()));
    }
}
