//! What a person sees on standard output when the service is up: where it is, what it stands on, how to get in.
//!
//! The last line is also for programs: `ready in` means that requests are served.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use telemetry::export::Variables;

use crate::http::auth::{DEMO_KEY, DEMO_TENANT};
use crate::settings::{Otlp, Settings};

/// The name of the product; a fork changes it here.
pub const NAME: &str = "perennial";

/// What the banner shows.
#[derive(Debug, Clone)]
pub struct Banner<'a> {
    /// What is in force.
    pub settings: &'a Settings,
    /// Where the API really listens.
    pub api: SocketAddr,
    /// Where the admin listener really listens.
    pub admin: SocketAddr,
    /// The children of the root, in start order.
    pub tree: &'a [&'a str],
    /// From the start of the process until everything served.
    pub took: Duration,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.settings;
        let otlp = otlp(settings, &Variables::of_process());
        writeln!(f, "{NAME} {}, profile {}", env!("CARGO_PKG_VERSION"), settings.profile.name())?;
        writeln!(f, "  store  {}    bus  {}    otlp  {}", settings.store.url, settings.bus.url, otlp)?;
        writeln!(f, "  api    {:<28}  admin  {}", http(self.api), http(self.admin))?;
        if settings.is_development() {
            writeln!(f, "  tenant {DEMO_TENANT}, key {DEMO_KEY}")?;
        }
        writeln!(f, "  tree   {}", self.tree.join(" > "))?;
        writeln!(f, "ready in {:.1} s", self.took.as_secs_f64())
    }
}

fn http(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// The addresses that telemetry is sent to: mostly one, for all three signals.
fn otlp(settings: &Settings, variables: &Variables) -> String {
    let destinations = settings.otlp(variables).unwrap_or_default();
    let mut addresses: Vec<String> = destinations.iter().map(|each| without_user(&each.address)).collect();
    addresses.dedup();
    match &settings.otel.endpoint {
        _ if !addresses.is_empty() => addresses.join(", "),
        Otlp::Off => "off".to_owned(),
        _ if variables.is_true("OTEL_SDK_DISABLED") => "off (OTEL_SDK_DISABLED)".to_owned(),
        Otlp::Unsaid => "off (set OTEL_EXPORTER_OTLP_ENDPOINT)".to_owned(),
        Otlp::Endpoint(_) => "off (no signal is exported)".to_owned(),
    }
}

/// A collector's address may carry a password.
fn without_user(address: &str) -> String {
    let Ok(mut url) = url::Url::parse(address) else {
        return address.to_owned();
    };
    if url.username().is_empty() && url.password().is_none() {
        return address.to_owned();
    }
    let _ = (url.set_username(""), url.set_password(None));
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Sources, load};

    fn banner(environment: &[(&str, &str)]) -> String {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let settings = load(&Sources { environment, ..Sources::default() }).unwrap().settings;
        let [api, admin] = ["127.0.0.1:8080", "127.0.0.1:8081"].map(|address| address.parse().unwrap());
        let took = Duration::from_millis(210);
        Banner { settings: &settings, api, admin, tree: &["admin", "store", "api"], took }.to_string()
    }

    #[test]
    fn the_banner_says_where_everything_is_and_ends_with_ready() {
        let shown = banner(&[("APP__OTEL__ENDPOINT", "off")]);
        let expected = format!(
            "perennial {}, profile development\n  \
             store  sqlite://data/perennial.db    bus  memory:    otlp  off\n  \
             api    http://127.0.0.1:8080         admin  http://127.0.0.1:8081\n  \
             tenant demo, key pk_demo_development_only\n  \
             tree   admin > store > api\n\
             ready in 0.2 s\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_password_of_the_collector_is_not_shown() {
        let shown = banner(&[("APP__OTEL__ENDPOINT", "https://me:pw@collector:4318")]);
        assert!(shown.contains("https://collector:4318") && !shown.contains("pw@"), "{shown}");
    }

    #[test]
    fn otlp_is_shown_as_telemetry_does_it() {
        let shown = |endpoint: &str, variables: &[(&str, &str)]| {
            let environment = vec![("APP__OTEL__ENDPOINT".into(), endpoint.into())];
            let settings = load(&Sources { environment, ..Sources::default() }).unwrap().settings;
            otlp(&settings, &Variables::of_pairs(variables.iter().copied()))
        };
        assert_eq!(shown("http://collector:4318", &[("OTEL_SDK_DISABLED", "true")]), "off (OTEL_SDK_DISABLED)");
        assert_eq!(shown("", &[]), "off (set OTEL_EXPORTER_OTLP_ENDPOINT)");
        let both =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:1"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:1/t")];
        assert_eq!(shown("", &both), "http://a:1/t, http://b:1");
        assert_eq!(shown("off", &both), "off");
    }

    #[test]
    fn production_has_no_demo_tenant() {
        let shown = banner(&[("APP__PROFILE", "production"), ("APP__OTEL__ENDPOINT", "off")]);
        assert!(shown.contains("profile production") && !shown.contains(DEMO_KEY), "{shown}");
    }
}
