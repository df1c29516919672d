//! The wrapper around an actor: catches its panics, keeps its heartbeat, and says how it ended.
//!
//! ractor reduces a panic to a string and lets the state of a failed actor outlive its event. The wrapper catches the
//! panic at the callback, records it with its backtrace, drops the state and only then returns.

use std::{any::type_name, future::Future, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use telemetry::{
    context::TraceContext,
    metrics::BoundHistogram,
    panic::{CapturedPanic, PanicSite, Policy},
};
use tokio::task::JoinHandle;

use crate::{
    Address, ChildContext, Exit, Ignore,
    address::Mailbox,
    door,
    exit::chain,
    heartbeat::Activity,
    process::{Ended, LastWords, Process, StartChild, StartFailure, Started},
    task::end_scoped_tasks,
};

telemetry::declare_metrics! {
    /// Time to handle one message.
    pub static MESSAGE_DURATION: Histogram = ("actor.message.duration", "s", [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]);
}

type Make<A> = dyn Fn(ChildContext) -> (A, <A as Actor>::Arguments) + Send + Sync;
type ContextOf<M> = fn(&M) -> &TraceContext;

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
            let cancelled = context.cancelled();
            tokio::select! {
                biased;
                started = this.start_actor(context) => started,
                // Dropping a start before it is complete leaves nothing behind: ractor has no task for it yet.
                () = cancelled.cancelled() => Err(StartFailure::Cancelled),
            }
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
            meter: context.node().is_metered.then(|| Meter::new::<A::Msg>(&context)),
            context_of: self.context_of,
            context: context.clone(),
        };
        match door::spawn_actor(supervised, arguments).await {
            Ok((actor, handle)) => {
                let cell = actor.get_cell();
                self.address.bind(actor, mailbox);
                let ended = wait_for_end(handle, Arc::clone(&words), context).boxed();
                Ok(Started { process: Process::Actor { cell, words }, ended })
            }
            Err(error) => {
                if let Some(tasks) = context.started_tasks() {
                    end_scoped_tasks(tasks).await;
                }
                context.heartbeats().incarnation_ended(context.path());
                Err(start_failure(error, words.take()))
            }
        }
    }
}

/// Times the messages of one actor, and shows the one in hand.
struct Meter {
    activity: Arc<Activity>,
    duration: BoundHistogram,
}

impl Meter {
    fn new<M>(context: &ChildContext) -> Self {
        let labels = [("component", context.component()), ("actor", context.identity().label.as_str())];
        let activity = context.heartbeats().activity(context.path(), type_name::<M>());
        Self { activity, duration: MESSAGE_DURATION.bind(&labels) }
    }
}

/// The join handle alone says that the state is dropped; the child's own tasks end before it counts as gone.
async fn wait_for_end(handle: JoinHandle<()>, words: Arc<LastWords>, context: ChildContext) -> Ended {
    let joined = handle.await;
    let exit = words.take().unwrap_or(match joined {
        Err(error) if error.is_panic() => Exit::Panic("panic while its state was dropped".to_owned()),
        _ => Exit::Killed,
    });
    let leaked_tasks = match context.started_tasks() {
        Some(tasks) => end_scoped_tasks(tasks).await,
        None => Vec::new(),
    };
    context.heartbeats().incarnation_ended(context.path());
    Ended { exit, below: Vec::new(), leaked_tasks }
}

fn start_failure(error: SpawnErr, last_words: Option<Exit>) -> StartFailure {
    match (last_words, error) {
        (Some(exit), _) => StartFailure::Failed(exit),
        (None, SpawnErr::StartupFailed(error)) if error.is::<Ignore>() => StartFailure::Ignored,
        (None, SpawnErr::StartupFailed(error)) => StartFailure::Failed(Exit::Error(chain(error.as_ref()))),
        (None, other) => StartFailure::Failed(Exit::Error(other.to_string())),
    }
}

/// An actor under supervision. Its message type is the inner actor's own, so that everything of ractor works on it; its
/// state can be taken out, to be dropped at a time of our choosing.
struct Supervised<A: Actor> {
    inner: A,
    context: ChildContext,
    words: Arc<LastWords>,
    mailbox: Arc<Mailbox>,
    meter: Option<Meter>,
    context_of: Option<ContextOf<A::Msg>>,
}

/// What a callback came to.
type Outcome = Result<Result<(), ActorProcessingErr>, CapturedPanic>;

impl<A: Actor> Supervised<A> {
    /// Ends a callback. If it failed, records why, drops the state and only then returns.
    fn end(
        &self,
        phase: &'static str,
        state: &mut Option<A::State>,
        outcome: Outcome,
    ) -> Result<(), ActorProcessingErr> {
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.words.say(Exit::Error(chain(error.as_ref())));
                self.drop_state(state);
                Err(error)
            }
            Err(captured) => {
                let error = self.panicked(phase, captured);
                self.drop_state(state);
                Err(error)
            }
        }
    }

    fn panicked(&self, phase: &'static str, captured: CapturedPanic) -> ActorProcessingErr {
        let message_type = (phase == "handle").then_some(type_name::<A::Msg>());
        record_panic(&self.context, phase, message_type, captured, &self.words);
        format!("panicked in {phase}").into()
    }

    /// A panic in a destructor is the actor's own failure as well.
    fn drop_state(&self, state: &mut Option<A::State>) {
        let state = state.take();
        if let Err(captured) = telemetry::panic::catch_sync(move || drop(state)) {
            record_panic(&self.context, "drop", None, captured, &self.words);
        }
    }
}

impl<A: Actor> Actor for Supervised<A> {
    type Msg = A::Msg;
    type State = Option<A::State>;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        // In an async block, here and below, because a hand-written callback may panic before it returns its future.
        let started = async { self.inner.pre_start(myself, arguments).await };
        match telemetry::panic::catch(started).await {
            Ok(Ok(state)) => Ok(Some(state)),
            Ok(Err(error)) => Err(error),
            Err(captured) => Err(self.panicked("pre_start", captured)),
        }
    }

    async fn post_start(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        let Some(live) = state else { return Err(ALREADY_FAILED.into()) };
        let outcome = telemetry::panic::catch(async { self.inner.post_start(myself, live).await }).await;
        self.end("post_start", state, outcome)
    }

    async fn post_stop(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        if self.words.drill.is_given() {
            // One that hangs is shown as busy from now on.
            let _ = self.meter.as_ref().map(|meter| meter.activity.enter());
            let drill = async {
                self.words.drill.carry_out(self.context.path()).await;
                Ok(())
            };
            return self.end("drill", state, telemetry::panic::catch(drill).await);
        }
        let Some(live) = state else { return Err(ALREADY_FAILED.into()) };
        let outcome = telemetry::panic::catch(async { self.inner.post_stop(myself, live).await }).await;
        self.end("post_stop", state, outcome)?;
        self.drop_state(state);
        self.words.say(if self.context.cancelled().is_cancelled() { Exit::Shutdown } else { Exit::Normal });
        Ok(())
    }

    /// On the path of every message: what is rare is boxed, so that the common future stays small.
    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        self.mailbox.taken();
        let Some(live) = state else { return Err(ALREADY_FAILED.into()) };
        let entered = self.meter.as_ref().map(|meter| meter.activity.enter());
        // A trace that is not kept needs no span.
        let sender = self.context_of.map(|context_of| context_of(&message)).filter(|sender| sender.is_sampled());
        let outcome = match sender.cloned() {
            None => telemetry::panic::catch(async { self.inner.handle(myself, message, live).await }).await,
            Some(sender) => {
                let handling = async { self.inner.handle(myself, message, live).await };
                telemetry::panic::catch(in_span_of_sender::<A::Msg, _>(&self.context, &sender, handling).boxed()).await
            }
        };
        if let (Some(meter), Some(entered)) = (&self.meter, entered) {
            meter.duration.record(meter.activity.leave(entered).as_secs_f64());
        }
        self.end("handle", state, outcome)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(live) = state else { return Err(ALREADY_FAILED.into()) };
        let outcome =
            telemetry::panic::catch(async { self.inner.handle_supervisor_evt(myself, event, live).await }).await;
        self.end("handle_supervisor_evt", state, outcome)
    }
}

/// ractor ends an actor with its first failure, so no callback follows one.
const ALREADY_FAILED: &str = "the actor has already failed";

/// One message in process: the handling is a child of the sending span.
async fn in_span_of_sender<M, T>(
    context: &ChildContext,
    sender: &TraceContext,
    handling: impl Future<Output = T>,
) -> T {
    let span = tracing::info_span!(
        "actor.message",
        actor = context.path().as_str(),
        message_type = type_name::<M>(),
        incarnation = i64::try_from(context.incarnation()).unwrap_or(i64::MAX),
    );
    telemetry::context::as_child(span, sender, handling).await
}

fn record_panic(
    context: &ChildContext,
    phase: &'static str,
    message_type: Option<&'static str>,
    captured: CapturedPanic,
    words: &LastWords,
) {
    words.say(Exit::Panic(captured.message.clone()));
    let identity = context.identity();
    let site = PanicSite {
        component: context.component(),
        actor: &identity.label,
        policy: Policy::Restart,
        phase,
        message_type,
        incarnation: context.incarnation(),
        tenant: None,
        detail: vec![("path".to_owned(), identity.path.to_string())],
    };
    telemetry::panic::record(site, captured);
}
