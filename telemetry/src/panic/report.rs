//! Says it: the span event, the log record, and whoever else wants to hear.

use super::event::{Recovered, Uncaught};
use super::limit::LogLimit;
use super::recorder::Job;
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
    let incident = job.incident.id.to_string();
    let mut attributes = match job.name {
        Uncaught::NAME => Uncaught::of(job, &incident).attributes(),
        _ => Recovered::of(job, &incident).attributes(),
    };
    let fields = &job.panic.assertion.fields;
    attributes.extend(fields.iter().map(|(key, value)| KeyValue::new(format!("panic.context.{key}"), value.clone())));
    job.panic.context.span().add_event_with_timestamp(job.name, job.incident.at.into(), attributes);
}

/// The log record, in the panic's own span and through its own subscriber, though on another thread. Answers whether there
/// is one.
fn log(job: &Job) -> bool {
    static LIMIT: LazyLock<LogLimit> = LazyLock::new(LogLimit::default);
    let incident = &job.incident;
    let actor = format!("{} {}", incident.component, incident.actor);
    let line = incident.location.as_deref().unwrap_or_default();
    let Some(suppressed) = LIMIT.admit(&actor, line, incident.at) else {
        return false;
    };
    let (id, context) = (incident.id.to_string(), job.panic.assertion.line());
    let (suppressed, context) = (Some(i64::try_from(suppressed).unwrap_or(i64::MAX)), context.as_deref());
    let (name, message) = (job.name, &incident.message);
    dispatcher::with_default(&job.panic.dispatch, || {
        // The context only: entering the span again would move its end.
        let _attached = job.panic.context.clone().attach();
        match name {
            Uncaught::NAME => {
                Uncaught { suppressed, context, ..Uncaught::of(job, &id) }.log(format_args!("{name}: {message}"))
            }
            _ => Recovered { suppressed, context, ..Recovered::of(job, &id) }.log(format_args!("{name}: {message}")),
        }
    });
    true
}
