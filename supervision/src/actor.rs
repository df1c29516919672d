//! Actors as children: how an incarnation is started, and how its end is learned.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use ractor::{Actor, SpawnErr};
use tokio::task::JoinHandle;

use crate::{
    Address, ChildContext, Exit, Ignore, door,
    mailbox::Mailbox,
    process::{Ended, LastWords, Process, StartChild, StartFailure, Started},
    supervised::{ContextOf, Meter, Supervised, record_panic},
    task::end_scoped_tasks,
};

type Make<A> = dyn Fn(ChildContext) -> (A, <A as Actor>::Arguments) + Send + Sync;

/// Starts the incarnations of one actor.
pub(crate) struct ActorStarter<A: Actor> {
    address: Address<A::Msg>,
    make: Arc<Make<A>>,
    context_of: Option<ContextOf<A::Msg>>,
}

impl<A: Actor> Clone for ActorStarter<A> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), make: Arc::clone(&self.make), context_of: self.context_of }
    }
}

impl<A: Actor> ActorStarter<A> {
    pub(crate) fn new(
        address: Address<A::Msg>,
        make: impl Fn(ChildContext) -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        Self { address, make: Arc::new(make), context_of: None }
    }

    pub(crate) fn with_context(self, context_of: ContextOf<A::Msg>) -> Self {
        Self { context_of: Some(context_of), ..self }
    }
}

impl<A: Actor> StartChild for ActorStarter<A> {
    fn start(&self, context: ChildContext) -> BoxFuture<'static, Result<Started, StartFailure>> {
        let this = self.clone();
        async move {
            if context.incarnation() == 1 {
                this.address.belongs_to(&context.identity().label);
            }
            let cancelled = context.cancelled();
            let starting = async {
                tokio::select! {
                    biased;
                    started = this.start_actor(context.clone()) => started,
                    // Dropping a start before it is complete leaves nothing behind: ractor has no task for it yet.
                    () = cancelled.cancelled() => Err(StartFailure::Cancelled { below: Vec::new() }),
                }
            };
            // What it has made is foreign code, which may panic when it is dropped.
            let result = telemetry::panic::catch(starting).await.unwrap_or_else(|captured| {
                let words = LastWords::default();
                record_panic(&context, "start", None, captured, &words);
                Err(StartFailure::Failed(words.take().unwrap_or(Exit::Killed)))
            });
            let Err(failure) = result else { return result };
            let leaked_tasks = match context.started_tasks() {
                Some(tasks) => end_scoped_tasks(tasks, &Exit::Shutdown).await,
                None => Vec::new(),
            };
            context.heartbeats().incarnation_ended(context.path());
            Err(failure.beside(leaked_tasks))
        }
        .boxed()
    }
}

impl<A: Actor> ActorStarter<A> {
    async fn start_actor(self, context: ChildContext) -> Result<Started, StartFailure> {
        let words = Arc::new(LastWords::default());
        let made = telemetry::panic::catch_sync(|| (self.make)(context.clone()));
        let (inner, arguments) = made.map_err(|captured| {
            record_panic(&context, "make", None, captured, &words);
            StartFailure::Failed(words.take().unwrap_or(Exit::Killed))
        })?;
        let mailbox = Arc::new(Mailbox::default());
        let supervised = Supervised {
            inner,
            words: Arc::clone(&words),
            mailbox: Arc::clone(&mailbox),
            kept: self.address.kept(),
            meter: Meter::new::<A::Msg>(&context),
            context_of: self.context_of,
            context: context.clone(),
        };
        match door::spawn_actor(supervised, arguments).await {
            Ok((actor, handle)) => {
                let cell = actor.get_cell();
                self.address.bind(actor, Arc::clone(&mailbox));
                let (address, last) = (self.address, Arc::clone(&words));
                let gone = move |exit: &Exit| address.incarnation_ended(&mailbox, exit);
                let ended = wait_for_end(handle, last, context, gone).boxed();
                Ok(Started { process: Process::Actor { cell, words }, ended })
            }
            Err(error) => Err(start_failure(error, words.take())),
        }
    }
}

/// The join handle alone says that the state is dropped; the child's own tasks end before it counts as gone.
async fn wait_for_end(
    handle: JoinHandle<()>,
    words: Arc<LastWords>,
    context: ChildContext,
    gone: impl FnOnce(&Exit),
) -> Ended {
    let joined = handle.await;
    let exit = words.take().unwrap_or(match joined {
        Err(error) if error.is_panic() => Exit::Panic("panic while its state was dropped".to_owned()),
        _ => Exit::Killed,
    });
    gone(&exit);
    let leaked_tasks = match context.started_tasks() {
        Some(tasks) => end_scoped_tasks(tasks, &exit).await,
        None => Vec::new(),
    };
    context.heartbeats().incarnation_ended(context.path());
    Ended { leaked_tasks, ..exit.into() }
}

fn start_failure(error: SpawnErr, last_words: Option<Exit>) -> StartFailure {
    match (last_words, error) {
        (Some(exit), _) => StartFailure::Failed(exit),
        (None, SpawnErr::StartupFailed(error)) if error.is::<Ignore>() => StartFailure::Ignored,
        (None, SpawnErr::StartupFailed(error)) => StartFailure::Failed(Exit::of_error(error.as_ref())),
        (None, other) => StartFailure::Failed(Exit::error(other.to_string())),
    }
}
