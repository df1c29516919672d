//! The one door through which this crate, and everything above it, spawns. Whatever runs is reached from here.

use std::{future::Future, io, thread};

use tokio::task::JoinHandle;

/// Runs `future` on the current runtime.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(future)
}

/// Runs `work` on the runtime's pool for blocking work.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

/// Runs `future` on a thread and a current-thread runtime of its own, so that it goes on when the main runtime is
/// blocked. `done` is called on that thread with the result, or `None` if it was dropped half-way.
///
/// # Errors
/// If the runtime or the thread cannot be made.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn spawn_on_own_runtime<F>(
    name: &str,
    future: F,
    done: impl FnOnce(F::Output) + Send + 'static,
) -> io::Result<()>
where
    F: Future + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name(name.to_owned()).spawn(move || done(runtime.block_on(future)))?;
    Ok(())
}

/// Runs `work` on a thread of its own, for what must go on when every runtime is blocked.
///
/// # Errors
/// If the thread cannot be made.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Starts a ractor actor that has no ractor parent: its supervisor watches the join handle instead, which alone says
/// that the state is dropped.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) async fn spawn_actor<A: ractor::Actor>(
    actor: A,
    arguments: A::Arguments,
) -> Result<(ractor::ActorRef<A::Msg>, JoinHandle<()>), ractor::SpawnErr> {
    ractor::Actor::spawn(None, actor, arguments).await
}
