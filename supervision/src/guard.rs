//! Code that may panic without ending what runs it: request handlers, jobs, tasks.

use std::{borrow::Cow, future::Future, time::Duration};

use telemetry::panic::{CapturedPanic, PANIC_RECOVERED, PanicSite, Policy, Recovery};

use crate::door;

/// What telemetry may take before a process that chose to crash is aborted.
const CRASH_FLUSH: Duration = Duration::from_secs(2);

/// Whose panic it would be.
#[derive(Clone, Debug)]
pub struct GuardSite<'a> {
    /// The direct child of the root, for metrics: `api`, `scheduler`.
    pub component: &'a str,
    /// The path of the child, or the component again.
    pub actor: &'a str,
    /// What follows from it.
    pub policy: Policy,
    /// What it was doing: `request`, `job`, `task`.
    pub phase: &'a str,
    /// Whose data it was, if anyone's.
    pub tenant: Option<&'a str>,
    /// More that helps to find the cause, such as the job's id.
    pub detail: Vec<(String, String)>,
}

/// It panicked; the panic is recorded, and this names the record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {message} (incident {incident})")]
pub struct Panicked {
    /// The panic's message.
    pub message: String,
    /// The incident that holds its backtrace.
    pub incident: String,
}

impl Panicked {
    /// Puts on record what became of the work: "the job is tried again in 1000 ms".
    pub fn outcome(&self, outcome: impl Into<String>) {
        incident_of(&self.incident, outcome.into());
    }
}

/// Runs `future`, catches and records its panic.
///
/// # Errors
/// [`Panicked`] under every policy but [`Policy::CrashProcess`], which does not return.
pub async fn guard<T>(site: GuardSite<'_>, future: impl Future<Output = T>) -> Result<T, Panicked> {
    match telemetry::panic::catch(future).await {
        Ok(value) => Ok(value),
        Err(captured) => Err(settle(site, captured)),
    }
}

/// Runs `work` on the pool for blocking work; dropping the returned future does not end it.
///
/// # Errors
/// [`Panicked`] if it did.
pub async fn blocking<T: Send + 'static>(
    name: impl Into<Cow<'static, str>>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    let name = name.into();
    // At its first call, before anything can have gone wrong: see `Identity::bear_counters`.
    PANIC_RECOVERED.born(Recovery { component: "blocking", actor: &name, policy: Policy::KeepRunning });
    let span = tracing::Span::current();
    let caught = door::spawn_blocking(move || span.in_scope(|| telemetry::panic::catch_sync(work))).await;
    match caught {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(captured)) => {
            let site = GuardSite {
                component: "blocking",
                actor: &name,
                policy: Policy::KeepRunning,
                phase: "blocking",
                tenant: None,
                detail: Vec::new(),
            };
            Err(settle(site, captured))
        }
        // The runtime is going away; there is no panic to record.
        Err(error) => Err(Panicked { message: error.to_string(), incident: "none".to_owned() }),
    }
}

/// Ends the process now, because to go on would corrupt data: records `reason` with the place of this call, tells the
/// reporters, flushes telemetry, and aborts with SIGABRT (exit code 134 to a shell). Saying it and sending it may take 2 s
/// each, and this thread is blocked meanwhile; nothing is unwound, no destructor runs.
///
/// For code that may panic itself, [`guard`] it under [`Policy::CrashProcess`]: that ends in the same way.
#[track_caller]
pub fn crash_process(component: &str, reason: impl Into<String>) -> ! {
    let site = GuardSite {
        component,
        actor: component,
        policy: Policy::CrashProcess,
        phase: "crash_process",
        tenant: None,
        detail: Vec::new(),
    };
    record(site, telemetry::panic::capture(reason));
    telemetry::crash(CRASH_FLUSH)
}

/// Records the panic and applies its policy.
fn settle(site: GuardSite<'_>, captured: CapturedPanic) -> Panicked {
    let message = captured.message.clone();
    let (policy, phase) = (site.policy, site.phase);
    let incident = record(site, captured);
    if policy == Policy::CrashProcess {
        telemetry::crash(CRASH_FLUSH);
    }
    // Whoever is told below may know better.
    incident_of(&incident, format!("this {phase} was given up, all else goes on"));
    Panicked { message, incident }
}

fn incident_of(incident: &str, outcome: String) {
    // Not if the runtime went away, and there is none.
    if let Ok(id) = incident.parse() {
        telemetry::incidents::amend(id, outcome);
    }
}

/// Records a panic in foreign code that nobody's work depends on.
pub(crate) fn record_unowned(what: &str, captured: CapturedPanic) {
    let site = GuardSite {
        component: "root",
        actor: "root",
        policy: Policy::KeepRunning,
        phase: what,
        tenant: None,
        detail: Vec::new(),
    };
    let incident = record(site, captured);
    incident_of(&incident, "nobody's work depends on it".to_owned());
}

fn record(site: GuardSite<'_>, captured: CapturedPanic) -> String {
    let site = PanicSite {
        component: site.component,
        actor: site.actor,
        policy: site.policy,
        phase: site.phase,
        message_type: None,
        incarnation: 0,
        tenant: site.tenant,
        detail: site.detail,
    };
    telemetry::panic::record(site, captured).to_string()
}
