//! Says it: the span event, the log record, and whoever else wants to hear.

use super::ensure::line;
use super::event::{Recovered, Uncaught};
use super::limit::LogLimit;
use super::recorder::Job;
use crate::events::HappenedAt;
use crate::reporters;
use opentelemetry::KeyValue;
use opentelemetry::trace::TraceContextExt as _;
use std::sync::LazyLock;
use tracing::dispatcher;

pub(super) fn report(job: Job) {
    add_event(&job);
    let is_logged = log(&job);
    let Job { incident, panic, .. } = job;
    // Only now may the span close.
    drop(panic);
    // A storm is told to them as it is logged: in part.
    if is_logged {
        reporters::tell(incident);
    }
}

fn add_event(job: &Job) {
    let (incident, detail) = (job.incident.id.to_string(), detail(job));
    let detail = detail.as_deref();
    let mut attributes = match job.name {
        Uncaught::NAME => Uncaught::of(job, &incident, detail).attributes(),
        _ => Recovered::of(job, &incident, detail).attributes(),
    };
    let fields = &job.panic.assertion.fields;
    attributes.extend(fields.iter().map(|(key, value)| KeyValue::new(format!("panic.context.{key}"), value.clone())));
    job.panic.context.span().add_event_with_timestamp(job.name, job.incident.at.into(), attributes);
}

/// The log record, in the panic's own span, with its own time and through its own subscriber, though on another thread.
/// Answers whether there is one.
fn log(job: &Job) -> bool {
    static LIMIT: LazyLock<LogLimit> = LazyLock::new(LogLimit::default);
    let incident = &job.incident;
    let actor = format!("{} {}", incident.component, incident.actor);
    let place = incident.location.as_deref().unwrap_or_default();
    let Some(suppressed) = LIMIT.admit(&actor, place, incident.at) else {
        return false;
    };
    let (id, context) = (incident.id.to_string(), job.panic.assertion.line());
    let (suppressed, context) = (Some(i64::try_from(suppressed).unwrap_or(i64::MAX)), context.as_deref());
    let (name, message) = (job.name, &incident.message);
    let detail = detail(job);
    let detail = detail.as_deref();
    dispatcher::with_default(&job.panic.dispatch, || {
        // The context only: entering the span again would move its end.
        let _attached = job.panic.context.with_value(HappenedAt(incident.at)).attach();
        match name {
            Uncaught::NAME => Uncaught { suppressed, context, ..Uncaught::of(job, &id, detail) }
                .log(format_args!("{name}: {message}")),
            _ => Recovered { suppressed, context, ..Recovered::of(job, &id, detail) }
                .log(format_args!("{name}: {message}")),
        }
    });
    true
}

/// What was worked on, in one line. What an assertion tells has a place of its own.
fn detail(job: &Job) -> Option<String> {
    let told: Vec<_> = job.panic.assertion.detail().collect();
    let own = job.incident.detail.iter().filter(|pair| !told.contains(pair));
    line(own.map(|(key, value)| (key.as_str(), value.as_str())))
}
