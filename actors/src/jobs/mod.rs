//! What a job is made of: a kind, a payload, and the handler that runs it.
//!
//! - [`JobHandler`] is what one writes to teach the service a new kind; [`Handlers`] is the list of them.
//! - [`RunOne`] runs one claimed job: its own span, its time limit, its panics, its cancellation.
//! - [`RetryPolicy`] decides what follows; [`Cadence`] when a schedule fires. Both are pure.
//!
//! The kinds of this house are [`Publish`], [`Notify`] and, in development, [`Panic`] and [`Sleep`].
//! How to write one of your own is told in `docs/jobs.md`. Who claims jobs and when is the
//! business of [`scheduler`](crate::scheduler), where they live that of [`store`](crate::store).
//!
//! A handler runs **at least once**: its process may die after the work and before the answer is kept. What it does
//! outside the store must bear a second time, or carry [`JobContext::idempotency_key`]. What it does *in* the store it
//! returns as an [`Effect`](crate::store::Effect): that happens once, together with the job's end.

/// The guide: what is said there in Rust is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/jobs.md")]
struct Guide;

mod cadence;
pub(crate) mod cron;
mod handler;
mod handlers;
mod notify;
mod panic;
mod progress;
mod publish;
mod retry;
mod run;
mod sleep;
#[cfg(test)]
pub(crate) mod testing;

pub use cadence::{Cadence, CadenceError, EVERY_MAX_MS, EVERY_MIN_MS, PATTERN_MAX, time_zone};
pub use cron::{CronLine, HORIZON_YEARS};
pub use handler::{JobContext, JobDone, JobError, JobHandler, PayloadFault};
pub use handlers::{CheckError, Handlers};
pub use notify::{CHANNELS_MAX, Notify, NotifyPayload, TEXT_MAX_CHARS};
pub use panic::Panic;
pub use progress::{NOTE_MAX_CHARS, Progress, ProgressSlot};
pub use publish::{Publish, PublishPayload};
pub use retry::{ERROR_MAX, Ending, RetryPolicy, RetrySchedule, SNOOZES_MAX, WAIT_MAX_MS};
pub(crate) use run::told_of;
pub use run::{Reins, RunOne, RunSite};
pub use sleep::Sleep;
