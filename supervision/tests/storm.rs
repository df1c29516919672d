//! 100,000 panics from 1000 children, as fast as they come, beside ten that are healthy.
#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

mod measure;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use measure::{Log, Metrics, memory};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervision::{
    Address, Backoff, BoxError, ChildContext, ChildSpec, Heartbeats, NodeSnapshot, SendError, Status, Strategy,
    SupervisorSpec, TaskGroup, Tree,
};
use telemetry::incidents;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const CHILDREN: u64 = 1000;
const PANICS: u64 = 100_000;
/// Of each child.
const SHARE: u64 = PANICS / CHILDREN;
const HEALTHY: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

/// What the process may grow by after the first fifth of the storm.
const GROWTH_MAX: u64 = 32 << 20;

/// The log writes of one place again after this long.
const LOG_WINDOW: Duration = Duration::from_secs(11);

/// How often each child has panicked, once it has broken loose.
#[derive(Clone)]
struct Storm {
    panics: Arc<[AtomicU64]>,
    breaks_loose: CancellationToken,
    /// One more panic at each of its two places, after it is over.
    last_blow: CancellationToken,
}

impl Storm {
    fn new() -> Self {
        let panics = (0..CHILDREN).map(|_| AtomicU64::new(0)).collect();
        Self { panics, breaks_loose: CancellationToken::new(), last_blow: CancellationToken::new() }
    }

    /// Counts one panic of this child; false if it has had its share.
    async fn strikes(&self, child: usize) -> bool {
        self.breaks_loose.cancelled().await;
        match self.panics[child].fetch_add(1, SeqCst) {
            before if before < SHARE => true,
            SHARE if child < 2 => {
                self.last_blow.cancelled().await;
                true
            }
            _ => false,
        }
    }

    fn panics(&self) -> u64 {
        self.panics.iter().map(|panics| panics.load(SeqCst).min(SHARE)).sum()
    }

    /// Half of them are tasks, half are actors.
    fn child(&self, child: usize) -> ChildSpec {
        let (id, storm) = (format!("c{child}"), self.clone());
        let spec = if child.is_multiple_of(2) {
            ChildSpec::task(id, move |context| storm.clone().run(child, context))
        } else {
            let address = Address::new(&id);
            ChildSpec::actor(id, &address, move |_| (Struck(storm.clone(), child), ()))
        };
        spec.backoff(Backoff::NONE)
    }

    async fn run(self, child: usize, context: ChildContext) -> Result<(), BoxError> {
        assert!(!self.strikes(child).await, "the task is struck");
        context.cancelled().cancelled().await;
        Ok(())
    }
}

/// An actor that panics at its first message.
struct Struck(Storm, usize);

impl Actor for Struck {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(myself.cast(())?)
    }

    async fn handle(&self, _: ActorRef<()>, (): (), (): &mut ()) -> Result<(), ActorProcessingErr> {
        assert!(!self.0.strikes(self.1).await, "the actor is struck");
        Ok(())
    }
}

/// An actor that nothing happens to: it writes down the numbers it is sent.
struct Healthy(Arc<Mutex<Vec<u64>>>);

enum Post {
    Number(u64),
    HowMany(RpcReplyPort<usize>),
}

impl Actor for Healthy {
    type Msg = Post;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Post>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Post>, post: Post, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match post {
            Post::Number(number) => self.0.lock().unwrap().push(number),
            Post::HowMany(reply) => drop(reply.send(self.0.lock().unwrap().len())),
        }
        Ok(())
    }
}

/// A healthy actor, and what it has taken.
struct Patient {
    address: Address<Post>,
    taken: Arc<Mutex<Vec<u64>>>,
}

impl Patient {
    fn new() -> Self {
        Self { address: Address::new("healthy"), taken: Arc::default() }
    }

    fn child(&self, index: usize) -> ChildSpec {
        let taken = Arc::clone(&self.taken);
        ChildSpec::actor(format!("h{index}"), &self.address, move |_| (Healthy(Arc::clone(&taken)), ()))
    }
}

/// Sends numbers, and asks now and then, until the storm is over. Answers through `sent` with how many it has sent.
async fn keep_sending(address: Address<Post>, is_over: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
    let mut number = 0;
    while !is_over.load(SeqCst) {
        match address.try_send(Post::Number(number)) {
            Ok(()) => number += 1,
            Err(SendError::Full { .. }) => {}
            Err(other) => panic!("a healthy child is not there: {other}"),
        }
        if number.is_multiple_of(20) {
            let known = address.call(Post::HowMany, 30 * SECOND).await.unwrap();
            assert_eq!(known as u64, number);
            sleep(Duration::from_millis(5)).await;
        }
    }
    sent.store(number, SeqCst);
}

/// Waits for the storm to pass; answers with what memory there was after the first fifth, and at most since.
async fn watch(storm: &Storm) -> (u64, u64) {
    let (mut early, mut most, began) = (0, 0, Instant::now());
    storm.breaks_loose.cancel();
    while storm.panics() < PANICS {
        assert!(began.elapsed() < 300 * SECOND, "only {} panics", storm.panics());
        let now = memory();
        if storm.panics() < PANICS / 5 {
            early = now.max(early);
        } else {
            most = now.max(most);
        }
        sleep(Duration::from_millis(20)).await;
    }
    println!("{PANICS} panics took {:.1?}", began.elapsed());
    (early, most)
}

/// Waits until so many children have been started again, and all is said about it.
async fn until_restarted(tree: &Tree, metrics: &Metrics, times: u64) {
    let began = Instant::now();
    while metrics.sum("supervisor.restarts") < times || !tree.snapshot().children.iter().all(is_up) {
        assert!(began.elapsed() < 60 * SECOND, "only {} restarts", metrics.sum("supervisor.restarts"));
        sleep(Duration::from_millis(50)).await;
    }
    assert!(telemetry::panic::settle(60 * SECOND));
    assert_eq!(metrics.sum("supervisor.restarts"), times);
    assert_eq!(metrics.sum("panic_recovered_total"), times);
}

fn is_up(child: &NodeSnapshot) -> bool {
    child.status == Status::Up
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_panics_costs_the_healthy_nothing_and_neither_memory_nor_the_log_grow_with_it() {
    telemetry::panic::install_hook();
    let (log, metrics, storm) = (Log::install(), Metrics::install(), Storm::new());
    let (is_over, senders) = (Arc::new(AtomicBool::new(false)), TaskGroup::new("senders"));
    let patients: Vec<Patient> = (0..HEALTHY).map(|_| Patient::new()).collect();
    let sent: Vec<Arc<AtomicU64>> = (0..HEALTHY).map(|_| Arc::default()).collect();
    let ward = patients.iter().enumerate().map(|(index, patient)| patient.child(index));
    let struck = (0..CHILDREN as usize).map(|child| storm.child(child));
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).no_shared_intensity().with_children(ward.chain(struck));
    let tree = Tree::start(spec, Heartbeats::new()).await.unwrap();
    for (patient, sent) in patients.iter().zip(&sent) {
        senders.spawn("sender", keep_sending(patient.address.clone(), Arc::clone(&is_over), Arc::clone(sent)));
    }

    let (early, most) = watch(&storm).await;
    assert!(most.saturating_sub(early) < GROWTH_MAX, "{early} bytes grew to {most}");
    is_over.store(true, SeqCst);
    assert!(senders.wait(60 * SECOND).await.is_empty());
    for (patient, sent) in patients.iter().zip(&sent) {
        let all: Vec<u64> = (0..sent.load(SeqCst)).collect();
        assert!(all.len() > 100, "{} messages in all that time", all.len());
        assert_eq!(*patient.taken.lock().unwrap(), all);
    }
    until_restarted(&tree, &metrics, PANICS).await;
    assert_eq!(incidents::recent(usize::MAX).len(), incidents::KEPT_MAX);
    assert!(log.written() < PANICS / 50, "{:?}", log.lines());

    // When it is over, one line of each kind says how many were left out.
    sleep(LOG_WINDOW).await;
    storm.last_blow.cancel();
    until_restarted(&tree, &metrics, PANICS + 2).await;
    for text in ["panic.recovered", "child failed and is started again"] {
        let lines = log.lines()[text];
        assert_eq!(lines.written + lines.suppressed, PANICS + 2, "{text}: {lines:?}");
    }
    assert!(tree.stop().await.is_clean());
}
