//! The checks that need more than one value: what one key asks of another, and what production asks of all.

mod outside;

use secrecy::{ExposeSecret, SecretString};

use super::fault::Fault;
use super::layers::{Leaves, Sources};
use super::sections::Profile;
use super::stop_table::StopTable;
use super::{Settings, refused};

/// Secrets that stand in documents and examples, and so are none.
const KNOWN_SECRETS: [&str; 7] =
    ["pk_demo_development_only", "change-me", "changeme", "secret", "password", "token", "admin"];

/// The shortest token that production takes, in characters.
const TOKEN_MIN: usize = 16;

/// Everything that is wrong between the values. A check is left out when a value it needs is faulty itself.
pub(super) fn check(settings: &Settings, leaves: &Leaves, sources: &Sources, known: &[Fault]) -> Vec<Fault> {
    let mut checks = Checks { leaves, known, faults: Vec::new() };
    checks.times(settings);
    checks.backoffs(settings);
    checks.listeners(settings);
    if settings.profile == Profile::Production {
        checks.production(settings);
    }
    checks.parts(settings);
    checks.outside(settings, sources);
    checks.faults
}

struct Checks<'a> {
    leaves: &'a Leaves,
    known: &'a [Fault],
    faults: Vec<Fault>,
}

impl Checks<'_> {
    /// Refuses the first of `keys` unless `good`, or unless one of them is refused already.
    fn require(&mut self, keys: &[&str], good: bool, reason: impl Into<String>) {
        let faulty = keys.iter().any(|key| self.known.iter().any(|fault| fault.key == *key));
        if let Some(key) = keys.first().filter(|_| !good && !faulty) {
            self.faults.push(refused(self.leaves, key, reason.into()));
        }
    }

    fn times(&mut self, settings: &Settings) {
        let stop = StopTable::of(settings).fault();
        let budgets: Vec<_> = self.leaves.keys().filter(|key| key.ends_with("stop_budget_ms")).cloned().collect();
        let keys = ["shutdown.grace_period_ms", "shutdown.drain_delay_ms"];
        let keys: Vec<_> = keys.into_iter().chain(budgets.iter().map(String::as_str)).collect();
        self.require(&keys, stop.is_none(), stop.unwrap_or_default());

        let scheduler = &settings.scheduler;
        self.require(
            &["scheduler.heartbeat_ms", "scheduler.lease_ms"],
            scheduler.heartbeat * 2 < scheduler.lease,
            format!("must be less than half of scheduler.lease_ms ({})", scheduler.lease.as_millis()),
        );
        let channels = &settings.channel_manager;
        self.require(
            &["channel_manager.idle_after_ms", "channel_manager.interval_ms"],
            channels.idle_after >= channels.interval,
            format!("must not be less than channel_manager.interval_ms ({})", channels.interval.as_millis()),
        );
        let outbound = &settings.outbound;
        self.require(
            &["outbound.connect_timeout_ms", "outbound.head_timeout_ms"],
            outbound.connect_timeout <= outbound.head_timeout,
            format!("must not be more than outbound.head_timeout_ms ({})", outbound.head_timeout.as_millis()),
        );
        self.require(
            &["outbound.head_timeout_ms", "outbound.total_timeout_ms"],
            outbound.head_timeout <= outbound.total_timeout,
            format!("must not be more than outbound.total_timeout_ms ({})", outbound.total_timeout.as_millis()),
        );
        self.require(
            &["idempotency.lease_ms", "limits.request_ms"],
            settings.idempotency.lease > settings.limits.request,
            format!("must be more than limits.request_ms ({})", settings.limits.request.as_millis()),
        );
        let sweep = &settings.health_sweep;
        self.require(
            &["health_sweep.probe_timeout_ms", "health_sweep.interval_ms"],
            sweep.probe_timeout <= sweep.interval,
            format!("must not be more than health_sweep.interval_ms ({})", sweep.interval.as_millis()),
        );
        self.require(
            &["liveness_monitor.wedged_after_ms", "scheduler.interval_ms"],
            settings.liveness_monitor.wedged_after > scheduler.interval * 2,
            format!("must be more than twice scheduler.interval_ms ({})", scheduler.interval.as_millis()),
        );
    }

    /// What the parts would refuse themselves. A section with another fault is left out: one cause is told once.
    fn parts(&mut self, settings: &Settings) {
        let scheduler =
            settings.for_scheduler().faults().into_iter().map(|fault| ("scheduler", fault.key, fault.reason));
        let channels = settings.for_channel_manager().faults();
        let channels = channels.into_iter().map(|fault| ("channel_manager", fault.key, fault.reason));
        for (section, key, reason) in scheduler.chain(channels) {
            let faults = || self.faults.iter().chain(self.known);
            if faults().any(|fault| fault.key.starts_with(section)) {
                continue;
            }
            let key = match key {
                "stop_within_ms" => "stop_budget_ms",
                "poll_interval_ms" => "interval_ms",
                same => same,
            };
            let reason = reason.split_once(", must").map_or(reason.clone(), |(_, must)| format!("must{must}"));
            self.require(&[&format!("{section}.{key}")], false, reason);
        }
    }

    fn backoffs(&mut self, settings: &Settings) {
        let all = [
            ("scheduler", &settings.scheduler.backoff),
            ("broadcaster", &settings.broadcaster.backoff),
            ("channel_manager", &settings.channel_manager.backoff),
            ("health_sweep", &settings.health_sweep.backoff),
            ("liveness_monitor", &settings.liveness_monitor.backoff),
        ];
        for (name, backoff) in all {
            let (base, cap) = (format!("{name}.backoff.base_ms"), format!("{name}.backoff.cap_ms"));
            let reason = format!("must not be less than {base} ({})", backoff.base.as_millis());
            self.require(&[&cap, &base], backoff.cap >= backoff.base, reason);
        }
    }

    fn listeners(&mut self, settings: &Settings) {
        let (api, admin) = (settings.api.listen, settings.admin.listen);
        let reason = format!("must differ from api.listen ({api})");
        self.require(&["admin.listen", "api.listen"], api != admin || api.port() == 0, reason);
        self.require(
            &["admin.token", "admin.listen"],
            admin.ip().is_loopback() || settings.admin.token.is_some(),
            format!("must be set when admin.listen is not on loopback ({admin})"),
        );
    }

    fn production(&mut self, settings: &Settings) {
        if let Some(token) = &settings.admin.token {
            self.require(&["admin.token"], !is_known(token), "must be a secret of your own in production");
            let long = token.expose_secret().chars().count() >= TOKEN_MIN;
            let reason = format!("must have at least {TOKEN_MIN} characters in production");
            self.require(&["admin.token"], long || is_known(token), reason);
        }
        let channels = &settings.channel_manager;
        let reason = "must be false in production";
        self.require(&["channel_manager.allow_http"], !channels.allow_http, reason);
        self.require(&["channel_manager.allow_private_addresses"], !channels.allow_private_addresses, reason);
    }
}

fn is_known(secret: &SecretString) -> bool {
    KNOWN_SECRETS.contains(&secret.expose_secret().to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_secret_is_known_in_capitals_too() {
        assert!(is_known(&SecretString::from("Change-Me")) && !is_known(&SecretString::from("f3kp09aZ")));
    }
}
