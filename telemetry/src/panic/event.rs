//! How a panic is told: the event on its span, and the log record of the same name.

use super::recorder::Job;

/// Both events tell the same of a panic; they differ in whether somebody of ours caught it.
macro_rules! panicked {
    ($($(#[doc = $help:literal])+ $name:ident = $event:literal;)+) => {$(
        crate::declare_events! {
            $(#[doc = $help])+
            pub(super) struct $name<'a> = ($event, error, "telemetry::panic") {
                component: &'a str,
                actor: &'a str,
                policy: &'a str,
                phase: &'a str,
                message_type: Option<&'a str>,
                incarnation: i64,
                tenant: Option<&'a str>,
                #[name = "panic.detail"]
                detail: Option<&'a str>,
                #[name = "incident.id"]
                incident: &'a str,
                #[name = "thread.name"]
                thread: &'a str,
                suppressed: Option<i64>,
                #[name = "panic.location"]
                location: Option<&'a str>,
                #[name = "panic.condition"]
                condition: Option<&'a str>,
                #[name = "panic.context"]
                context: Option<&'a str>,
                #[name = "error.type"]
                error: &'a str,
                #[name = "exception.type"]
                exception: &'a str,
                #[name = "exception.message"]
                message: &'a str,
                #[name = "exception.stacktrace"]
                stacktrace: &'a str,
            }
        }

        impl<'a> $name<'a> {
            pub(super) fn of(job: &'a Job, incident: &'a str, detail: Option<&'a str>) -> Self {
                let panic = &job.incident;
                Self {
                    component: &panic.component,
                    actor: &panic.actor,
                    policy: panic.policy,
                    phase: &panic.phase,
                    message_type: panic.message_type.as_deref(),
                    incarnation: i64::try_from(panic.incarnation).unwrap_or(i64::MAX),
                    tenant: panic.tenant.as_deref(),
                    detail,
                    incident,
                    thread: &panic.thread,
                    suppressed: None,
                    location: panic.location.as_deref(),
                    condition: job.panic.assertion.condition,
                    context: None,
                    error: "panic",
                    exception: "panic",
                    message: &panic.message,
                    stacktrace: panic.backtrace.as_deref().unwrap_or_default(),
                }
            }
        }
    )+};
}

panicked! {
    /// A panic was caught, and what it cost is known: the policy says. `panic.detail` is what was worked on, in one line:
    /// `job.id=... job.kind=...`. The fields of an assertion stand in the record in one line, `panic.context`, and on the span
    /// one by one, `panic.context.<key>`.
    Recovered = "panic.recovered";
    /// A panic that no catch site of ours took; `phase` says how that is known.
    Uncaught = "panic.uncaught";
}
