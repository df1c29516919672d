//! What every call may take, and what all of them together.

use std::time::Duration;

use super::breaker::BreakerSettings;
use super::target::TargetRules;

/// The limits of an [`super::Outbound`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundSettings {
    /// Name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the first lookup to the last byte of the answer's head.
    pub head_timeout: Duration,
    /// The whole call, to the last byte of the answer.
    pub total_timeout: Duration,
    /// Idle connections kept for one host.
    pub idle_per_host_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Calls in flight at a time, until their answers are read or dropped.
    pub in_flight_max: usize,
    /// Calls in flight at a time to one host.
    pub host_in_flight_max: usize,
    /// How long a call waits for a free place, within its own time.
    pub place_wait: Duration,
    /// When the breaker of a host opens, and for how long.
    pub breaker: BreakerSettings,
    /// Bytes of an answer that are read at most.
    pub answer_max_bytes: usize,
    /// The `User-Agent` of every request.
    pub user_agent: String,
    /// Which URLs may be called.
    pub rules: TargetRules,
}

impl Default for OutboundSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            head_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(10),
            idle_per_host_max: 2,
            idle_timeout: Duration::from_secs(30),
            in_flight_max: 4_096,
            host_in_flight_max: 64,
            place_wait: Duration::from_secs(1),
            breaker: BreakerSettings::default(),
            answer_max_bytes: 1_048_576,
            user_agent: concat!("outbound/", env!("CARGO_PKG_VERSION")).to_owned(),
            rules: TargetRules::default(),
        }
    }
}
