//! What goes where, decided before anything is built: from the settings and the `OTEL_*` variables the SDK does not read.

use super::follows::Follows;
use super::{Endpoint, Settings, StartError, Variables};
use http::Uri;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::Sampler;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::time::Duration;

/// How long one export may take. The standard's 10 s would outlast every flush budget.
const EXPORT_WITHIN: Duration = Duration::from_secs(3);

/// Spans and log records that may wait to be sent, each queue. Their bytes have a bound of their own.
const QUEUE_MAX: usize = 8192;

/// Who says otherwise, of spans and of log records.
pub(super) const QUEUES: [&str; 2] = ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BLRP_MAX_QUEUE_SIZE"];

/// Everything decided.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) traces: Option<Route>,
    pub(super) metrics: Option<Route>,
    pub(super) logs: Option<Route>,
    pub(super) span_queue_max: usize,
    pub(super) log_queue_max: usize,
    pub(super) sampler: Sampler,
    propagation: Vec<Propagation>,
}

/// The way of one signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) transport: Transport,
    /// Complete: with its scheme, and for HTTP with the signal's path.
    pub(super) url: String,
    pub(super) timeout: Duration,
    pub(super) certificates: Certificates,
}

/// Files in PEM, as they were read. What is not said is left to the system, or there is none.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Certificates {
    /// Whom to trust, and nobody else.
    pub(super) authority: Option<Vec<u8>>,
    /// What to show for oneself, with its key.
    pub(super) own: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Certificates {
    /// Without what they hold: a key is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Route {
    pub(super) fn is_tls(&self) -> bool {
        self.url.starts_with("https:")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Http,
    Grpc,
}

/// The three kinds of telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Numbers.
    Metrics,
    /// Log records.
    Logs,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
        })
    }
}

impl Signal {
    pub(super) const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// `OTEL_EXPORTER_OTLP_<SIGNAL>_<what>` before `OTEL_EXPORTER_OTLP_<what>`.
    fn variables(self, what: &str) -> [String; 2] {
        let signal = self.to_string().to_uppercase();
        [format!("OTEL_EXPORTER_OTLP_{signal}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")]
    }

    fn path(self) -> String {
        format!("/v1/{self}")
    }
}

impl Plan {
    pub(super) fn new(settings: &Settings, variables: &Variables) -> Result<Self, StartError> {
        let sampler = sampler(settings, variables)?;
        Ok(Self {
            traces: route(Signal::Traces, settings, variables)?,
            metrics: route(Signal::Metrics, settings, variables)?,
            logs: route(Signal::Logs, settings, variables)?,
            span_queue_max: queue_max(QUEUES[0], variables)?,
            log_queue_max: queue_max(QUEUES[1], variables)?,
            sampler,
            propagation: propagation(variables)?,
        })
    }

    pub(super) fn propagator(&self) -> TextMapCompositePropagator {
        let boxed = |kind: &Propagation| -> Box<dyn TextMapPropagator + Send + Sync> {
            match kind {
                Propagation::TraceContext => Box::new(TraceContextPropagator::new()),
                Propagation::Baggage => Box::new(BaggagePropagator::new()),
            }
        };
        TextMapCompositePropagator::new(self.propagation.iter().map(boxed).collect())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = [(Signal::Traces, &self.traces), (Signal::Metrics, &self.metrics), (Signal::Logs, &self.logs)];
        let mut said = routes.into_iter().filter_map(|(signal, route)| Some((signal, route.as_ref()?)));
        match said.next() {
            None => return f.write_str("off"),
            Some((signal, route)) => write!(f, "{signal} to {}", route.url)?,
        }
        said.try_for_each(|(signal, route)| write!(f, ", {signal} to {}", route.url))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Propagation {
    TraceContext,
    Baggage,
}

/// `OTEL_TRACES_SAMPLER` before the settings, before all. The SDK reads it too, but shows nobody what it has read.
pub(super) fn sampler(settings: &Settings, variables: &Variables) -> Result<Sampler, StartError> {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    if let Some(ratio) = settings.sample_ratio.filter(|ratio| !(0.0..=1.0).contains(ratio)) {
        return Err(StartError::Ratio(ratio));
    }
    let of_parent = |root: Sampler| Sampler::ParentBased(Box::new(Follows(root)));
    let share = || {
        let value = variables.get(ARGUMENT).unwrap_or_else(|| "1".to_owned());
        match value.parse().ok().filter(|share| (0.0..=1.0).contains(share)) {
            Some(share) => Ok(Sampler::TraceIdRatioBased(share)),
            None => Err(StartError::Variable { name: ARGUMENT.to_owned(), value, expected: "a share from 0 to 1" }),
        }
    };
    let Some(chosen) = variables.get(NAME) else {
        return Ok(of_parent(settings.sample_ratio.map_or(Sampler::AlwaysOn, Sampler::TraceIdRatioBased)));
    };
    match chosen.as_str() {
        "always_on" => Ok(Sampler::AlwaysOn),
        "always_off" => Ok(Sampler::AlwaysOff),
        "traceidratio" => share(),
        "parentbased_always_on" => Ok(of_parent(Sampler::AlwaysOn)),
        "parentbased_always_off" => Ok(of_parent(Sampler::AlwaysOff)),
        "parentbased_traceidratio" => share().map(of_parent),
        _ => {
            let expected = "'always_on', 'always_off' or 'traceidratio', or one of these behind 'parentbased_'";
            Err(StartError::Variable { name: NAME.to_owned(), value: chosen, expected })
        }
    }
}

fn route(signal: Signal, settings: &Settings, variables: &Variables) -> Result<Option<Route>, StartError> {
    let wanted = is_wanted(signal, variables)?;
    let transport = transport(signal, variables)?;
    let timeout = timeout(signal, variables)?;
    let certificates = certificates(signal, variables)?;
    let url = url(signal, transport, settings, variables)?;
    Ok(url.filter(|_| wanted).map(|url| Route { transport, url, timeout, certificates }))
}

/// The SDK reads it too, but shows nobody what it has read.
pub(super) fn queue_max(name: &str, variables: &Variables) -> Result<usize, StartError> {
    const EXPECTED: &str = "a number of items from 1 to 1000000";
    let Some(items) = variables.parsed(&[name], EXPECTED)? else { return Ok(QUEUE_MAX) };
    // The SDK has room made for all of them at once.
    match (1..=1_000_000).contains(&items) {
        true => Ok(items),
        false => Err(StartError::Variable { name: name.to_owned(), value: items.to_string(), expected: EXPECTED }),
    }
}

pub(super) fn timeout(signal: Signal, variables: &Variables) -> Result<Duration, StartError> {
    Ok(variables.milliseconds(&as_strs(&signal.variables("TIMEOUT")))?.unwrap_or(EXPORT_WITHIN))
}

pub(super) fn is_wanted(signal: Signal, variables: &Variables) -> Result<bool, StartError> {
    let name = format!("OTEL_{}_EXPORTER", signal.to_string().to_uppercase());
    let chosen = match variables.get(&name).as_deref() {
        None | Some("otlp") => true,
        Some("none") => false,
        Some(other) => {
            return Err(StartError::Variable { name, value: other.to_owned(), expected: "'otlp' or 'none'" });
        }
    };
    Ok(chosen && !variables.is_true("OTEL_SDK_DISABLED"))
}

pub(super) fn transport(signal: Signal, variables: &Variables) -> Result<Transport, StartError> {
    match variables.first(&as_strs(&signal.variables("PROTOCOL"))) {
        None => Ok(Transport::Http),
        Some((_, value)) if value == "http/protobuf" => Ok(Transport::Http),
        Some((_, value)) if value == "grpc" => Ok(Transport::Grpc),
        Some((name, value)) => {
            Err(StartError::Variable { name: name.to_owned(), value, expected: "'http/protobuf' or 'grpc'" })
        }
    }
}

pub(super) fn url(
    signal: Signal,
    transport: Transport,
    settings: &Settings,
    variables: &Variables,
) -> Result<Option<String>, StartError> {
    let given = given(signal, transport, settings, variables);
    given.map(|given| complete(signal, transport, &given, variables)).transpose()
}

/// Who says where a signal goes. Displayed as the name of the variable or setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// [`Endpoint::Url`]: the setting `otel.endpoint`.
    Setting,
    /// This variable.
    Variable(String),
    /// Nobody, so the standard does.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Setting => "otel.endpoint",
            Source::Variable(name) => name,
            Source::Default => "default",
        })
    }
}

/// An address as it was given.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) address: String,
    pub(super) from: Source,
    path: Path,
}

pub(super) fn given(signal: Signal, transport: Transport, settings: &Settings, variables: &Variables) -> Option<Given> {
    let [own, shared] = signal.variables("ENDPOINT");
    match &settings.endpoint {
        Endpoint::Off => None,
        Endpoint::Url(base) => Some(Given { address: base.clone(), from: Source::Setting, path: Path::Append }),
        Endpoint::Environment => {
            if let Some(address) = variables.get(&own) {
                Some(Given { address, from: Source::Variable(own), path: Path::AsGiven })
            } else if let Some(address) = variables.get(&shared) {
                Some(Given { address, from: Source::Variable(shared), path: Path::Append })
            } else if settings.environment == "development" {
                None
            } else {
                let address = default_base(transport).to_owned();
                Some(Given { address, from: Source::Default, path: Path::Append })
            }
        }
    }
}

fn default_base(transport: Transport) -> &'static str {
    match transport {
        Transport::Http => "http://localhost:4318",
        Transport::Grpc => "http://localhost:4317",
    }
}

/// Whether the signal's path still has to be appended; gRPC has none.
#[derive(Debug, Clone, Copy)]
enum Path {
    Append,
    AsGiven,
}

fn complete(signal: Signal, transport: Transport, given: &Given, variables: &Variables) -> Result<String, StartError> {
    let (url, path) = (given.address.as_str(), given.path);
    let wrong = |reason| StartError::Endpoint { from: given.from.to_string(), value: url.to_owned(), reason };
    let parsed: Uri = url.parse().map_err(|_| wrong("not a URL"))?;
    if parsed.authority().is_none_or(|authority| authority.host().is_empty()) {
        return Err(wrong("no host"));
    }
    // As a URL's parser sees the scheme, which may be written in capitals.
    let scheme = match (parsed.scheme_str(), transport) {
        (Some(scheme @ ("http" | "https")), _) => scheme,
        // Only here the standard lets the scheme be left out, and has a variable to decide then.
        (None, Transport::Grpc) if is_insecure(signal, variables) => "http",
        (None, Transport::Grpc) => "https",
        _ => return Err(wrong("it must begin with http:// or https://")),
    };
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    Ok(match (transport, path) {
        (Transport::Http, Path::Append) => format!("{scheme}://{}{}", rest.trim_end_matches('/'), signal.path()),
        _ => format!("{scheme}://{rest}"),
    })
}

fn is_insecure(signal: Signal, variables: &Variables) -> bool {
    let names = signal.variables("INSECURE");
    variables.first(&as_strs(&names)).is_some_and(|(name, _)| variables.is_true(name))
}

/// The SDK reads none of them.
pub(super) fn certificates(signal: Signal, variables: &Variables) -> Result<Certificates, StartError> {
    let authority = pem(signal, "CERTIFICATE", is_certificates, variables)?;
    let certificate = pem(signal, "CLIENT_CERTIFICATE", is_certificates, variables)?;
    let key = pem(signal, "CLIENT_KEY", is_key, variables)?;
    let own = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err(alone(signal, "CLIENT_CERTIFICATE", "of use without its key", variables)),
        (None, Some(_)) => return Err(alone(signal, "CLIENT_KEY", "of use without its certificate", variables)),
    };
    Ok(Certificates { authority, own })
}

fn is_certificates(pem: &[u8]) -> bool {
    let mut all = CertificateDer::pem_slice_iter(pem).peekable();
    all.peek().is_some() && all.all(|each| each.is_ok())
}

fn is_key(pem: &[u8]) -> bool {
    PrivateKeyDer::from_pem_slice(pem).is_ok()
}

/// The file that a variable names.
fn pem(
    signal: Signal,
    what: &str,
    is_it: impl Fn(&[u8]) -> bool,
    variables: &Variables,
) -> Result<Option<Vec<u8>>, StartError> {
    let names = signal.variables(what);
    let Some((_, path)) = variables.first(&as_strs(&names)) else { return Ok(None) };
    match std::fs::read(path) {
        Ok(pem) if is_it(&pem) => Ok(Some(pem)),
        Ok(_) => Err(alone(signal, what, "a file that holds this in PEM", variables)),
        Err(_) => Err(alone(signal, what, "a file that can be read", variables)),
    }
}

fn alone(signal: Signal, what: &str, expected: &'static str, variables: &Variables) -> StartError {
    let names = signal.variables(what);
    let (name, value) = variables.first(&as_strs(&names)).unwrap_or_default();
    StartError::Variable { name: name.to_owned(), value, expected }
}

pub(super) fn propagation(variables: &Variables) -> Result<Vec<Propagation>, StartError> {
    const NAME: &str = "OTEL_PROPAGATORS";
    let Some(list) = variables.get(NAME) else {
        return Ok(vec![Propagation::TraceContext, Propagation::Baggage]);
    };
    let mut chosen = Vec::new();
    for item in list.split(',').map(str::trim) {
        match item {
            "tracecontext" => chosen.push(Propagation::TraceContext),
            "baggage" => chosen.push(Propagation::Baggage),
            "none" => {}
            _ => {
                let expected = "a list of 'tracecontext', 'baggage' or 'none'";
                return Err(StartError::Variable { name: NAME.to_owned(), value: list, expected });
            }
        }
    }
    chosen.dedup();
    Ok(chosen)
}

fn as_strs(names: &[String; 2]) -> [&str; 2] {
    [&names[0], &names[1]]
}

#[cfg(test)]
mod tests;
