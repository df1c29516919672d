//! What supervision costs: a message through the wrapper, and a crash until it serves again, each against bare ractor in
//! the same run. Rounds of both alternate, the row shows the medians. Messages are counted in CPU, on one thread, so that
//! a busy machine does not blur them; a restart in wall time, because waiting is what it is about.
//!
//! Both sides always handle the same message type. The plain one is small, a number or a reply port; the other one carries a
//! trace context, which bare ractor knows nothing of and leaves empty.
//!
//! An argument chooses rows: those whose name contains it.

use std::marker::PhantomData;
use std::panic::PanicHookInfo;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use supervision::{
    Address, Backoff, ChildSpec, EventKind, Heartbeat, Heartbeats, Intensity, Strategy, SupervisorSpec, Traced, Tree,
};
use telemetry::context::TraceContext;
use telemetry::export::{self, Endpoint, LogFormat};
use tests::bench::{self, median, ns_each};
use tracing::Instrument;

const PLAIN: &str = "supervision.message";
const FULL: &str = "supervision.message.telemetry_on";
const RESTART: &str = "supervision.restart";

const ROUNDS: usize = 25;
/// Messages of one round, sent in batches so that the mailbox stays as short as in life.
const BATCHES: usize = 200;
const BATCH: usize = 500;
/// Crashes of one round.
const CRASHES: usize = 40;
const CALL: Duration = Duration::from_secs(10);

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_wanted = |row: &str| wanted.as_ref().is_none_or(|wanted| row.contains(wanted.as_str()));
    runtime.block_on(async {
        bench::head();
        if is_wanted(PLAIN) {
            plain_messages().await;
        }
        if is_wanted(RESTART) {
            crashes().await;
        }
        if is_wanted(FULL) {
            start_telemetry();
            let unsampled = tracing::info_span!("sender");
            assert!(TraceContext::current().is_empty());
            full_messages().instrument(unsampled).await;
        }
    });
}

/// All that a service has on: real instruments, real ids, and no trace kept.
fn start_telemetry() {
    let settings = export::Settings {
        service_name: "bench".into(),
        service_version: "0".into(),
        instance_id: "bench".into(),
        environment: "development".into(),
        endpoint: Endpoint::Off,
        log_filter: "info".into(),
        log_format: LogFormat::Text,
        sample_ratio: Some(0.0),
        recorder: telemetry::recorder::RecorderSettings { enabled: false, ..Default::default() },
    };
    // For as long as the process lives: nothing is flushed.
    std::mem::forget(export::start(settings).unwrap());
}

/// What all actors here understand. `C` is what travels with each number.
enum Message<C> {
    Add(u64, C),
    Total(RpcReplyPort<u64>),
    Panic,
}

impl Traced for Message<TraceContext> {
    fn trace_context(&self) -> &TraceContext {
        static NONE: LazyLock<TraceContext> = LazyLock::new(TraceContext::default);
        match self {
            Message::Add(_, context) => context,
            Message::Total(_) | Message::Panic => &NONE,
        }
    }
}

/// Adds up what it is sent; beats for each message if it has a heartbeat.
struct Counter<C> {
    heartbeat: Option<Heartbeat>,
    travels: PhantomData<fn() -> C>,
}

impl<C> Counter<C> {
    fn new(heartbeat: Option<Heartbeat>) -> Self {
        Self { heartbeat, travels: PhantomData }
    }
}

impl<C: Send + 'static> Actor for Counter<C> {
    type Msg = Message<C>;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message<C>>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Message<C>>,
        message: Message<C>,
        total: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Add(n, _) => *total += n,
            // Nobody waits for the answer any more if it cannot be sent.
            Message::Total(reply) => drop(reply.send(*total)),
            Message::Panic => panic!("of the benchmark"),
        }
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.beat();
        }
        Ok(())
    }
}

async fn plain_messages() {
    let (tree, address) =
        supervised(|id, address| ChildSpec::actor(id, address, |_| (Counter::new(None), ())).unmetered());
    let tree = tree.await;
    let (bare, _) = bare_counter::<()>().await;
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(flood_ours(&address, || ()).await);
        reference.push(flood_bare(&bare).await);
    }
    message_row(PLAIN, ours, reference, 1.10);
    stop(tree, bare).await;
}

async fn full_messages() {
    let (tree, address) = supervised(|id, address| {
        ChildSpec::traced_actor(id, address, |context| {
            let heartbeat = context.heartbeat("messages", Duration::from_secs(1));
            (Counter::new(Some(heartbeat)), ())
        })
    });
    let tree = tree.await;
    let (bare, _) = bare_counter::<TraceContext>().await;
    assert!(!TraceContext::current().is_empty(), "the sender is in a span, though nobody keeps it");
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(flood_ours(&address, TraceContext::current).await);
        reference.push(flood_bare(&bare).await);
    }
    message_row(FULL, ours, reference, 1.30);
    stop(tree, bare).await;
}

async fn flood_ours<C: Send + 'static>(address: &Address<Message<C>>, travels: impl Fn() -> C) -> f64 {
    let cost = bench::cost(async {
        for _ in 0..BATCHES {
            for n in 0..BATCH {
                address.try_send(Message::Add(n as u64, travels())).unwrap();
            }
            address.call(Message::Total, CALL).await.unwrap();
        }
    });
    ns_each(cost.await.cpu, BATCHES * BATCH)
}

async fn flood_bare<C: Default + Send + 'static>(actor: &ActorRef<Message<C>>) -> f64 {
    let cost = bench::cost(async {
        for _ in 0..BATCHES {
            for n in 0..BATCH {
                actor.send_message(Message::Add(n as u64, C::default())).unwrap();
            }
            ractor::call!(actor, Message::Total).unwrap();
        }
    });
    ns_each(cost.await.cpu, BATCHES * BATCH)
}

fn message_row(name: &str, ours: Vec<f64>, reference: Vec<f64>, goal: f64) {
    let (ours, reference) = (median(ours), median(reference));
    bench::ratio_row(name, &format!("{ours:.0} ns"), &format!("{reference:.0} ns"), ours / reference, goal);
}

/// From the message that makes it panic to the first answer of the next incarnation, or, for bare ractor, to the start
/// hook of the next one that a supervisor written by hand starts when it hears of the failure.
async fn crashes() {
    let (tree, address) = supervised(|id, address| ChildSpec::actor(id, address, |_| (Counter::new(None), ())));
    let tree = tree.await;
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    telemetry::panic::install_hook();
    // The first panic of a place has its backtrace resolved at leisure, which slows down the next captures.
    crash_ours(&tree, &address).await;
    assert!(telemetry::panic::settle(CALL), "a record takes its time, but not that long");
    let capture: Arc<dyn Fn(&PanicHookInfo<'_>) + Send + Sync> = Arc::from(std::panic::take_hook());
    for _ in 0..ROUNDS {
        let capture = capture.clone();
        std::panic::set_hook(Box::new(move |info| capture(info)));
        ours.push(crash_ours(&tree, &address).await);
        assert!(telemetry::panic::settle(CALL), "what is recorded in one round must not weigh on the next");
        // The reference does without a hook: it keeps nothing of a panic.
        std::panic::set_hook(Box::new(|_| {}));
        reference.push(crash_bare().await);
    }
    let (ours, reference) = (median(ours), median(reference));
    let us = |ns: f64| format!("{:.1} us", ns / 1000.0);
    bench::ratio_row(RESTART, &us(ours), &us(reference), ours / reference, 2.0);
    tree.stop().await;
}

/// Waits for the event and not in a loop of its own, and for the answer without a deadline: the reference does neither.
async fn crash_ours(tree: &Tree, address: &Address<Message<()>>) -> f64 {
    let mut events = tree.events();
    let began = Instant::now();
    for _ in 0..CRASHES {
        address.try_send(Message::Panic).unwrap();
        while !matches!(events.recv().await.unwrap().kind, EventKind::Started { .. }) {}
        let (reply, answer) = ractor::concurrency::oneshot();
        address.try_send(Message::Total(reply.into())).unwrap();
        assert_eq!(answer.await, Ok(0));
    }
    ns_each(began.elapsed(), CRASHES)
}

/// Starts a panicking child again and tells by whom it is served.
struct ByHand;

struct Children {
    child: ActorRef<Message<()>>,
    restarted: tokio::sync::mpsc::UnboundedSender<ActorRef<Message<()>>>,
}

impl Actor for ByHand {
    type Msg = ();
    type State = Children;
    type Arguments = tokio::sync::mpsc::UnboundedSender<ActorRef<Message<()>>>;

    async fn pre_start(
        &self,
        myself: ActorRef<()>,
        restarted: Self::Arguments,
    ) -> Result<Children, ActorProcessingErr> {
        let (child, _) = Actor::spawn_linked(None, Counter::new(None), (), myself.get_cell()).await?;
        drop(restarted.send(child.clone()));
        Ok(Children { child, restarted })
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        state: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, _) = event
            && cell.get_id() == state.child.get_id()
        {
            let (child, _) = Actor::spawn_linked(None, Counter::new(None), (), myself.get_cell()).await?;
            state.child = child.clone();
            drop(state.restarted.send(child));
        }
        Ok(())
    }
}

async fn crash_bare() -> f64 {
    let (restarted, mut children) = tokio::sync::mpsc::unbounded_channel();
    let (supervisor, end) = Actor::spawn(None, ByHand, restarted).await.unwrap();
    let mut child = children.recv().await.unwrap();
    let began = Instant::now();
    for _ in 0..CRASHES {
        child.send_message(Message::Panic).unwrap();
        child = children.recv().await.unwrap();
    }
    let each = ns_each(began.elapsed(), CRASHES);
    supervisor.stop(None);
    end.await.unwrap();
    each
}

async fn bare_counter<C: Send + 'static>() -> (ActorRef<Message<C>>, JoinHandle<()>) {
    Actor::spawn(None, Counter::new(None), ()).await.unwrap()
}

/// A tree of one child that may fail as often as it likes and is started again at once.
fn supervised<C: Send + 'static>(
    child: impl FnOnce(&'static str, &Address<Message<C>>) -> ChildSpec,
) -> (impl Future<Output = Tree>, Address<Message<C>>) {
    let address = Address::with_capacity("counter", 2 * BATCH);
    let child = child("counter", &address).backoff(Backoff::NONE);
    let often = Intensity::new(u32::MAX, Duration::from_secs(1));
    let spec = SupervisorSpec::new("bench", Strategy::OneForOne).intensity(often).child(child);
    (async { Tree::start(spec, Heartbeats::new()).await.unwrap() }, address)
}

async fn stop<C: Send + 'static>(tree: Tree, bare: ActorRef<Message<C>>) {
    tree.stop().await;
    bare.stop(None);
}
