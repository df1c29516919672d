//! What is measured before there is a meter provider waits here.

use crate::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

type Measurement = Box<dyn FnOnce() + Send>;

/// Measurements kept while no provider is there. A process that never sets one keeps these and no more.
const WAITING_MAX: usize = 1024;

static READY: AtomicBool = AtomicBool::new(false);
static FULL: AtomicBool = AtomicBool::new(false);
static WAITING: Mutex<Vec<Measurement>> = Mutex::new(Vec::new());

/// Says that the global meter provider is set: instruments are made from now on, and what waited is replayed.
///
/// `export::start` calls it. Call it yourself only if you set a global meter provider of your own. It counts once: the
/// instruments stay with the provider that was there then.
pub fn provider_installed() {
    let waiting = {
        let mut waiting = lock(&WAITING);
        READY.store(true, Ordering::Release);
        std::mem::take(&mut *waiting)
    };
    for measurement in waiting {
        measurement();
    }
}

/// Whether instruments may be made.
pub(super) fn is_ready() -> bool {
    READY.load(Ordering::Acquire)
}

/// Whether what is measured now is dropped, because no provider is there and enough waits for it.
pub(super) fn is_full() -> bool {
    FULL.load(Ordering::Relaxed) && !is_ready()
}

/// Runs `measurement` when a provider is there. Beyond the limit it is dropped: the first thousand tell how boot went.
pub(super) fn when_ready(measurement: impl FnOnce() + Send + 'static) {
    if is_full() {
        return;
    }
    let mut waiting = lock(&WAITING);
    if is_ready() {
        drop(waiting);
        measurement();
    } else if waiting.len() < WAITING_MAX {
        waiting.push(Box::new(measurement));
    } else {
        FULL.store(true, Ordering::Relaxed);
    }
}
