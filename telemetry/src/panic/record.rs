//! The one place where a panic is recorded: metric, span, incident at once; event, log and reporters when the backtrace is
//! resolved.

use super::CapturedPanic;
use super::event::{Recovered, Uncaught};
use super::recorder::{self, Job};
use crate::incidents::{self, Incident, IncidentId};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Status, TraceContextExt as _};
use tracing::dispatcher;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

crate::labels! {
    /// Where a panic was caught, and what happens next.
    pub struct Recovery<'a> { component: &'a str, actor: &'a str, policy: Policy }
}

crate::declare_spans! {
    /// A panic outside any span that will end; it links to whatever trace there was.
    struct PanicSpan = ("panic.{recovered|uncaught}" as "panic", internal, root) {
        #[name = "otel.name"]
        name: &'static str,
    }
}

crate::declare_metrics! {
    /// Panics that were caught and recorded.
    pub static PANIC_RECOVERED: Counter<Recovery> = ("panic_recovered_total", "{panic}");
    /// Panics that no catch site of ours took.
    pub static PANIC_UNCAUGHT: Counter = ("panic_uncaught_total", "{panic}");
}

/// Where a panic was caught, and what the one who caught it knows.
#[derive(Debug, Clone)]
pub struct PanicSite<'a> {
    /// The child of the root under which it happened. A label: one of few names.
    pub component: &'a str,
    /// The path below the root, in dots. A label: one of few names, no ids in it.
    pub actor: &'a str,
    /// What happens next.
    pub policy: Policy,
    /// What it was doing: `start`, `handle`, `stop`, `run` ...
    pub phase: &'a str,
    /// Type of the message it was handling.
    pub message_type: Option<&'a str>,
    /// Which life of the actor, from 1; 0 if it has none.
    pub incarnation: u64,
    /// The tenant whose work it was.
    pub tenant: Option<&'a str>,
    /// What else may help: a job's id, an attempt. Kept with the incident only, unlike the fields of an assertion. No secrets.
    pub detail: Vec<(String, String)>,
}

/// What happens after a panic.
///
/// # An error, or a panic
///
/// A `Result` is for what a correct program meets: bad input, a store that is away, a full queue. The caller decides, and
/// nothing of it is a panic.
///
/// [`ensure!`](crate::ensure) is for what can only be if this program is wrong: a total that no longer adds up, a state from
/// which there is no way. Going on would do damage further away, where nobody finds the cause. What it then costs is the
/// policy of the place that catches it:
///
/// | policy | of | what a broken assertion costs | who hears of it |
/// | --- | --- | --- | --- |
/// | [`Restart`](Policy::Restart) | actors and tasks under a supervisor | this incarnation and its state; a new one starts with state that is sound | the supervisor, which counts it against the budget |
/// | [`KeepRunning`](Policy::KeepRunning) | requests, jobs, tasks of a group | this piece of work | the caller: an error, a 500, a failed attempt |
/// | [`CrashProcess`](Policy::CrashProcess) | migrations, and all else whose half-done state corrupts data | the process: SIGABRT | whoever restarts it |
///
/// So an assertion about an actor's own state belongs into the actor, and one about what is on disk under `CrashProcess`.
/// `debug_assert!` is for none of these: what is wrong in production is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The supervisor starts it anew.
    Restart,
    /// The work is given up, the process carries on.
    KeepRunning,
    /// The process aborts: half-done state would corrupt data.
    CrashProcess,
}

impl Policy {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Restart => "restart",
            Policy::KeepRunning => "keep_running",
            Policy::CrashProcess => "crash_process",
        }
    }
}

crate::label_values! { Policy, |policy: &Policy| policy.as_str(), ["restart", "keep_running", "crash_process"] }

/// Records a panic, exactly once: it consumes the capture.
///
/// At once: the metric `panic_recovered_total`, status Error and `error.type = panic` on the span, the incident. When the
/// backtrace is resolved, at most 5 s later: the span event and the log record `panic.recovered`, and the reporters. If too
/// many wait for that, the rest follows at once too, without resolved frames, and says so.
///
/// If the panic happened outside any recorded span, it gets a short one of its own, linked to whatever trace there was.
///
/// Under [`Policy::CrashProcess`] it waits until all is said, at most 2 s, for nothing runs afterwards. It never panics and
/// otherwise never blocks.
pub fn record(site: PanicSite<'_>, panic: CapturedPanic) -> IncidentId {
    let policy = site.policy.as_str();
    PANIC_RECOVERED.add(1, Recovery { component: site.component, actor: site.actor, policy: site.policy });
    let event = Event { name: Recovered::NAME, kind: "panic", policy };
    let patience = if site.policy == Policy::CrashProcess { Patience::UntilSaid } else { Patience::None };
    note(event, site, panic, patience)
}

/// Records a panic that no catch site took. `why` says how that is known.
pub(super) fn record_uncaught(panic: CapturedPanic, why: &str) -> IncidentId {
    PANIC_UNCAUGHT.add(1, ());
    let thread = panic.thread.clone();
    let site = PanicSite {
        component: "process",
        actor: &thread,
        policy: Policy::KeepRunning,
        phase: why,
        message_type: None,
        incarnation: 0,
        tenant: None,
        detail: Vec::new(),
    };
    note(Event { name: Uncaught::NAME, kind: "panic.uncaught", policy: "none" }, site, panic, Patience::None)
}

/// Under which name it is told.
#[derive(Debug, Clone, Copy)]
struct Event {
    name: &'static str,
    kind: &'static str,
    policy: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Patience {
    None,
    UntilSaid,
}

fn note(event: Event, site: PanicSite<'_>, mut panic: CapturedPanic, patience: Patience) -> IncidentId {
    ensure_span(event, patience, &mut panic);
    let span = panic.context.span();
    span.set_status(Status::error(panic.message.clone()));
    span.set_attribute(KeyValue::new("error.type", "panic"));
    let incident = incident(event, site, &panic);
    let id = incident.id;
    incidents::keep(incident.clone());
    let job = Job::new(event.name, incident, panic);
    match patience {
        Patience::None => recorder::hand_over(job),
        Patience::UntilSaid => recorder::hand_over_and_wait(job),
    }
    id
}

/// An event needs a recorded span that will end. Without one it gets a root of its own, with a link to the trace there was;
/// so also in a process that is about to abort, where the spans around the panic never end.
fn ensure_span(event: Event, patience: Patience, panic: &mut CapturedPanic) {
    if panic.context.span().is_recording() && matches!(patience, Patience::None) {
        return;
    }
    let linked = panic.context.span().span_context().clone();
    let own = dispatcher::with_default(&panic.dispatch, || PanicSpan { name: event.name }.open());
    if linked.is_valid() {
        own.add_link(linked);
    }
    // Entered and left at once: its end is now, however long the backtrace takes.
    own.in_scope(|| ());
    let context = own.context();
    if context.span().is_recording() {
        panic.0.span = own;
        panic.0.context = context;
    }
}

fn incident(event: Event, site: PanicSite<'_>, panic: &CapturedPanic) -> Incident {
    let span = panic.context.span();
    let span = Some(span.span_context()).filter(|span| span.is_valid());
    Incident {
        id: IncidentId::new(),
        at: panic.at,
        kind: event.kind,
        component: site.component.to_owned(),
        actor: site.actor.to_owned(),
        policy: event.policy,
        phase: site.phase.to_owned(),
        incarnation: site.incarnation,
        message_type: site.message_type.map(str::to_owned),
        message: panic.message.clone(),
        location: panic.location.clone(),
        thread: panic.thread.clone(),
        backtrace: None,
        trace_id: span.map(|span| span.trace_id().to_string()),
        span_id: span.map(|span| span.span_id().to_string()),
        tenant: site.tenant.map(str::to_owned),
        detail: site.detail.into_iter().chain(panic.assertion.detail()).collect(),
        outcome: None,
    }
}
