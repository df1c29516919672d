//! What passes where. Levels decide here, not the sampler: a span that is filtered out costs a tenth of one that is sampled
//! away.

use super::StartError;
use super::log_filter::Reload;
use crate::lock;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::reload;

/// Below the users' own directives. Targets are prefixes: `hyper` covers `hyper_util` too. ractor's span at INFO lives as
/// long as its actor and would swallow the spans of the handlers.
const QUIET: &str = "ractor=warn,hyper=warn,h2=warn,reqwest=warn,tonic=warn,rustls=warn,opentelemetry=warn";

/// Above the users' own directives: who did what to the service is told whatever else is not.
const ALWAYS: &str = "audit=info";

/// Never exported: what the exporters themselves say would be exported in turn, and so on for ever.
const MACHINERY: [&str; 6] = ["opentelemetry", "hyper", "h2", "reqwest", "tonic", "rustls"];

/// The least time between two records of the same failure of the exporters on stderr, seconds.
const REPEAT_AFTER_S: i64 = 30;

/// For the log on stderr, with the way to change its directives.
pub(crate) fn stderr<S: Subscriber>(directives: &str) -> Result<(impl Filter<S> + use<S>, Reload), StartError> {
    let (filter, reload) = reloadable(directives)?;
    Ok((filter.and(NotTooOften::default()), reload))
}

/// For log records by OTLP: as on stderr, without the machinery.
pub(crate) fn logs<S: Subscriber>(directives: &str) -> Result<(impl Filter<S> + use<S>, Reload), StartError> {
    let (filter, reload) = reloadable(directives)?;
    Ok((filter.and(filter_fn(|metadata| metadata.is_event() && !is_machinery(metadata))), reload))
}

fn reloadable<S: Subscriber>(directives: &str) -> Result<(reload::Layer<EnvFilter, S>, Reload), StartError> {
    let (filter, handle) = reload::Layer::new(env_filter(directives)?);
    // It fails only when the subscriber is gone, and then nothing is logged anyway.
    let reload = move |directives: &str| env_filter(directives).map(|filter| drop(handle.reload(filter)));
    Ok((filter, Box::new(reload)))
}

/// For spans: INFO and above, whatever the log shows. Warnings and errors become events of the span, and an error sets its
/// status; what panics is told by the recorder itself.
pub(crate) fn traces<S: Subscriber>() -> impl Filter<S> {
    let passes = |metadata: &Metadata<'_>| match metadata.is_span() {
        true => *metadata.level() <= Level::INFO && !metadata.target().starts_with("ractor"),
        false => *metadata.level() <= Level::WARN && metadata.target() != "telemetry::panic",
    };
    filter_fn(move |metadata| passes(metadata) && !is_machinery(metadata)).with_max_level_hint(LevelFilter::INFO)
}

pub(super) fn env_filter(directives: &str) -> Result<EnvFilter, StartError> {
    let directives = if directives.trim().is_empty() { "info" } else { directives };
    let wrong = |reason: String| StartError::Filter { value: directives.to_owned(), reason };
    EnvFilter::builder().parse(format!("{QUIET},{directives},{ALWAYS}")).map_err(|error| wrong(error.to_string()))
}

fn is_machinery(metadata: &Metadata<'_>) -> bool {
    MACHINERY.iter().any(|prefix| metadata.target().starts_with(prefix))
}

/// A collector that is down fails every second, three signals over. Each failure is logged once in a while.
#[derive(Debug, Default)]
struct NotTooOften {
    last_s: Mutex<HashMap<&'static str, i64>>,
}

impl NotTooOften {
    fn admit(&self, name: &'static str, now_s: i64) -> bool {
        let mut last_s = lock(&self.last_s);
        // The names are those of the SDK's call sites: a few dozen.
        let due = last_s.get(name).is_none_or(|last| now_s - last >= REPEAT_AFTER_S);
        if due {
            last_s.insert(name, now_s);
        }
        due
    }
}

impl<S> Filter<S> for NotTooOften {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        !metadata.target().starts_with("opentelemetry") || self.admit(metadata.name(), Timestamp::now().as_second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_exporters_is_logged_once_in_a_while() {
        let filter = NotTooOften::default();
        assert!(filter.admit("ExportError", 100));
        assert!(!filter.admit("ExportError", 129));
        assert!(filter.admit("Another", 129));
        assert!(filter.admit("ExportError", 130));
    }

    #[test]
    fn a_directive_that_cannot_be_read_is_refused_with_its_text() {
        let error = env_filter("info,scheduler=loud").unwrap_err().to_string();
        assert!(error.starts_with("log filter 'info,scheduler=loud': "), "{error}");
    }

    #[test]
    fn what_is_audited_is_told_whatever_the_directives_say() {
        for directives in ["off", "error,audit=off", "audit=warn"] {
            let filter = env_filter(directives).unwrap().to_string();
            assert!(filter.contains("audit=info") && !filter.contains("audit=off"), "{filter}");
        }
    }

    #[test]
    fn the_users_directives_win_over_the_quiet_ones() {
        let filter = env_filter("debug,ractor=trace").unwrap().to_string();
        assert!(filter.contains("ractor=trace") && !filter.contains("ractor=warn"), "{filter}");
        assert!(filter.contains("hyper=warn") && filter.contains("debug"), "{filter}");
    }
}
