//! A worker that writes down what happens to it, and the trees made of it.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervision::{
    Address, Backoff, ChildContext, ChildSpec, Heartbeats, Ignore, Intensity, NodeSnapshot, Orderly, Path, Strategy,
    SupervisorSpec, Tree,
};

pub mod clerk;

pub const SECOND: Duration = Duration::from_secs(1);

/// What happened, in order: `start a#1`, `stop a#1`, `drop a#1`.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    /// Everything since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The lines since the last call that begin with `verb`.
    pub fn take_only(&self, verb: &str) -> Vec<String> {
        self.take().into_iter().filter_map(|line| Some(line.strip_prefix(verb)?.trim().to_owned())).collect()
    }
}

pub enum Message {
    Panic,
    Fail,
    Stop,
    End(Orderly),
    Sleep(Duration),
    Incarnation(RpcReplyPort<u64>),
}

/// How a worker behaves; by default well.
#[derive(Clone)]
pub struct Manners {
    /// Incarnations that fail in `pre_start`.
    pub fails_to_start: Vec<u64>,
    /// Incarnations that decline to start.
    pub declines: Vec<u64>,
    pub start_takes: Duration,
    pub stop_takes: Duration,
    pub panics_in_drop: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            fails_to_start: Vec::new(),
            declines: Vec::new(),
            start_takes: Duration::ZERO,
            stop_takes: Duration::ZERO,
            panics_in_drop: false,
        }
    }
}

pub struct Worker {
    context: ChildContext,
    journal: Journal,
    manners: Manners,
}

/// The state; its drop is written down, because the next incarnation must not start before it.
pub struct Held {
    name: String,
    journal: Journal,
    panics: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.journal.write(format!("drop {}", self.name));
        assert!(!self.panics, "panic in drop");
    }
}

impl Worker {
    fn name(&self) -> String {
        format!("{}#{}", self.context.path(), self.context.incarnation())
    }
}

impl Actor for Worker {
    type Msg = Message;
    type State = Held;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<Held, ActorProcessingErr> {
        tokio::time::sleep(self.manners.start_takes).await;
        if self.manners.fails_to_start.contains(&self.context.incarnation()) {
            self.journal.write(format!("fail {}", self.name()));
            return Err("cannot start".into());
        }
        if self.manners.declines.contains(&self.context.incarnation()) {
            return Err(Ignore.into());
        }
        self.journal.write(format!("start {}", self.name()));
        Ok(Held { name: self.name(), journal: self.journal.clone(), panics: self.manners.panics_in_drop })
    }

    async fn post_stop(&self, _: ActorRef<Message>, _: &mut Held) -> Result<(), ActorProcessingErr> {
        tokio::time::sleep(self.manners.stop_takes).await;
        self.journal.write(format!("stop {}", self.name()));
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        _: &mut Held,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Panic => panic!("asked to panic"),
            Message::Fail => return Err("asked to fail".into()),
            Message::Stop => myself.stop(None),
            Message::End(orderly) => return Err(orderly.into()),
            Message::Sleep(time) => tokio::time::sleep(time).await,
            // The caller may have gone.
            Message::Incarnation(reply) => drop(reply.send(self.context.incarnation())),
        }
        Ok(())
    }
}

/// A worker's spec: no backoff, a generous budget of its own.
pub fn worker(id: &str, journal: &Journal, address: &Address<Message>) -> ChildSpec {
    ill_mannered(id, journal, address, Manners::default())
}

pub fn ill_mannered(id: &str, journal: &Journal, address: &Address<Message>, manners: Manners) -> ChildSpec {
    let journal = journal.clone();
    ChildSpec::actor(id, address, move |context| {
        (Worker { context, journal: journal.clone(), manners: manners.clone() }, ())
    })
    .backoff(Backoff::NONE)
}

pub fn address(name: &str) -> Address<Message> {
    Address::new(name)
}

/// 1000 restarts in a minute: the budget is not the subject.
pub fn generous() -> Intensity {
    Intensity::new(1000, 60 * SECOND)
}

pub async fn start(spec: supervision::SupervisorSpec) -> Tree {
    Tree::start(spec, Heartbeats::new()).await.expect("the tree starts")
}

pub async fn incarnation(address: &Address<Message>) -> u64 {
    address.call(Message::Incarnation, SECOND).await.expect("the worker answers")
}

/// Lets all that is ready run.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

pub fn status(tree: &Tree, path: &str) -> supervision::Status {
    let path = Path::from(path);
    tree.snapshot().find(path.as_str()).expect("the child exists").status
}

pub fn node(tree: &Tree, path: &str) -> NodeSnapshot {
    tree.snapshot().find(Path::from(path).as_str()).expect("the child exists").clone()
}

pub fn exists(tree: &Tree, path: &str) -> bool {
    tree.snapshot().find(path).is_some()
}

/// A root that allows many restarts.
pub fn root(strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec::new("root", strategy).intensity(generous())
}

/// A root with OTP's own rules, and `restarts` in 5 s.
pub fn otp_root(strategy: Strategy, restarts: u32) -> SupervisorSpec {
    SupervisorSpec::like_otp("root", strategy).intensity(Intensity::new(restarts, 5 * SECOND).in_whole_seconds())
}

pub const DYNAMIC: Strategy = Strategy::Dynamic { max_children: 100_000 };

/// A task that waits until it is asked to stop.
pub fn idle(id: impl Into<String>) -> ChildSpec {
    ChildSpec::task(id, |context| async move {
        context.cancelled().cancelled().await;
        Ok(())
    })
    .backoff(Backoff::NONE)
}

/// Starts once, and never again.
pub fn hopeless(id: &str, journal: &Journal, address: &Address<Message>) -> ChildSpec {
    let never = Manners { fails_to_start: (2..1000).collect(), ..Manners::default() };
    ill_mannered(id, journal, address, never)
}

/// Declines its first start.
pub fn declining(id: &str, journal: &Journal) -> ChildSpec {
    ill_mannered(id, journal, &address(id), Manners { declines: vec![1], ..Manners::default() })
}

/// Fails its first start.
pub fn failing(id: &str, journal: &Journal) -> ChildSpec {
    ill_mannered(id, journal, &address(id), Manners { fails_to_start: vec![1], ..Manners::default() })
}

/// Takes this long to stop.
pub fn slow_to_stop(id: &str, journal: &Journal, takes: Duration) -> ChildSpec {
    ill_mannered(id, journal, &address(id), Manners { stop_takes: takes, ..Manners::default() })
}

/// Three workers `a`, `b` and `c` under `root`.
pub fn abc(root: SupervisorSpec, journal: &Journal) -> (SupervisorSpec, [Address<Message>; 3]) {
    let addresses = ["a", "b", "c"].map(address);
    let workers = addresses.iter().zip(["a", "b", "c"]).map(|(address, id)| worker(id, journal, address));
    (root.with_children(workers.collect::<Vec<_>>()), addresses)
}

/// Sends the message, and lets all that follows from it happen that takes no time.
pub async fn tell(address: &Address<Message>, message: Message) {
    assert!(address.try_send(message).is_ok(), "the worker is up");
    settle().await;
}
