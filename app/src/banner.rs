//! What a person sees on standard output when the service is up: where it is, what it stands on, how to get in.
//!
//! The last line is also for programs: `ready in` means that requests are served.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::http::auth::{DEMO_KEY, DEMO_TENANT};
use crate::settings::{Otlp, Settings};

/// The name of the product; a fork changes it here.
pub const NAME: &str = "perennial";

/// The standard variables that choose where OTLP goes.
const OTLP_VARIABLES: [&str; 4] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
];

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
        writeln!(f, "{NAME} {}, profile {}", env!("CARGO_PKG_VERSION"), settings.profile.name())?;
        writeln!(f, "  store  {}    bus  {}    otlp  {}", settings.store.url, settings.bus.url, otlp(settings))?;
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

fn otlp(settings: &Settings) -> String {
    match &settings.otel.endpoint {
        Otlp::Endpoint(address) => without_user(address),
        Otlp::Off => "off".to_owned(),
        Otlp::Unsaid => {
            let said =
                OTLP_VARIABLES.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
            said.map_or_else(|| format!("off (set {})", OTLP_VARIABLES[0]), |address| without_user(&address))
        }
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
    fn production_has_no_demo_tenant() {
        let shown = banner(&[("APP__PROFILE", "production"), ("APP__OTEL__ENDPOINT", "off")]);
        assert!(shown.contains("profile production") && !shown.contains(DEMO_KEY), "{shown}");
    }
}
