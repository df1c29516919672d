//! What the parts that we stand on would refuse at the start: the store its address, telemetry its filter and the
//! standard `OTEL_*` variables. They are asked here, before anything is bound or opened.

use std::net::IpAddr;
use std::path::Path;

use actors::store::{SqliteStore, StoreError};
use telemetry::export::check::{Destination, log_filter};
use telemetry::export::{Source, StartError, Variables};

use super::Checks;
use crate::reporters;
use crate::settings::fault::Fault;
use crate::settings::layers::Sources;
use crate::settings::sections::{Otlp, Profile};
use crate::settings::{Settings, StoreUrl, refused};

/// The standard's switch, which silences everything.
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// What we dial on this machine in production is most often a forgotten setting.
const ON_LOOPBACK: &str = "must not be on loopback in production";

impl Checks<'_> {
    pub(super) fn outside(&mut self, settings: &Settings, sources: &Sources) {
        self.store(settings);
        self.sentry(settings);
        let filter = log_filter(&settings.log.filter).err().map(|error| match error {
            StartError::Filter { reason, .. } => reason,
            other => other.to_string(),
        });
        let reason =
            format!("must be levels by target, such as info,scheduler=debug: {}", filter.as_deref().unwrap_or(""));
        self.require(&["log.filter"], filter.is_none(), reason);
        let on_loopback = settings.bus.url.dialled().is_some_and(|address| is_loopback(&address));
        let good = !on_loopback || settings.profile != Profile::Production;
        self.require(&["bus.url"], good, ON_LOOPBACK);
        let variables = sources.variables();
        match settings.otlp(&variables) {
            Err(errors) => errors.into_iter().for_each(|error| self.export(error)),
            Ok(all) if settings.profile == Profile::Production => self.production_otlp(settings, all, &variables),
            Ok(_) => {}
        }
    }

    /// Whether this build can tell Sentry, and whom.
    fn sentry(&mut self, settings: &Settings) {
        let Some(dsn) = &settings.telemetry.sentry.dsn else { return };
        let key = ["telemetry.sentry.dsn"];
        match reporters::address_of(dsn) {
            Err(reason) => self.require(&key, false, reason),
            Ok(address) => {
                let good = settings.profile != Profile::Production || !is_loopback(&address);
                self.require(&key, good, ON_LOOPBACK);
            }
        }
    }

    fn store(&mut self, settings: &Settings) {
        // An address of PostgreSQL was looked at when it was read.
        let StoreUrl::Sqlite(url) = &settings.store.url else { return };
        let refusal = match SqliteStore::new(url, settings.for_sqlite()) {
            Err(StoreError::Address { what }) => {
                Some(what.replace(&format!("{url:?}: "), "").replace("error with configuration: ", ""))
            }
            Err(error) => Some(error.to_string()),
            Ok(_) if is_directory(url) => Some("this is a directory".to_owned()),
            Ok(_) => None,
        };
        let reason = format!("must name a file, sqlite://PATH: {}", refusal.as_deref().unwrap_or_default());
        self.require(&["store.url"], refusal.is_none(), reason);
    }

    /// Variables are named, their values are not repeated: an address may carry a password.
    fn export(&mut self, error: StartError) {
        let (from, reason) = match error {
            StartError::Variable { name, value, expected } => (name, format!("'{value}' is not {expected}")),
            StartError::Endpoint { from, reason, .. } => (from, format!("is not an endpoint: {reason}")),
            other => ("otel.endpoint".to_owned(), other.to_string()),
        };
        self.faults.push(match from.as_str() {
            key @ "otel.endpoint" => refused(self.leaves, key, reason),
            name => Fault::of_source(of_variable(name), reason),
        });
    }

    /// Silence must be meant, and a collector on this machine is most often a forgotten setting.
    fn production_otlp(&mut self, settings: &Settings, mut destinations: Vec<Destination>, variables: &Variables) {
        let silent = destinations.is_empty() && settings.otel.endpoint != Otlp::Off;
        if silent && variables.is_true(DISABLED) {
            let reason = "must not be true in production unless otel.endpoint is off";
            self.faults.push(Fault::of_source(of_variable(DISABLED), reason));
        } else {
            self.require(&["otel.endpoint"], !silent, "must be off in production when no signal is exported");
        }
        destinations.dedup_by(|a, b| a.from == b.from);
        for Destination { address, from, .. } in destinations {
            match from {
                Source::Default => {
                    let reason = "must be an address or off in production, or OTEL_EXPORTER_OTLP_ENDPOINT must be set";
                    self.require(&["otel.endpoint"], false, reason);
                }
                Source::Setting => self.require(&["otel.endpoint"], !is_loopback(&address), ON_LOOPBACK),
                Source::Variable(name) if is_loopback(&address) => {
                    self.faults.push(Fault::of_source(of_variable(&name), ON_LOOPBACK));
                }
                Source::Variable(_) => {}
            }
        }
    }
}

fn of_variable(name: &str) -> String {
    format!("environment variable {name}")
}

/// Whether the path of a store's address can be no file.
fn is_directory(url: &str) -> bool {
    let path = url.trim_start_matches("sqlite:");
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = path.split('?').next().unwrap_or_default();
    path.ends_with('/') || Path::new(path).is_dir()
}

/// Whether an address that we dial means this machine itself.
fn is_loopback(address: &str) -> bool {
    // An address for gRPC may come without a scheme.
    let parsed = match address.contains("://") {
        true => url::Url::parse(address),
        false => url::Url::parse(&format!("http://{address}")),
    };
    let Ok(url) = parsed else {
        return false;
    };
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip).to_canonical().is_loopback() || ip.is_unspecified(),
        Some(url::Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_seen_in_every_spelling() {
        let all = ["http://127.0.0.1:4318", "http://127.9.9.9", "http://[::1]:4318", "http://[::ffff:127.0.0.1]"];
        let more =
            ["https://localhost", "http://LOCALHOST.:1", "http://a.localhost", "http://0.0.0.0", "localhost:4317"];
        assert!(all.iter().chain(&more).all(|address| is_loopback(address)));
        assert!(!["http://collector:4318", "http://10.0.0.1", "nothing"].iter().any(|address| is_loopback(address)));
    }
}
