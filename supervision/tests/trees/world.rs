//! What the workers write down, and where they hear what they are to do.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use fastrand::Rng;
use supervision::{Address, ChildContext};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{case::Order, worker::Message};

/// What all workers of one case share.
#[derive(Default)]
pub struct World {
    seed: u64,
    clock: AtomicU64,
    is_calm: AtomicBool,
    stays: Mutex<BTreeMap<String, Vec<Stay>>>,
    wires: Mutex<BTreeMap<usize, Wire>>,
    faults: Mutex<Vec<String>>,
}

/// How a worker is reached.
#[derive(Clone)]
pub enum Wire {
    Actor(Address<Message>),
    Task(mpsc::UnboundedSender<Order>),
}

/// The life of one incarnation, in ticks of the world's clock.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    pub incarnation: u64,
    pub began: u64,
    /// When it heard that it is to stop, or was killed for that.
    pub turn: Option<u64>,
    pub ended: Option<u64>,
}

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { seed, ..Self::default() })
    }

    /// The next tick.
    pub fn tick(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    pub fn be_calm(&self) {
        self.is_calm.store(true, SeqCst);
    }

    pub fn is_calm(&self) -> bool {
        self.is_calm.load(SeqCst)
    }

    pub fn fault(&self, fault: String) {
        lock(&self.faults).push(fault);
    }

    pub fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }

    /// True with this chance in percent, if all is not calm. The same each time for one incarnation and purpose.
    pub fn happens(&self, chance: u64, context: &ChildContext, purpose: u64) -> bool {
        let name = context.path().as_str().bytes().fold(purpose, |hash, byte| hash * 31 % 1_000_003 + u64::from(byte));
        let mut rng = Rng::with_seed(self.seed ^ (name << 20) ^ context.incarnation());
        !self.is_calm() && rng.u64(0..100) < chance
    }

    /// A life begins; what is returned ends it when dropped.
    pub fn begin(self: &Arc<Self>, path: String, context: &ChildContext) -> Guard {
        let (began, incarnation) = (self.tick(), context.incarnation());
        let mut stays = lock(&self.stays);
        let former = stays.entry(path.clone()).or_default();
        if let Some(last) = former.last().filter(|last| last.ended.is_none()) {
            let before = last.incarnation;
            self.fault(format!("{path}: incarnation {incarnation} began before {before} had ended"));
        }
        former.push(Stay { incarnation, began, turn: None, ended: None });
        let index = former.len() - 1;
        Guard { world: Arc::clone(self), path, index, cancelled: context.cancelled() }
    }

    pub fn stays(&self) -> BTreeMap<String, Vec<Stay>> {
        lock(&self.stays).clone()
    }

    /// How many lives have begun at the path and not ended.
    pub fn alive(&self, path: &str) -> usize {
        lock(&self.stays).get(path).map_or(0, |stays| stays.iter().filter(|stay| stay.ended.is_none()).count())
    }

    pub fn connect(&self, number: usize, wire: Wire) {
        lock(&self.wires).insert(number, wire);
    }

    pub fn wire(&self, number: usize) -> Option<Wire> {
        lock(&self.wires).get(&number).cloned()
    }

    /// Stands still for this long, or until all is calm.
    pub async fn freeze(&self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until && !self.is_calm() {
            tokio::time::sleep(time.min(Duration::from_millis(200))).await;
        }
    }
}

/// Part of a worker's state: lives as long as that.
pub struct Guard {
    world: Arc<World>,
    path: String,
    index: usize,
    cancelled: CancellationToken,
}

impl Guard {
    /// It was called to end. That counts as a stop only if its supervisor wants it.
    pub fn called(&self) {
        if self.cancelled.is_cancelled() {
            self.change(|stay, tick| stay.turn = stay.turn.or(Some(tick)));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Stay, u64)) {
        let tick = self.world.tick();
        if let Some(stay) = lock(&self.world.stays).get_mut(&self.path).and_then(|stays| stays.get_mut(self.index)) {
            change(stay, tick);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.called();
        self.change(|stay, tick| stay.ended = Some(tick));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
