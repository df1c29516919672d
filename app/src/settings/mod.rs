//! The settings: read, checked and explained before anything is bound or opened.
//!
//! Layers, the later over the earlier: `app/config/default.toml` (complete, compiled in), the profile's file (compiled
//! in), a file of your own (`--config`, `APP_CONFIG_FILE`), the environment (`APP__API__LISTEN`; `RUST_LOG` over
//! `APP__LOG__FILTER`), `--profile`. Every fault is reported at once, with the place its value came from and with what is allowed there.

mod bus_url;
mod checks;
mod fault;
mod layers;
mod mapping;
mod restarting;
mod schema;
mod sections;
mod show;
mod stop_table;
mod store_url;
mod subsystems;
mod types;

#[cfg(test)]
mod bad;

use serde::Deserialize;
use serde_json::Value;

pub use bus_url::BusUrl;
pub use fault::{Fault, Faults};
pub use layers::Sources;
pub use restarting::{Backoff, Restart};
pub use sections::{
    Admin, Api, Bus, Health, Idempotency, Limits, Log, LogFormat, Otel, Otlp, Outbound, Profile, Shutdown, Store,
    Telemetry, Tenants, WhileDraining,
};
pub use stop_table::{FLUSH, StopTable};
pub use store_url::StoreUrl;
pub use subsystems::{Broadcaster, ChannelManager, HealthSweep, LivenessMonitor, Scheduler};

use layers::{Leaf, Leaves};

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Which profile is in force.
    pub profile: Profile,
    /// The tenants' listener.
    pub api: Api,
    /// The operators' listener.
    pub admin: Admin,
    /// What is durable.
    pub store: Store,
    /// What carries events.
    pub bus: Bus,
    /// The time to stop.
    pub shutdown: Shutdown,
    /// Traces, metrics and logs by OTLP.
    pub otel: Otel,
    /// What is kept of them in the process.
    pub telemetry: Telemetry,
    /// The log on standard error.
    pub log: Log,
    /// What readiness depends on.
    pub health: Health,
    /// What clients may take.
    pub limits: Limits,
    /// What requests with a key of their own may take.
    pub idempotency: Idempotency,
    /// Calls to somebody else.
    pub outbound: Outbound,
    /// What each tenant may have.
    pub tenants: Tenants,
    /// Jobs and schedules.
    pub scheduler: Scheduler,
    /// Events to sockets.
    pub broadcaster: Broadcaster,
    /// Deliveries to receivers.
    pub channel_manager: ChannelManager,
    /// Probes of what we stand on.
    pub health_sweep: HealthSweep,
    /// Heartbeats of all.
    pub liveness_monitor: LivenessMonitor,
}

impl Settings {
    /// Whether this is a machine of one's own: demo tenant and `/dev/*`.
    pub fn is_development(&self) -> bool {
        self.profile == Profile::Development
    }
}

/// Settings without a fault, and where each value came from. Displayed as `app config` prints it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is in force.
    pub settings: Settings,
    leaves: Leaves,
}

/// Reads and checks everything.
///
/// # Errors
/// Every fault there is, never only the first.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let (leaves, mut faults) = layers::merge(sources);
    let settings = read(&leaves, &mut faults);
    let Some(settings) = settings else {
        return Err(Faults(faults));
    };
    faults.extend(checks::check(&settings, &leaves, sources, &faults));
    if faults.is_empty() { Ok(Loaded { settings, leaves }) } else { Err(Faults(faults)) }
}

/// Reads until nothing is refused: a value that is refused is reported and read again as its default.
fn read(leaves: &Leaves, faults: &mut Vec<Fault>) -> Option<Settings> {
    let defaults = layers::merge(&Sources::default()).0;
    let mut values = leaves.clone();
    for _ in 0..=leaves.len() {
        let error = match serde_path_to_error::deserialize(tree(&values)) {
            Ok(settings) => return Some(settings),
            Err(error) => error,
        };
        let key = error.path().to_string();
        faults.push(refused(leaves, &key, error.inner().to_string()));
        values.insert(key.clone(), defaults.get(&key)?.clone());
    }
    None
}

fn refused(leaves: &Leaves, key: &str, reason: String) -> Fault {
    let leaf = leaves.get(key);
    Fault {
        key: key.to_owned(),
        shown: leaf.map(|leaf| show::value(key, &leaf.value)),
        origin: leaf.map(|leaf| leaf.origin.clone()),
        reason,
    }
}

fn tree(leaves: &Leaves) -> Value {
    let mut root = Value::Object(serde_json::Map::new());
    for (key, Leaf { value, .. }) in leaves {
        let pointer = key.split('.').fold(&mut root, |at, name| &mut at[name]);
        *pointer = value.clone();
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(environment: &[(&str, &str)]) -> Sources {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Sources { environment, ..Sources::default() }
    }

    #[test]
    fn the_built_in_files_have_exactly_the_keys_of_the_structs() {
        let loaded = load(&Sources::default()).unwrap();
        assert_eq!(loaded.settings.profile, Profile::Development);
        assert_eq!(loaded.settings.api.listen.to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn a_key_that_a_struct_lacks_or_the_defaults_lack_is_noticed() {
        let mut leaves = layers::merge(&Sources::default()).0;
        let spare = leaves.get("api.listen").unwrap().clone();
        leaves.insert("api.spare".into(), spare);
        assert!(serde_json::from_value::<Settings>(tree(&leaves)).unwrap_err().to_string().contains("spare"));
        leaves.remove("api.spare");
        leaves.remove("api.listen");
        assert!(serde_json::from_value::<Settings>(tree(&leaves)).unwrap_err().to_string().contains("listen"));
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_profile() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "[scheduler]\nbatch = 7\nlease_ms = 900\nheartbeat_ms = 100\n").unwrap();
        let mut sources = from(&[("APP__SCHEDULER__BATCH", "8"), ("APP__LOG__FORMAT", "json")]);
        sources.file = Some(file.path().to_owned());
        let settings = load(&sources).unwrap().settings;
        assert_eq!(settings.scheduler.batch, 8);
        assert_eq!(settings.scheduler.lease.as_millis(), 900);
        assert_eq!(settings.log.format, LogFormat::Json);
        assert!(settings.channel_manager.allow_http, "the development profile lies over the defaults");
    }

    #[test]
    fn the_profile_may_be_chosen_by_argument_environment_or_file() {
        let production = [("APP__PROFILE", "production"), ("APP__OTEL__ENDPOINT", "off")];
        assert_eq!(load(&from(&production)).unwrap().settings.api.listen.to_string(), "0.0.0.0:8080");
        let argument = Sources { profile: Some("development".into()), ..from(&production) };
        assert_eq!(load(&argument).unwrap().settings.profile, Profile::Development);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "profile = \"production\"\n[otel]\nendpoint = \"off\"\n").unwrap();
        let by_file = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        assert_eq!(load(&by_file).unwrap().settings.log.format, LogFormat::Json);
    }

    #[test]
    fn rust_log_wins_over_the_log_filter_and_an_empty_one_says_nothing() {
        let all = [("RUST_LOG", "warn,scheduler=debug"), ("APP__LOG__FILTER", "trace")];
        let loaded = load(&from(&all)).unwrap();
        assert_eq!(loaded.settings.log.filter, "warn,scheduler=debug");
        assert!(loaded.to_string().contains("# environment variable RUST_LOG"), "{loaded}");
        assert_eq!(load(&from(&[("RUST_LOG", " "), all[1]])).unwrap().settings.log.filter, "trace");
    }

    #[test]
    fn variables_of_the_platform_are_not_ours() {
        let platform = [("APP_PORT", "tcp://10.0.0.1:80"), ("APP_SERVICE_HOST", "10.0.0.1"), ("APPLE", "1")];
        assert!(load(&from(&platform)).is_ok());
    }
}
