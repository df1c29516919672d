//! The sections of the process itself: what it listens on, what it stands on, how it stops, what it tells.
//!
//! Each field is a key of the section with the same name; a field of type [`Duration`] is the key with `_ms` behind it.
//! Defaults and their reasons stand in `app/config/default.toml`, what is allowed stands at the field.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de::Error};

use super::{bus_url::BusUrl, store_url::StoreUrl, types};

/// Which of the built-in files lies over the defaults, and how strict the checks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// A machine of one's own: demo tenant, `/dev/*`, loopback allowed everywhere.
    Development,
    /// Strict: nothing that only makes sense on one's own machine is accepted.
    Production,
}

impl Profile {
    /// The word that chooses it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Production => "production",
        }
    }
}

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        types::one_of(from, &[("development", Self::Development), ("production", Self::Production)])
    }
}

/// `[api]`: the listener of the tenants.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Where to listen; port 0 lets the system choose.
    #[serde(deserialize_with = "types::address")]
    pub listen: SocketAddr,
    /// What the end of the listener and its connections may take.
    #[serde(rename = "stop_budget_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub stop_budget: Duration,
}

/// `[admin]`: the listener of those who run the service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Where to listen; port 0 lets the system choose.
    #[serde(deserialize_with = "types::address")]
    pub listen: SocketAddr,
    /// Asked for as a Bearer token on everything but the probes. Needed when `listen` is not loopback.
    #[serde(deserialize_with = "types::secret")]
    pub token: Option<SecretString>,
    /// What its end may take.
    #[serde(rename = "stop_budget_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub stop_budget: Duration,
}

/// `[store]`: where jobs, schedules, channels, deliveries and tenants are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// One scalar chooses the backend: `sqlite://PATH`, or `postgres://USER:PASSWORD@HOST/DATABASE`.
    pub url: StoreUrl,
    /// How often it is asked for a sign of life.
    #[serde(rename = "interval_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub interval: Duration,
    /// No call of the store takes longer.
    #[serde(rename = "deadline_ms", deserialize_with = "types::ms::<100, 60_000, _>")]
    pub deadline: Duration,
    /// SQLite: connections that read, beside the one that writes.
    #[serde(deserialize_with = "types::int::<1, 64, _, _>")]
    pub readers: u32,
    /// PostgreSQL: connections at most, beside the one that listens.
    #[serde(deserialize_with = "types::int::<1, 1_000, _, _>")]
    pub connections: u32,
    /// What its end may take.
    #[serde(rename = "stop_budget_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub stop_budget: Duration,
}

/// `[bus]`: what carries events between the parts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bus {
    /// One scalar chooses the backend: `memory:`, or `redis://HOST` and `rediss://HOST` (TLS).
    pub url: BusUrl,
    /// Redis: processes with the same one hear each other. 1 to 64 of `a-z`, `A-Z`, `0-9`, `_`, `.`, `:` and `-`.
    #[serde(deserialize_with = "prefix")]
    pub prefix: String,
    /// How often a probe is sent through it.
    #[serde(rename = "interval_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub interval: Duration,
    /// How long the probe may take to come back.
    #[serde(rename = "ping_timeout_ms", deserialize_with = "types::ms::<1, 60_000, _>")]
    pub ping_timeout: Duration,
    /// Redis: how long one try to connect and subscribe may take.
    #[serde(rename = "connect_timeout_ms", deserialize_with = "types::ms::<10, 60_000, _>")]
    pub connect_timeout: Duration,
    /// Redis: how long publishing one event may take.
    #[serde(rename = "publish_timeout_ms", deserialize_with = "types::ms::<10, 60_000, _>")]
    pub publish_timeout: Duration,
    /// Redis: a connection without a sign of life for this long is built anew. A sign is sent every third of it.
    #[serde(rename = "silent_after_ms", deserialize_with = "types::ms::<300, 60_000, _>")]
    pub silent_after: Duration,
    /// What its end may take.
    #[serde(rename = "stop_budget_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub stop_budget: Duration,
}

/// `[shutdown]`: the time from the signal to the end.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// What the whole stop may take; the platform's own grace period must not be shorter.
    #[serde(rename = "grace_period_ms", deserialize_with = "types::ms::<1, 3_600_000, _>")]
    pub grace_period: Duration,
    /// How long requests are still served after readiness is gone, so that load balancers notice.
    #[serde(rename = "drain_delay_ms", deserialize_with = "types::ms::<0, 600_000, _>")]
    pub drain_delay: Duration,
    /// What becomes of requests in the meantime.
    #[serde(deserialize_with = "while_draining")]
    pub while_draining: WhileDraining,
}

/// What becomes of a request that comes after readiness is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhileDraining {
    /// It is served, and its connection closed.
    Serve,
    /// It is answered 503 with `Retry-After`.
    Refuse,
}

/// `[otel]`: where traces, metrics and logs go by OTLP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Otel {
    /// An address, `off`, or nothing at all: then the standard `OTEL_*` variables decide.
    #[serde(deserialize_with = "otlp")]
    pub endpoint: Otlp,
}

/// The meaning of `otel.endpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otlp {
    /// Not said: `OTEL_EXPORTER_OTLP_ENDPOINT` decides, and without it nothing is sent.
    Unsaid,
    /// Nothing is sent, in so many words.
    Off,
    /// Sent to this collector (`http://` or `https://`).
    Endpoint(String),
}

/// `[telemetry]`: what is kept in the process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The flight recorder.
    pub recorder: Recorder,
    /// Incidents in Sentry.
    pub sentry: Sentry,
}

/// `[telemetry.sentry]`: incidents in Sentry, in a build with the feature `sentry`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sentry {
    /// The address of a project with its key, as Sentry shows it.
    #[serde(deserialize_with = "types::secret")]
    pub dsn: Option<SecretString>,
    /// What the events are filed under; empty is the name of the profile.
    #[serde(deserialize_with = "environment")]
    #[cfg_attr(not(feature = "sentry"), expect(dead_code, reason = "checked in every build, used in one"))]
    pub environment: String,
}

/// `[telemetry.recorder]`: the latest traces and log records.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorder {
    /// Whether anything is kept.
    #[serde(deserialize_with = "types::boolean")]
    pub enabled: bool,
    /// Bytes of spans of healthy traces.
    #[serde(deserialize_with = "types::int::<1_048_576, 1_073_741_824, _, _>")]
    pub recent_max_bytes: usize,
    /// Bytes of spans of traces that failed or were slow.
    #[serde(deserialize_with = "types::int::<1_048_576, 1_073_741_824, _, _>")]
    pub kept_max_bytes: usize,
    /// Bytes of log records.
    #[serde(deserialize_with = "types::int::<1_048_576, 1_073_741_824, _, _>")]
    pub log_max_bytes: usize,
    /// Spans that have not ended.
    #[serde(deserialize_with = "types::int::<1, 1_000_000, _, _>")]
    pub open_max: usize,
    /// From how long on a span makes its trace a slow one.
    #[serde(rename = "slow_ms", deserialize_with = "types::ms::<1, 3_600_000, _>")]
    pub slow: Duration,
}

/// `[log]`: the log on standard error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Levels by target, in the syntax of `RUST_LOG`, which wins over it.
    #[serde(deserialize_with = "types::text")]
    pub filter: String,
    /// For people or for machines.
    #[serde(deserialize_with = "log_format")]
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line.
    Text,
    /// One JSON object for each line.
    Json,
}

/// `[health]`: what readiness depends on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// The dependencies without which `/readyz` says no: any of `store`, `bus`, `channels`, or none.
    #[serde(deserialize_with = "required")]
    pub required: Vec<String>,
}

/// `[limits]`: what one client, or all of them, may take.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The longest body of a request, in bytes.
    #[serde(deserialize_with = "types::int::<1_024, 104_857_600, _, _>")]
    pub body_bytes: usize,
    /// How long a request may take before it is answered 408.
    #[serde(rename = "request_ms", deserialize_with = "types::ms::<10, 600_000, _>")]
    pub request: Duration,
    /// How long a client may take to send the head of a request.
    #[serde(rename = "header_read_ms", deserialize_with = "types::ms::<10, 600_000, _>")]
    pub header_read: Duration,
    /// How long a client may take nothing of its answer.
    #[serde(rename = "write_stall_ms", deserialize_with = "types::ms::<10, 600_000, _>")]
    pub write_stall: Duration,
    /// How long a connection of HTTP/2 may have no request open before it is asked to go.
    #[serde(rename = "idle_ms", deserialize_with = "types::ms::<10, 3_600_000, _>")]
    pub idle: Duration,
    /// The longest head of a request, in bytes.
    #[serde(deserialize_with = "types::int::<8_192, 1_048_576, _, _>")]
    pub header_bytes: usize,
    /// How many requests are worked on at once; more are answered 503.
    #[serde(deserialize_with = "types::int::<1, 100_000, _, _>")]
    pub concurrency: usize,
    /// How many connections are open at once, without sockets; more wait to be accepted.
    #[serde(deserialize_with = "types::int::<1, 1_000_000, _, _>")]
    pub connections: usize,
    /// How many wrong keys one address may send in a minute, and how many wrong tokens.
    #[serde(deserialize_with = "types::int::<1, 1_000_000, _, _>")]
    pub auth_failures_per_min: u32,
}

/// `[tenants]`: what each tenant may have, unless its own row says otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenants {
    /// Requests in a second, on average; more are answered 429.
    #[serde(deserialize_with = "types::int::<1, 1_000_000, _, _>")]
    pub requests_per_s: u32,
    /// Requests that may come at once after a rest.
    #[serde(deserialize_with = "types::int::<1, 1_000_000, _, _>")]
    pub requests_burst: u32,
    /// Requests worked on at once; more are answered 429.
    #[serde(deserialize_with = "types::int::<1, 100_000, _, _>")]
    pub requests_at_once: u32,
    /// Jobs that are not finished and do not run; more are answered 429, and fires of schedules are missed.
    #[serde(deserialize_with = "types::int::<1, 100_000_000, _, _>")]
    pub jobs_queued: u32,
}

/// `[idempotency]`: requests with the header `Idempotency-Key`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idempotency {
    /// For how long the same request under the same key gets the same answer.
    #[serde(rename = "keep_ms", deserialize_with = "types::ms::<60_000, 2_592_000_000, _>")]
    pub keep: Duration,
    /// For how long nobody else may try while a request is worked on: longer than a request may take.
    #[serde(rename = "lease_ms", deserialize_with = "types::ms::<100, 3_600_000, _>")]
    pub lease: Duration,
    /// How many keys of one tenant are remembered; one more is answered 429.
    #[serde(deserialize_with = "types::int::<1, 10_000_000, _, _>")]
    pub keys_max: u32,
}

/// `[outbound]`: calls to somebody else over HTTP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    /// Name resolution, TCP and TLS together; at most `head_timeout_ms`.
    #[serde(rename = "connect_timeout_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub connect_timeout: Duration,
    /// From the start of a call to the head of its answer; at most `total_timeout_ms`.
    #[serde(rename = "head_timeout_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub head_timeout: Duration,
    /// One whole call.
    #[serde(rename = "total_timeout_ms", deserialize_with = "types::ms::<1, 600_000, _>")]
    pub total_timeout: Duration,
    /// Idle connections kept for one host.
    #[serde(deserialize_with = "types::int::<0, 1_000, _, _>")]
    pub idle_per_host_max: usize,
    /// How long an idle connection is kept.
    #[serde(rename = "idle_timeout_ms", deserialize_with = "types::ms::<1, 3_600_000, _>")]
    pub idle_timeout: Duration,
    /// Calls in flight at a time.
    #[serde(deserialize_with = "types::int::<1, 100_000, _, _>")]
    pub in_flight_max: usize,
    /// Calls in flight at a time to one host.
    #[serde(deserialize_with = "types::int::<1, 100_000, _, _>")]
    pub host_in_flight_max: usize,
    /// How long a call waits for a free place.
    #[serde(rename = "place_wait_ms", deserialize_with = "types::ms::<0, 60_000, _>")]
    pub place_wait: Duration,
    /// Bytes of an answer that are read.
    #[serde(deserialize_with = "types::int::<1_024, 104_857_600, _, _>")]
    pub answer_max_bytes: usize,
    /// Failures in a row after which a host gets a rest.
    #[serde(deserialize_with = "types::int::<1, 1_000, _, _>")]
    pub breaker_failures_max: u32,
    /// How long that rest is.
    #[serde(rename = "breaker_open_ms", deserialize_with = "types::ms::<1, 86_400_000, _>")]
    pub breaker_open: Duration,
}

fn while_draining<'de, D: Deserializer<'de>>(from: D) -> Result<WhileDraining, D::Error> {
    types::one_of(from, &[("serve", WhileDraining::Serve), ("refuse", WhileDraining::Refuse)])
}

fn prefix<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let prefix = types::text(from)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    match (1..=64).contains(&prefix.len()) && prefix.bytes().all(allowed) {
        true => Ok(prefix),
        false => Err(Error::custom("must be 1 to 64 of a-z, A-Z, 0-9, _ . : and -")),
    }
}

fn environment<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let environment = types::text(from)?;
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
    match environment.chars().count() <= 64 && environment.chars().all(allowed) {
        true => Ok(environment),
        false => Err(Error::custom("must be at most 64 characters without spaces and slashes")),
    }
}

fn otlp<'de, D: Deserializer<'de>>(from: D) -> Result<Otlp, D::Error> {
    let text = types::text(from)?;
    match text.as_str() {
        "" => Ok(Otlp::Unsaid),
        "off" => Ok(Otlp::Off),
        _ if is_http(&text) => Ok(Otlp::Endpoint(text)),
        _ => Err(Error::custom("must be an http:// or https:// address, off, or empty to use OTEL_* variables")),
    }
}

fn is_http(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn log_format<'de, D: Deserializer<'de>>(from: D) -> Result<LogFormat, D::Error> {
    types::one_of(from, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

fn required<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let words = types::words(from)?;
    match words.iter().find(|word| !matches!(word.as_str(), "store" | "bus" | "channels")) {
        Some(word) => {
            Err(Error::custom(format_args!("`{word}` is no dependency, must be a list of store, bus, channels")))
        }
        None => Ok(words),
    }
}
