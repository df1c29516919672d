//! The only place of this crate where threads and tasks are born.
//!
//! Telemetry cannot use the supervisor's doors: it is below the supervisor, and it reports the supervisor's own failures.

use std::io;
use std::thread::Builder;

/// Starts a thread that lives as long as the process.
///
/// # Errors
/// The operating system refuses another thread.
#[expect(clippy::disallowed_methods, reason = "telemetry's own threads: they report what the supervised ones do")]
pub(crate) fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

/// The runtime of the exporters: one worker, and every thread of it in the telemetry-suppressed scope, or what they log
/// while exporting would be exported too, and so on for ever.
///
/// # Errors
/// The operating system refuses threads.
#[cfg(feature = "export")]
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("telemetry")
        .on_thread_start(|| std::mem::forget(opentelemetry::Context::enter_telemetry_suppressed_scope()))
        .enable_all()
        .build()
}

/// Runs a future on the exporters' runtime.
#[cfg(feature = "export")]
#[expect(clippy::disallowed_methods, reason = "telemetry's own runtime: it outlives the supervised one")]
pub(crate) fn spawn<F>(runtime: &tokio::runtime::Handle, future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    runtime.spawn(future)
}

/// Runs blocking work on the exporters' runtime.
#[cfg(feature = "export")]
#[expect(clippy::disallowed_methods, reason = "telemetry's own runtime: it outlives the supervised one")]
pub(crate) fn blocking<T: Send + 'static>(
    runtime: &tokio::runtime::Handle,
    work: impl FnOnce() -> T + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    runtime.spawn_blocking(work)
}
