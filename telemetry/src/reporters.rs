//! Whoever else wants to hear of incidents: an error tracker, a chat channel.
//!
//! Each reporter has a thread of its own and a bounded queue, so that one that is slow, hangs or panics costs only what it
//! was to be told: never the place of a panic, nor the record of it. What it was not told is counted. At the end of the
//! process it is waited for, as long as the flush may take.

use crate::door;
use crate::incidents::{self, Incident};
use crate::panic::catch_sync;
use crate::pending::{Pending, Ticket};
use opentelemetry::Context;
use std::error::Error;
use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// Hears of incidents: of each panic when its backtrace is resolved, of whoever is stuck, and of whoever gave up. A storm
/// of panics is told in part, as it is logged in part.
///
/// ```
/// use telemetry::incidents::Incident;
/// use telemetry::reporters::{ErrorReporter, Failed};
///
/// struct Printer;
///
/// impl ErrorReporter for Printer {
///     fn name(&self) -> &'static str {
///         "printer"
///     }
///
///     fn report(&mut self, incident: &Incident) -> Result<(), Failed> {
///         println!("{}: {}", incident.actor, incident.message);
///         Ok(())
///     }
/// }
///
/// telemetry::reporters::set(vec![Box::new(Printer)])?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait ErrorReporter: Send {
    /// What it is called in the metric and the log. One of few: it is a label.
    fn name(&self) -> &'static str;

    /// Tells of one incident, and returns when that is done. It may block: it has its thread for itself, though what takes
    /// longer than the end of the process allows is lost.
    ///
    /// # Errors
    /// It could not be told. Nobody tries again; that is the reporter's own business.
    fn report(&mut self, incident: &Incident) -> Result<(), Failed>;
}

/// Why somebody could not be told of an incident.
pub type Failed = Box<dyn Error + Send + Sync>;

crate::label_values! {
    /// What became of a report.
    pub enum ReportOutcome { Sent = "sent", Failed = "failed", Dropped = "dropped" }
}

crate::labels! {
    /// A report, by who was to be told and by what became of it.
    pub struct Reported<'a> { reporter: &'a str, outcome: ReportOutcome }
}

crate::declare_metrics! {
    /// Incidents that somebody was told of, or was not: `failed` says that it could not be done, `dropped` that too many waited.
    pub static REPORTS: Counter<Reported> = ("incident.reports", "{incident}");
}

/// Incidents that may wait for one reporter, some 10 KiB each.
const WAITING_MAX: usize = 128;

/// Who hears of incidents.
static DESKS: RwLock<Vec<Desk>> = RwLock::new(Vec::new());

/// What was told to somebody who is not done with it.
static WAITING: Pending = Pending::new();

/// Where incidents wait for one reporter.
struct Desk {
    name: &'static str,
    queue: SyncSender<(Incident, Ticket)>,
}

/// Sets who hears of incidents; it replaces those before, who are still told what they have been handed.
///
/// # Errors
/// The operating system refuses a thread.
pub fn set(reporters: Vec<Box<dyn ErrorReporter>>) -> io::Result<()> {
    let desks = reporters.into_iter().map(Desk::of).collect::<io::Result<_>>()?;
    *DESKS.write().unwrap_or_else(PoisonError::into_inner) = desks;
    Ok(())
}

/// Blocks until all reporters are done with what they were told of, at most `within`. Answers how many reports are left.
pub fn settle(within: Duration) -> usize {
    WAITING.wait(within)
}

/// Hands an incident to everyone, and neither blocks nor fails.
pub(crate) fn tell(incident: Incident) {
    for desk in DESKS.read().unwrap_or_else(PoisonError::into_inner).iter() {
        // Full, or its thread has ended, which it never does by itself.
        if desk.queue.try_send((incident.clone(), WAITING.ticket())).is_err() {
            REPORTS.add(1, Reported { reporter: desk.name, outcome: ReportOutcome::Dropped });
        }
    }
}

impl Desk {
    fn of(reporter: Box<dyn ErrorReporter>) -> io::Result<Self> {
        let name = reporter.name();
        for outcome in [ReportOutcome::Sent, ReportOutcome::Failed, ReportOutcome::Dropped] {
            REPORTS.born(Reported { reporter: name, outcome });
        }
        let (queue, incidents) = mpsc::sync_channel(WAITING_MAX);
        door::thread("telemetry-reporter", move || run(reporter, name, &incidents))?;
        Ok(Self { name, queue })
    }
}

fn run(mut reporter: Box<dyn ErrorReporter>, name: &'static str, incidents: &Receiver<(Incident, Ticket)>) {
    let mut failures = 0_u64;
    for (incident, ticket) in incidents {
        // By now somebody may have decided what becomes of it.
        let latest = incidents::get(incident.id);
        let outcome = match attempt(&mut *reporter, latest.as_deref().unwrap_or(&incident)) {
            Ok(()) => {
                if failures > 0 {
                    tracing::info!(reporter = name, failures, "the error reporter works again");
                }
                failures = 0;
                ReportOutcome::Sent
            }
            Err(error) => {
                // Once for each time that it breaks: it may be away for hours.
                if failures == 0 {
                    tracing::warn!(reporter = name, %error, "the error reporter fails");
                }
                failures += 1;
                ReportOutcome::Failed
            }
        };
        REPORTS.add(1, Reported { reporter: name, outcome });
        drop(ticket);
    }
}

/// What it does itself is not told, and its own panic is no incident: that would be told to it again, and so on for ever.
fn attempt(reporter: &mut dyn ErrorReporter, incident: &Incident) -> Result<(), Failed> {
    let _untold = Context::enter_telemetry_suppressed_scope();
    catch_sync(|| reporter.report(incident)).unwrap_or_else(|panic| {
        let place = panic.location.as_deref().unwrap_or("unknown");
        Err(format!("it panicked: {} ({place})", panic.message).into())
    })
}
