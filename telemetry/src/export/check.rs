//! What [`start`](super::start) would refuse and where each signal would go, asked before anything is started.

use super::plan::{self, Signal, Source};
use super::{Settings, StartError, Variables, filter};

/// Where one signal would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Which one.
    pub signal: Signal,
    /// The address as it was given. It may carry a password.
    pub address: String,
    /// Who gave it.
    pub from: Source,
}

/// Where each signal would go; none is left out but those that are not exported. Nothing is built or dialled.
///
/// # Errors
/// Everything in the settings and in the `OTEL_*` variables that would end the start, each once.
pub fn destinations(settings: &Settings, variables: &Variables) -> Result<Vec<Destination>, Vec<StartError>> {
    let mut faults = Faults(Vec::new());
    faults.keep(plan::sampler(settings, variables));
    for name in plan::QUEUES {
        faults.keep(plan::queue_max(name, variables));
    }
    let destinations = Signal::ALL.into_iter().filter_map(|signal| faults.destination(signal, settings, variables));
    let destinations = destinations.collect();
    faults.keep(plan::propagation(variables));
    if faults.0.is_empty() { Ok(destinations) } else { Err(faults.0) }
}

/// Whether the log filter can be read.
///
/// # Errors
/// [`StartError::Filter`].
pub fn log_filter(directives: &str) -> Result<(), StartError> {
    filter::env_filter(directives).map(drop)
}

struct Faults(Vec<StartError>);

impl Faults {
    fn destination(&mut self, signal: Signal, settings: &Settings, variables: &Variables) -> Option<Destination> {
        let wanted = self.keep(plan::is_wanted(signal, variables)).unwrap_or(false);
        self.keep(plan::timeout(signal, variables));
        self.keep(plan::certificates(signal, variables));
        let transport = self.keep(plan::transport(signal, variables))?;
        self.keep(plan::url(signal, transport, settings, variables));
        let given = plan::given(signal, transport, settings, variables).filter(|_| wanted)?;
        Some(Destination { signal, address: given.address, from: given.from })
    }

    /// Three signals share most variables, so one fault comes up to three times.
    fn keep<T>(&mut self, result: Result<T, StartError>) -> Option<T> {
        let told = |error: &StartError| self.0.iter().any(|known| known.to_string() == error.to_string());
        match result {
            Ok(value) => return Some(value),
            Err(error) if told(&error) => {}
            Err(error) => self.0.push(error),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Endpoint, LogFormat};
    use super::*;

    fn ask(endpoint: Endpoint, variables: &[(&str, &str)]) -> Result<Vec<Destination>, Vec<String>> {
        let settings = Settings {
            service_name: "s".into(),
            service_version: "1".into(),
            instance_id: "i".into(),
            environment: "production".into(),
            endpoint,
            log_filter: String::new(),
            log_format: LogFormat::Text,
            sample_ratio: None,
            recorder: crate::recorder::RecorderSettings::default(),
        };
        let asked = destinations(&settings, &Variables::of_pairs(variables.iter().copied()));
        asked.map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_fault_is_told_and_each_once() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "foo"),
            ("OTEL_PROPAGATORS", "foo"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "abc"),
        ];
        let faults = ask(Endpoint::Environment, &variables).unwrap_err();
        assert_eq!(
            faults,
            [
                "OTEL_EXPORTER_OTLP_TIMEOUT: 'abc' is not a number of milliseconds",
                "OTEL_EXPORTER_OTLP_PROTOCOL: 'foo' is not 'http/protobuf' or 'grpc'",
                "OTEL_PROPAGATORS: 'foo' is not a list of 'tracecontext', 'baggage' or 'none'",
            ]
        );
    }

    #[test]
    fn each_signal_is_told_with_who_sent_it_there() {
        let variables = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/x"), ("OTEL_LOGS_EXPORTER", "none")];
        let told = ask(Endpoint::Environment, &variables).unwrap();
        let told: Vec<_> =
            told.iter().map(|each| (each.signal, each.address.as_str(), each.from.to_string())).collect();
        let traces = (Signal::Traces, "http://t:1/x", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT".to_owned());
        assert_eq!(told, [traces, (Signal::Metrics, "http://localhost:4318", "default".to_owned())]);
        let variables = [("OTEL_SDK_DISABLED", "true")];
        assert_eq!(ask(Endpoint::Url("http://c:1".into()), &variables), Ok(Vec::new()));
    }
}
