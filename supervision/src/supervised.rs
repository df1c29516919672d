//! The wrapper around an actor: catches its panics, keeps its heartbeat, and says how it ended.
//!
//! ractor reduces a panic to a string. The wrapper catches the panic at the callback and records it with its backtrace. The
//! state of an actor that failed is dropped by ractor right after, before the join handle resolves.

use std::{
    any::type_name,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::Either;
use pin_project_lite::pin_project;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use telemetry::{
    context::TraceContext,
    metrics::BoundHistogram,
    panic::{CapturedPanic, Catch, PanicSite, Policy, catch, catch_sync, catch_with},
};

use crate::{
    ChildContext, Exit,
    activity::{Activity, Entered, shown},
    context::Child,
    fault::{self, Life},
    mailbox::{KeptMailbox, Mailbox},
    process::LastWords,
};

telemetry::declare_spans! {
    /// The handling of a message whose sender was traced, below the sender's span.
    struct MessageSpan<'a> = ("actor.message", internal, child) {
        actor: &'a str,
        message_type: &'static str,
        incarnation: i64,
    }
}

telemetry::declare_metrics! {
    /// Time to handle one message.
    pub static MESSAGE_DURATION: Histogram<Child> = ("actor.message.duration", "s", [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]);
}

/// Reads the sender's trace context from a message.
pub(crate) type ContextOf<M> = fn(&M) -> &TraceContext;

/// An actor under supervision. Its message type is the inner actor's own, so that everything of ractor works on it.
pub(crate) struct Supervised<A: Actor> {
    pub(crate) inner: A,
    pub(crate) context: ChildContext,
    pub(crate) words: Arc<LastWords>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) kept: Option<Arc<KeptMailbox<A::Msg>>>,
    pub(crate) meter: Option<Meter>,
    pub(crate) context_of: Option<ContextOf<A::Msg>>,
}

/// What a callback came to.
type Outcome = Result<Result<(), ActorProcessingErr>, CapturedPanic>;

impl<A: Actor> Supervised<A> {
    /// Ends a callback; if it failed, records why.
    #[inline]
    fn end(&self, phase: &'static str, outcome: Outcome) -> Result<(), ActorProcessingErr> {
        match outcome {
            Ok(Ok(())) => Ok(()),
            failed => self.failed(phase, failed),
        }
    }

    #[cold]
    fn failed(&self, phase: &'static str, outcome: Outcome) -> Result<(), ActorProcessingErr> {
        let result = outcome.unwrap_or_else(|captured| Err(self.panicked(phase, captured)));
        // After a panic this is not the first word, and does not count.
        result.inspect_err(|error| self.words.say(Exit::of_error(error.as_ref())))
    }

    fn panicked(&self, phase: &'static str, captured: CapturedPanic) -> ActorProcessingErr {
        let message_type = (phase == "handle").then_some(type_name::<A::Msg>());
        record_panic(&self.context, phase, message_type, captured, &self.words);
        format!("panicked in {phase}").into()
    }

    /// Runs a callback that is rare, and shows whether it yields. A hand-written one may panic, or block, before it returns
    /// its future.
    async fn run<T, F: Future<Output = T>>(
        &self,
        phase: &'static str,
        callback: impl FnOnce() -> F,
    ) -> Result<T, CapturedPanic> {
        let activity = self.meter.as_ref().map(|meter| Arc::clone(&meter.activity));
        let callback = || {
            fault::strike(&self.context, phase);
            callback()
        };
        shown(activity, async { catch_with(callback).await }).await
    }
}

impl<A: Actor> Actor for Supervised<A> {
    type Msg = A::Msg;
    type State = Kept<A::State>;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        match self.run("pre_start", || self.inner.pre_start(myself, arguments)).await {
            Ok(Ok(state)) => {
                let state = Kept::new(state, self);
                fault::hold(&self.context, "pre_start").await;
                Ok(state)
            }
            Ok(Err(error)) => Err(error),
            Err(captured) => Err(self.panicked("pre_start", captured)),
        }
    }

    async fn post_start(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        let live = state.live()?;
        self.end("post_start", self.run("post_start", || self.inner.post_start(myself.clone(), live)).await)?;
        // One that is asked to stop already would only lose what it is handed.
        if let Some(kept) = self.kept.as_ref().filter(|_| !self.context.cancelled().is_cancelled()) {
            kept.open(myself, Arc::clone(&self.mailbox));
        }
        Ok(())
    }

    async fn post_stop(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        if let Some(drill) = self.words.drill.get() {
            // One that hangs is shown as busy from now on.
            let _ = self.meter.as_ref().map(|meter| meter.activity.enter());
            let obeying = || async {
                drill.carry_out(self.context.path()).await;
                Ok(())
            };
            return self.end("drill", self.run("drill", obeying).await);
        }
        let live = state.live()?;
        fault::hold(&self.context, "post_stop").await;
        self.end("post_stop", self.run("post_stop", || self.inner.post_stop(myself, live)).await)?;
        state.end();
        self.words.say(if self.context.cancelled().is_cancelled() { Exit::Shutdown } else { Exit::Normal });
        Ok(())
    }

    /// On the path of every message. Not an `async fn`, which would hold the message in several places, and what is rare is
    /// boxed: ractor moves this future, so it must be small.
    fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        self.mailbox.taken();
        let entered = self.meter.as_ref().map(|meter| {
            meter.activity.polling();
            meter.activity.enter()
        });
        let work = match (state.live(), self.recorded_sender(&message)) {
            (Ok(live), Ok(None)) => catch_with(|| {
                fault::strike(&self.context, "handle");
                Either::Left(self.inner.handle(myself, message, live))
            }),
            (live, Ok(sender)) => catch(Either::Right(Box::pin(self.handle_in_span(myself, message, live, sender)))),
            (_, Err(captured)) => captured.into(),
        };
        Handling { supervised: self, entered, work }
    }

    /// Boxed: it is rare, and every idle actor has room for the largest of its callbacks.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let live = state.live()?;
        let callback = || self.inner.handle_supervisor_evt(myself, event, live);
        let outcome = Box::pin(self.run("handle_supervisor_evt", callback)).await;
        self.end("handle_supervisor_evt", outcome)
    }
}

impl<A: Actor> Supervised<A> {
    /// The sender's context, if its trace is kept: one that is not needs no span.
    #[inline]
    fn recorded_sender(&self, message: &A::Msg) -> Result<Option<TraceContext>, CapturedPanic> {
        let Some(context_of) = self.context_of else { return Ok(None) };
        catch_sync(|| Some(context_of(message)).filter(|sender| sender.is_recorded()).cloned())
    }

    /// One message in process: the handling is a child of the sending span.
    async fn handle_in_span(
        &self,
        myself: ActorRef<A::Msg>,
        message: A::Msg,
        live: Result<&mut A::State, ActorProcessingErr>,
        sender: Option<TraceContext>,
    ) -> Result<(), ActorProcessingErr> {
        let live = live?;
        let span = MessageSpan {
            actor: self.context.path().as_str(),
            message_type: type_name::<A::Msg>(),
            incarnation: i64::try_from(self.context.incarnation()).unwrap_or(i64::MAX),
        };
        let handling = async {
            fault::strike(&self.context, "handle");
            self.inner.handle(myself, message, live).await
        };
        telemetry::context::as_child(span.open(), &sender.unwrap_or_default(), handling).await
    }
}

pin_project! {
    /// One message in hand.
    struct Handling<'a, A: Actor, F> {
        supervised: &'a Supervised<A>,
        entered: Option<Entered>,
        #[pin]
        work: Catch<F>,
    }
}

impl<A: Actor, F: Future<Output = Result<(), ActorProcessingErr>>> Future for Handling<'_, A, F> {
    type Output = Result<(), ActorProcessingErr>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let meter = this.supervised.meter.as_ref();
        if let Some(meter) = meter {
            meter.activity.polling();
        }
        let polled = match fault::poll_hold(&this.supervised.context, "handle", context) {
            Poll::Ready(()) => this.work.poll(context),
            Poll::Pending => Poll::Pending,
        };
        if let Some(meter) = meter {
            meter.activity.yielded();
        }
        let outcome = ready!(polled);
        if let (Some(meter), Some(entered)) = (meter, *this.entered) {
            meter.duration.record(meter.activity.leave(entered));
        }
        let result = this.supervised.end("handle", outcome);
        if let (Some(kept), Ok(())) = (&this.supervised.kept, &result) {
            kept.handled();
        }
        Poll::Ready(result)
    }
}

/// The state of an actor. A panic in its destructor is the actor's own failure, whoever drops it.
pub(crate) struct Kept<S> {
    live: Option<S>,
    context: ChildContext,
    words: Arc<LastWords>,
    life: Option<Life>,
}

impl<S> Kept<S> {
    fn new<A: Actor<State = S>>(state: S, of: &Supervised<A>) -> Self {
        let life = Some(Life::begin(&of.context));
        Self { live: Some(state), context: of.context.clone(), words: Arc::clone(&of.words), life }
    }

    /// It is there until `post_stop`, which ractor calls last.
    #[inline]
    fn live(&mut self) -> Result<&mut S, ActorProcessingErr> {
        self.live.as_mut().ok_or_else(|| "the actor has already ended".into())
    }

    /// Drops it now.
    fn end(&mut self) {
        let Some(state) = self.live.take() else { return };
        if let Err(captured) = catch_sync(move || drop(state)) {
            record_panic(&self.context, "drop", None, captured, &self.words);
        }
        self.life = None;
    }
}

impl<S> Drop for Kept<S> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Times the messages of one actor, and shows the one in hand.
pub(crate) struct Meter {
    activity: Arc<Activity>,
    duration: Arc<BoundHistogram>,
}

impl Meter {
    /// None if its messages are not timed.
    pub(crate) fn new<M>(context: &ChildContext) -> Option<Self> {
        let duration = Arc::clone(context.node().message_duration.as_ref()?);
        let activity = context.heartbeats().activity(context.path(), type_name::<M>(), context.node().message_limit);
        Some(Self { activity, duration })
    }
}

pub(crate) fn record_panic(
    context: &ChildContext,
    phase: &'static str,
    message_type: Option<&'static str>,
    captured: CapturedPanic,
    words: &LastWords,
) {
    words.say(Exit::Panic(captured.message.clone()));
    fault::seen(context, phase, &captured.message);
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
    let incident = telemetry::panic::record(site, captured);
    context.on_record(incident);
}
