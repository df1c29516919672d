//! Code that may panic without ending what runs it: request handlers, jobs, tasks.

use std::{borrow::Cow, future::Future, time::Duration};

use telemetry::panic::{CapturedPanic, PanicSite, Policy};

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

/// Records the panic and applies its policy.
fn settle(site: GuardSite<'_>, captured: CapturedPanic) -> Panicked {
    let message = captured.message.clone();
    let policy = site.policy;
    let record = PanicSite {
        component: site.component,
        actor: site.actor,
        policy,
        phase: site.phase,
        message_type: None,
        incarnation: 0,
        tenant: site.tenant,
        detail: site.detail,
    };
    let incident = telemetry::panic::record(record, captured).to_string();
    if policy == Policy::CrashProcess {
        telemetry::crash(CRASH_FLUSH);
    }
    Panicked { message, incident }
}
