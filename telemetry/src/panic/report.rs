//! Says it: the span event, the log record, and whoever else wants to hear.

use super::limit::LogLimit;
use super::recorder::{Job, survive};
use crate::incidents::Incident;
use opentelemetry::KeyValue;
use opentelemetry::trace::TraceContextExt as _;
use std::sync::{LazyLock, PoisonError, RwLock};
use tracing::dispatcher;

/// Hears of every incident once it is complete: an error tracker, a chat channel.
pub trait ErrorReporter: Send + Sync {
    /// Takes the incident and returns at once: it is called on the thread that records panics, and in a storm on the thread
    /// that panicked. Whatever takes time belongs into a queue of the reporter's own.
    fn report(&self, incident: &Incident);
}

static REPORTERS: RwLock<Vec<Box<dyn ErrorReporter>>> = RwLock::new(Vec::new());

/// Sets who hears of incidents; it replaces those before.
pub fn set_reporters(reporters: Vec<Box<dyn ErrorReporter>>) {
    *REPORTERS.write().unwrap_or_else(PoisonError::into_inner) = reporters;
}

pub(super) fn report(job: Job) {
    add_event(&job);
    log(&job);
    let Job { incident, panic, .. } = job;
    // Only now may the span close.
    drop(panic);
    for reporter in REPORTERS.read().unwrap_or_else(PoisonError::into_inner).iter() {
        survive(|| reporter.report(&incident));
    }
}

fn add_event(job: &Job) {
    let incident = &job.incident;
    let mut attributes = vec![
        KeyValue::new("exception.type", "panic"),
        KeyValue::new("exception.message", incident.message.clone()),
        KeyValue::new("exception.stacktrace", stack(incident).to_owned()),
        KeyValue::new("component", incident.component.clone()),
        KeyValue::new("actor", incident.actor.clone()),
        KeyValue::new("policy", incident.policy),
        KeyValue::new("phase", incident.phase.clone()),
        KeyValue::new("incarnation", i64::try_from(incident.incarnation).unwrap_or(i64::MAX)),
        KeyValue::new("incident.id", incident.id.to_string()),
        KeyValue::new("thread.name", incident.thread.clone()),
    ];
    let optional = [
        ("message_type", &incident.message_type),
        ("panic.location", &incident.location),
        ("tenant", &incident.tenant),
    ];
    let known = optional.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value.clone()?)));
    attributes.extend(known);
    let assertion = &job.panic.assertion;
    attributes.extend(assertion.condition.map(|text| KeyValue::new("panic.condition", text)));
    let context =
        assertion.fields.iter().map(|(key, value)| KeyValue::new(format!("panic.context.{key}"), value.clone()));
    attributes.extend(context);
    job.panic.context.span().add_event_with_timestamp(job.name, incident.at.into(), attributes);
}

/// The log record, in the panic's own span and through its own subscriber, though on another thread.
fn log(job: &Job) {
    static LIMIT: LazyLock<LogLimit> = LazyLock::new(LogLimit::default);
    let incident = &job.incident;
    let (condition, context) = (job.panic.assertion.condition, job.panic.assertion.line());
    let actor = format!("{} {}", incident.component, incident.actor);
    let line = incident.location.as_deref().unwrap_or_default();
    let Some(suppressed) = LIMIT.admit(&actor, line, incident.at) else {
        return;
    };
    dispatcher::with_default(&job.panic.dispatch, || {
        // The context only: entering the span again would move its end.
        let _attached = job.panic.context.clone().attach();
        match job.name {
            "panic.uncaught" => emit!("panic.uncaught", incident, suppressed, condition, context),
            _ => emit!("panic.recovered", incident, suppressed, condition, context),
        }
    });
}

/// The name of a log record is part of its call site, so there is one call site for each name.
macro_rules! emit {
    ($name:literal, $incident:expr, $suppressed:expr, $condition:expr, $context:expr) => {
        tracing::error!(
            name: $name,
            target: "telemetry::panic",
            component = $incident.component,
            actor = $incident.actor,
            policy = $incident.policy,
            phase = $incident.phase,
            message_type = $incident.message_type,
            incarnation = i64::try_from($incident.incarnation).unwrap_or(i64::MAX),
            tenant = $incident.tenant,
            incident.id = %$incident.id,
            suppressed = i64::try_from($suppressed).unwrap_or(i64::MAX),
            panic.location = $incident.location,
            panic.condition = $condition,
            panic.context = $context,
            error.r#type = "panic",
            exception.r#type = "panic",
            exception.message = $incident.message,
            exception.stacktrace = stack($incident),
            concat!($name, ": {}"),
            $incident.message,
        )
    };
}
use emit;

fn stack(incident: &Incident) -> &str {
    incident.backtrace.as_deref().unwrap_or_default()
}
