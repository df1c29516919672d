//! What an operator can turn.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::channels::schedule::{RETRY_DELAYS_MS, RetrySchedule};
use crate::channels::{Bases, slack, telegram};
use crate::outbound::addresses::Reach;
use crate::outbound::breaker::BreakerSettings;
use crate::outbound::target::Schemes;
use crate::outbound::{OutboundSettings, TargetRules};
use crate::store::{DisableRules, Prune};

/// What a lease must leave after the request: the adapter's overrun, and a few tries to write the end down.
pub const LEASE_MARGIN_MS: u64 = 5_000;

/// The settings of the channel manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The longest time between two looks for due deliveries, in milliseconds; up to a tenth less by jitter. A delivery
    /// written by this process, and one whose time is known, does not wait for it.
    pub interval_ms: u64,
    /// A channel with nothing to do for this long gives its actor back; much sooner while others wait for a place.
    pub idle_after_ms: u64,
    /// Channels in use at a time; the next ones wait until one is idle.
    pub channels_max: usize,
    /// Channels in use at a time by one tenant, so that none can take all places.
    pub tenant_channels_max: usize,
    /// Deliveries under way at a time for one channel.
    pub in_flight_max: usize,
    /// How long a claimed delivery belongs to this process; at least the request's time and 5 s.
    pub lease_ms: u64,
    /// One whole request; its connection and the head of its answer have limits of their own within it.
    pub request_timeout_ms: u64,
    /// Bytes of an answer that are read.
    pub answer_max_bytes: usize,
    /// The delays before each retry; their number is the number of retries.
    pub retry_delays_ms: Vec<u64>,
    /// The longest wait that a receiver can ask for.
    pub retry_after_max_ms: u64,
    /// Failures in a row after which a receiver gets a rest.
    pub breaker_failures_max: u32,
    /// How long that rest is.
    pub breaker_open_ms: u64,
    /// Refusals (401, 403, 404) in a row after which a channel is disabled ...
    pub refusals_max: u32,
    /// ... if nothing has arrived for this long, in milliseconds.
    pub refused_for_ms: u64,
    /// A channel through which nothing arrives for this long is disabled.
    pub failing_for_ms: u64,
    /// How long finished deliveries are kept.
    pub keep_finished_ms: u64,
    /// How many finished deliveries of one channel are kept at most.
    pub keep_finished_max: u64,
    /// The whole stop, in milliseconds; requests under way get what is left of it.
    pub stop_within_ms: u64,
    /// The `User-Agent` of every request.
    pub user_agent: String,
    /// Allows plain `http` URLs. For development: what is sent can be read on the way.
    pub allow_http: bool,
    /// Allows loopback and private addresses. For development: in production it opens one's own network to tenants.
    pub allow_private_addresses: bool,
    /// Ports that a URL may name; empty allows all.
    pub ports: Vec<u16>,
    /// Where Slack's incoming webhooks are. The rules for tenants' URLs hold here too.
    pub slack_base_url: String,
    /// Where Telegram's Bot API is; likewise.
    pub telegram_base_url: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval_ms: 1_000,
            idle_after_ms: 60_000,
            channels_max: 1_024,
            tenant_channels_max: 64,
            in_flight_max: 4,
            lease_ms: 30_000,
            request_timeout_ms: 10_000,
            answer_max_bytes: 4_096,
            retry_delays_ms: RETRY_DELAYS_MS.to_vec(),
            retry_after_max_ms: 3_600_000,
            breaker_failures_max: 5,
            breaker_open_ms: 10_000,
            refusals_max: 5,
            refused_for_ms: 600_000,
            failing_for_ms: 432_000_000,
            keep_finished_ms: 604_800_000,
            keep_finished_max: 10_000,
            stop_within_ms: 4_000,
            user_agent: concat!("webhooks/", env!("CARGO_PKG_VERSION")).to_owned(),
            allow_http: false,
            allow_private_addresses: false,
            ports: vec![443, 8_443],
            slack_base_url: slack::BASE_URL.to_owned(),
            telegram_base_url: telegram::BASE_URL.to_owned(),
        }
    }
}

/// One setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct SettingsFault {
    /// The key within this section.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Settings {
    /// Every contradiction at once.
    #[must_use]
    pub fn faults(&self) -> Vec<SettingsFault> {
        let mut faults = Vec::new();
        let mut at_least = |key, value: u64, least: u64| {
            if value < least {
                faults.push(SettingsFault { key, reason: format!("is {value}, must be at least {least}") });
            }
        };
        at_least("interval_ms", self.interval_ms, 10);
        at_least("idle_after_ms", self.idle_after_ms, self.interval_ms);
        at_least("channels_max", self.channels_max as u64, 1);
        at_least("tenant_channels_max", self.tenant_channels_max as u64, 1);
        at_least("in_flight_max", self.in_flight_max as u64, 1);
        at_least("request_timeout_ms", self.request_timeout_ms, 1);
        at_least("lease_ms", self.lease_ms, self.request_timeout_ms.saturating_add(LEASE_MARGIN_MS));
        at_least("breaker_failures_max", u64::from(self.breaker_failures_max), 1);
        at_least("refusals_max", u64::from(self.refusals_max), 1);
        at_least("stop_within_ms", self.stop_within_ms, 1_500);
        if self.user_agent.is_empty() || !self.user_agent.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            faults.push(SettingsFault { key: "user_agent", reason: "must be printable ASCII, not empty".to_owned() });
        }
        let rules = self.target_rules();
        for (key, base) in [("slack_base_url", &self.slack_base_url), ("telegram_base_url", &self.telegram_base_url)] {
            if let Err(error) = rules.check(base) {
                faults.push(SettingsFault { key, reason: format!("must be a URL that may be called: {error}") });
            }
        }
        faults
    }

    /// Where the providers are.
    #[must_use]
    pub fn bases(&self) -> Bases {
        Bases { slack: self.slack_base_url.clone(), telegram: self.telegram_base_url.clone() }
    }

    /// When a channel that only fails is disabled.
    #[must_use]
    pub fn disable(&self) -> DisableRules {
        DisableRules {
            refusals_max: self.refusals_max,
            refused_for_ms: self.refused_for_ms,
            failing_for_ms: self.failing_for_ms,
        }
    }

    /// Which finished deliveries are forgotten, at most `limit` at once.
    #[must_use]
    pub fn prune(&self, limit: u32) -> Prune {
        Prune { older_than_ms: self.keep_finished_ms, keep_max: self.keep_finished_max, limit }
    }

    /// Which URLs may be stored and called.
    #[must_use]
    pub fn target_rules(&self) -> TargetRules {
        let reach = if self.allow_private_addresses { Reach::PublicAndPrivate } else { Reach::Public };
        let schemes = if self.allow_http { Schemes::HttpAndHttps } else { Schemes::HttpsOnly };
        TargetRules { reach, schemes, ports: self.ports.clone() }
    }

    /// What is different for deliveries from other outbound calls.
    pub fn limit(&self, outbound: &mut OutboundSettings) {
        outbound.total_timeout = Duration::from_millis(self.request_timeout_ms);
        outbound.answer_max_bytes = self.answer_max_bytes;
        outbound.user_agent = self.user_agent.clone();
        outbound.rules = self.target_rules();
    }

    /// When a failed delivery is tried again.
    #[must_use]
    pub fn schedule(&self) -> RetrySchedule {
        RetrySchedule {
            delays: self.retry_delays_ms.iter().copied().map(Duration::from_millis).collect(),
            retry_after_max: Duration::from_millis(self.retry_after_max_ms),
        }
    }

    /// When a receiver gets a rest.
    #[must_use]
    pub fn breaker(&self) -> BreakerSettings {
        BreakerSettings {
            failures_max: self.breaker_failures_max,
            open_for: Duration::from_millis(self.breaker_open_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_closed() {
        let settings = Settings::default();
        assert_eq!(settings.faults(), []);
        let rules = settings.target_rules();
        assert!(rules.check("https://example.com/").is_ok());
        assert!(rules.check("http://example.com/").is_err());
        assert!(rules.check("https://127.0.0.1/").is_err());
    }

    #[test]
    fn the_place_of_a_provider_must_be_one_that_may_be_called() {
        let base = "http://127.0.0.1:9".to_owned();
        let closed = Settings { telegram_base_url: base.clone(), ..Settings::default() };
        let reason = "telegram_base_url: must be a URL that may be called: scheme http is not allowed, use https";
        assert_eq!(closed.faults().iter().map(ToString::to_string).collect::<Vec<_>>(), [reason]);
        let open = Settings { allow_http: true, allow_private_addresses: true, ports: Vec::new(), ..closed };
        assert_eq!(open.faults(), []);
    }

    #[test]
    fn every_contradiction_is_told_at_once() {
        let settings =
            Settings { lease_ms: 10_000, in_flight_max: 0, user_agent: "ü".to_owned(), ..Settings::default() };
        let told: Vec<_> = settings.faults().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "in_flight_max: is 0, must be at least 1",
                "lease_ms: is 10000, must be at least 15000",
                "user_agent: must be printable ASCII, not empty",
            ]
        );
    }
}
