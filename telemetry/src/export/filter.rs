//! What passes where. Levels decide here, not the sampler: a span that is filtered out costs a tenth of one that is sampled
//! away.

use super::StartError;
use super::flood::{Bounded, Flood};
use super::log_filter::Reload;
use crate::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::reload;

/// Below the users' own directives. Targets are prefixes: `hyper` covers `hyper_util` too. ractor's span at INFO lives as
/// long as its actor and would swallow the spans of the handlers.
const QUIET: &str = "ractor=warn,hyper=warn,h2=warn,reqwest=warn,tonic=warn,rustls=warn,opentelemetry=warn";

/// Passes whatever the directives say, which can be as narrow as they like: who did what to the service is told.
const ALWAYS: &str = "audit";

/// Never exported: what the exporters themselves say would be exported in turn, and so on for ever.
const MACHINERY: [&str; 6] = ["opentelemetry", "hyper", "h2", "reqwest", "tonic", "rustls"];

/// The least time between two records of the same failure of the exporters on stderr.
const REPEAT_AFTER: Duration = Duration::from_secs(30);

/// For the log on stderr, with the way to change its directives.
pub(super) fn stderr<S: Subscriber>(
    directives: &str,
    flood: &Arc<Flood>,
) -> Result<(impl Filter<S> + use<S>, Reload), StartError> {
    let (filter, reload) = reloadable(directives)?;
    // The order matters: what the directives leave out takes nothing from the share of a call site.
    Ok((filter.and(NotTooOften::default()).and(Bounded(Arc::clone(flood))), reload))
}

/// For log records by OTLP: as on stderr, without the machinery.
pub(crate) fn logs<S: Subscriber>(directives: &str) -> Result<(impl Filter<S> + use<S>, Reload), StartError> {
    let (filter, reload) = reloadable(directives)?;
    // Spans pass: a directive may ask for the records within one.
    let exported = filter_fn(|metadata| !is_machinery(metadata));
    Ok((filter.and(exported).and(Bounded(Arc::default())), reload))
}

fn reloadable<S: Subscriber>(directives: &str) -> Result<(impl Filter<S> + use<S>, Reload), StartError> {
    let (filter, handle) = reload::Layer::new(env_filter(directives)?);
    // It fails only when the subscriber is gone, and then nothing is logged anyway.
    let reload = move |directives: &str| env_filter(directives).map(|filter| drop(handle.reload(filter)));
    let always = |metadata: &Metadata<'_>| metadata.target() == ALWAYS && *metadata.level() <= Level::INFO;
    Ok((filter.or(filter_fn(always).with_max_level_hint(LevelFilter::INFO)), Box::new(reload)))
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
    EnvFilter::builder().parse(format!("{QUIET},{directives}")).map_err(|error| wrong(error.to_string()))
}

fn is_machinery(metadata: &Metadata<'_>) -> bool {
    MACHINERY.iter().any(|prefix| metadata.target().starts_with(prefix))
}

/// A collector that is down fails every second, three signals over. Each failure is logged once in a while.
#[derive(Debug, Default)]
struct NotTooOften {
    last: Mutex<HashMap<&'static str, Instant>>,
}

impl NotTooOften {
    fn admit(&self, name: &'static str, now: Instant) -> bool {
        let mut last = lock(&self.last);
        // The names are those of the SDK's call sites: a few dozen.
        let due = last.get(name).is_none_or(|last| now.duration_since(*last) >= REPEAT_AFTER);
        if due {
            last.insert(name, now);
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
        !metadata.target().starts_with("opentelemetry") || self.admit(metadata.name(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::{Layer, SubscriberExt as _};

    #[test]
    fn a_failure_of_the_exporters_is_logged_once_in_a_while() {
        let (filter, start) = (NotTooOften::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(filter.admit("ExportError", at(0)));
        assert!(!filter.admit("ExportError", at(29)));
        assert!(filter.admit("Another", at(29)));
        assert!(filter.admit("ExportError", at(30)));
    }

    #[test]
    fn a_directive_that_cannot_be_read_is_refused_with_its_text() {
        let error = env_filter("info,scheduler=loud").unwrap_err().to_string();
        assert!(error.starts_with("log filter 'info,scheduler=loud': "), "{error}");
    }

    /// The targets of the records of `work` that pass `filter`.
    fn passed(filter: impl Filter<Registry> + Send + Sync + 'static, work: impl FnOnce()) -> Vec<&'static str> {
        struct Seen(Arc<Mutex<Vec<&'static str>>>);
        impl<S: Subscriber> Layer<S> for Seen {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                lock(&self.0).push(event.metadata().target());
            }
        }
        let seen = Arc::default();
        let subscriber = Registry::default().with(Seen(Arc::clone(&seen)).with_filter(filter));
        tracing::subscriber::with_default(subscriber, work);
        lock(&seen).clone()
    }

    #[test]
    fn what_is_audited_is_told_whatever_the_directives_say() {
        let audited = || {
            tracing::info!(target: "audit", action = "tenant.disable", "audit");
            tracing::debug!(target: "audit", "not at this level");
            tracing::info!(target: "other", action = "none", "not this");
        };
        for directives in ["off", "error,audit=off", "audit=warn", "error,audit[{action}]=off", "warn,[{action}]=off"] {
            assert_eq!(
                passed(stderr(directives, &Arc::default()).unwrap().0, audited),
                ["audit"],
                "{directives} on stderr"
            );
            assert_eq!(passed(logs(directives).unwrap().0, audited), ["audit"], "{directives} elsewhere");
        }
    }

    #[test]
    fn records_within_a_span_can_be_asked_for_in_both_places() {
        let work = || {
            tracing::info_span!("run", tenant = "demo").in_scope(|| tracing::debug!(target: "inside", "told"));
            tracing::info_span!("run", tenant = "acme").in_scope(|| tracing::debug!(target: "another", "not told"));
            tracing::debug!(target: "outside", "not told");
        };
        let directives = "info,[run{tenant=demo}]=debug";
        assert_eq!(passed(stderr(directives, &Arc::default()).unwrap().0, work), ["inside"]);
        assert_eq!(passed(logs(directives).unwrap().0, work), ["inside"]);
    }

    #[test]
    fn the_users_directives_win_over_the_quiet_ones() {
        let filter = env_filter("debug,ractor=trace").unwrap().to_string();
        assert!(filter.contains("ractor=trace") && !filter.contains("ractor=warn"), "{filter}");
        assert!(filter.contains("hyper=warn") && filter.contains("debug"), "{filter}");
    }
}
