//! Out of the process: OTLP for all three signals, `/metrics` for Prometheus, the log on stderr, and the flush at the end.
//!
//! Everything that sends runs on a runtime of its own, so that it neither dies with the application's runtime nor waits for
//! it. The order matters: the meter provider first, for the others report their own losses through it.

pub mod check;
mod client;
pub(crate) mod filter;
mod flood;
mod flush;
mod follows;
pub(crate) mod log;
mod log_filter;
pub(crate) mod pipeline;
mod plan;
mod prometheus;
mod providers;
mod resource;
mod room;
pub(crate) mod stamps;
mod variables;

pub use client::build as blocking_client;
pub use flush::{FlushReport, Outcome, SignalReport};
pub use log_filter::{LogFilter, LogFilterState, Reload};
pub use plan::{Signal, Source};
pub use variables::Variables;

#[cfg(test)]
pub(crate) use prometheus::Page;

use crate::recorder::{Recorder, RecorderSettings};
use crate::{SCOPE, context, crash, door, lock, metrics, panic};
use flood::Flood;
use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use plan::Plan;
use providers::Providers;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::Runtime;

/// How this process reports. The standard `OTEL_*` variables fill in the rest and win where they say so.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `service.name`. `OTEL_SERVICE_NAME` wins.
    pub service_name: String,
    /// `service.version`.
    pub service_version: String,
    /// `service.instance.id`: different for every process.
    pub instance_id: String,
    /// `deployment.environment.name`: the profile. In `development` nothing is exported until an endpoint is given.
    pub environment: String,
    /// Where OTLP goes.
    pub endpoint: Endpoint,
    /// What is logged: `info`, `info,scheduler=debug` ... Targets are prefixes. Empty means `info`.
    pub log_filter: String,
    /// How the log on stderr looks.
    pub log_format: LogFormat,
    /// Share of traces kept, 0 to 1. None means what `OTEL_TRACES_SAMPLER` says, else all.
    pub sample_ratio: Option<f64>,
    /// What is kept in the process, for whoever looks.
    pub recorder: RecorderSettings,
}

/// Where OTLP goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Endpoint {
    /// Where `OTEL_EXPORTER_OTLP_ENDPOINT` and its kin say; without them nowhere in `development`, else to the standard's
    /// default on this host.
    #[default]
    Environment,
    /// Nowhere. Traces keep their ids, `/metrics` its numbers, stderr its log.
    Off,
    /// To this base URL, whatever the variables say.
    Url(String),
}

/// How the log on stderr looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line for people, with the trace id.
    #[default]
    Text,
    /// One JSON object in each line.
    Json,
}

/// Telemetry could not start. The message names the variable or the setting.
#[derive(Debug, Error)]
pub enum StartError {
    /// A variable has a value that cannot be meant.
    #[error("{name}: '{value}' is not {expected}")]
    Variable {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// An endpoint is not a usable URL.
    #[error("{from}: '{value}' is not an endpoint: {reason}")]
    Endpoint {
        /// The variable or setting.
        from: String,
        /// Its value.
        value: String,
        /// Why not.
        reason: &'static str,
    },
    /// The log filter cannot be read.
    #[error("log filter '{value}': {reason}")]
    Filter {
        /// The filter.
        value: String,
        /// What the reader said.
        reason: String,
    },
    /// The sample ratio is not a share.
    #[error("sample ratio {0} is not between 0 and 1")]
    Ratio(f64),
    /// An exporter could not be built.
    #[error("could not build the exporter for {signal}: {source}")]
    Exporter {
        /// Which signal.
        signal: Signal,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// `/metrics` could not be set up.
    #[error("could not set up the metrics page: {0}")]
    Prometheus(String),
    /// No threads for the exporters.
    #[error("could not start the exporters' runtime: {0}")]
    Runtime(#[from] io::Error),
    /// The process has a subscriber already. Telemetry starts once.
    #[error("telemetry has already started in this process")]
    AlreadyStarted,
}

/// Starts telemetry for the process, once. From here on logs appear, spans have ids, instruments are real.
///
/// # Errors
/// A setting or a variable is wrong, or telemetry has already started.
pub fn start(settings: Settings) -> Result<Telemetry, StartError> {
    start_with(settings, &Variables::of_process())
}

/// As [`start`], with the `OTEL_*` variables given. What the SDK itself reads still comes from the process.
///
/// # Errors
/// As [`start`].
pub fn start_with(settings: Settings, variables: &Variables) -> Result<Telemetry, StartError> {
    let plan = Plan::new(&settings, variables)?;
    let flood = Arc::<Flood>::default();
    let (stderr, of_stderr) = filter::stderr(&settings.log_filter, &flood)?;
    let (logs, of_logs) = filter::logs(&settings.log_filter)?;
    if STARTED.swap(true, Ordering::AcqRel) {
        return Err(StartError::AlreadyStarted);
    }
    let runtime = door::runtime()?;
    let handle = runtime.handle().clone();
    let runtime = Exporting(Some(runtime));
    let recorder = settings.recorder.enabled.then(|| Recorder::new(&settings.recorder));
    let resource = resource::resource(&settings, variables);
    let providers = runtime.enter(|| Providers::build(&plan, resource, recorder.as_ref()))?;
    global::set_tracer_provider(providers.traces.clone());
    global::set_text_map_propagator(plan.propagator());
    context::use_global_propagator();
    log::install(settings.log_format, stderr, logs, providers.traces.tracer(SCOPE), providers.logs.as_ref())?;
    flood.tell_on(&handle);
    panic::log_is_live();
    metrics::provider_installed();
    if let Some(recorder) = &recorder {
        recorder.report();
        context::all_is_recorded();
    }
    let log_filter = LogFilter::new(settings.log_filter, vec![of_stderr, of_logs], handle.clone());
    let left = providers.clone();
    crash::flush_with(move |budget| flush::flush_blocking(left.clone(), handle.clone(), budget));
    Ok(Telemetry {
        destination: plan.to_string(),
        runtime: Mutex::new(runtime),
        providers,
        log_filter,
        flood,
        recorder,
    })
}

/// Providers and subscriber are of the process; a second start would take them from the first.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Telemetry of this process, running. Dropping it without a flush loses what still waits: keep it to the very end, and
/// call [`flush_and_stop`](Self::flush_and_stop) last of all.
#[derive(Debug)]
pub struct Telemetry {
    destination: String,
    runtime: Mutex<Exporting>,
    providers: Providers,
    log_filter: LogFilter,
    flood: Arc<Flood>,
    recorder: Option<Recorder>,
}

impl Telemetry {
    /// All metrics in Prometheus' text format. It runs the callbacks of observed gauges.
    pub fn prometheus(&self) -> String {
        self.providers.page.render()
    }

    /// Where each signal goes, for people: `traces to http://...; metrics to ...`, or `off`.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// What is logged, and how that is changed for a while.
    pub fn log_filter(&self) -> LogFilter {
        self.log_filter.clone()
    }

    /// What is kept in the process, unless the settings say that nothing is.
    pub fn recorder(&self) -> Option<Recorder> {
        self.recorder.clone()
    }

    /// Sends what is left and stops, within `budget`, however dead the collector is. What is emitted afterwards is lost. The
    /// work happens on telemetry's own runtime, in real time. A second call does nothing and reports nothing.
    pub async fn flush_and_stop(&self, budget: Duration) -> FlushReport {
        let Some(runtime) = lock(&self.runtime).0.take() else {
            return FlushReport::default();
        };
        self.flood.tell();
        let flushing = flush::flush(self.providers.clone(), runtime.handle().clone(), budget);
        let report = door::spawn(runtime.handle(), flushing).await.unwrap_or_default();
        runtime.shutdown_background();
        report
    }
}

/// The exporters' runtime. Dropping a runtime inside another one panics, so this one is let go in the background.
#[derive(Debug)]
struct Exporting(Option<Runtime>);

impl Exporting {
    fn enter<T>(&self, build: impl FnOnce() -> T) -> T {
        let _entered = self.0.as_ref().map(Runtime::enter);
        build()
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
