//! What is measured, and with what.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Messages of one round, in batches so that the mailbox stays as short as in life.
pub const BATCHES: usize = 400;
/// Messages of one batch; a call after each of them makes sure that all were handled.
pub const BATCH: usize = 500;
/// Calls of one round.
pub const CALLS: usize = 50_000;
/// Crashes that are timed.
pub const CRASHES: usize = 1000;
/// Crashes before them, so that all code is warm and the first backtrace is resolved.
pub const WARM_CRASHES: usize = 100;
/// Restarts that the window holds in the loaded case.
pub const RESTARTS_BEFORE: usize = 20_000;
/// Longer than any of this takes: all restarts count.
pub const WINDOW: Duration = Duration::from_secs(3600);

/// One thing that every system is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Fire and forget, ns of CPU for each.
    Message,
    /// The same where ours times each message, its default.
    MessageMetered,
    /// There and back, ns of CPU for each.
    Call,
    /// From the message that makes it fail to the answer of the next incarnation: p50 and p99 in us.
    Crash,
    /// The same with [`RESTARTS_BEFORE`] restarts in the window.
    CrashLoaded,
    /// Start of so many children under one supervisor, us of CPU for each.
    Start(usize),
    /// Stop of so many children in reverse order, each one awaited, us of CPU for each.
    Stop(usize),
    /// One child fails and all so many are started again: ms by the clock, ms of CPU.
    OneForAll(usize),
    /// Resident bytes for each of so many children that do nothing.
    Memory(usize),
}

impl Measure {
    /// As words of a command line.
    pub fn words(self) -> [String; 2] {
        let (name, count) = match self {
            Self::Message => ("message", BATCHES * BATCH),
            Self::MessageMetered => ("message_metered", BATCHES * BATCH),
            Self::Call => ("call", CALLS),
            Self::Crash => ("crash", 0),
            Self::CrashLoaded => ("crash", RESTARTS_BEFORE),
            Self::Start(children) => ("start", children),
            Self::Stop(children) => ("stop", children),
            Self::OneForAll(children) => ("one_for_all", children),
            Self::Memory(children) => ("memory", children),
        };
        [name.to_owned(), count.to_string()]
    }

    /// The inverse of [`Measure::words`].
    pub fn from_words(name: &str, count: &str) -> Option<Self> {
        let count = count.parse().ok()?;
        Some(match (name, count) {
            ("message", _) => Self::Message,
            ("message_metered", _) => Self::MessageMetered,
            ("call", _) => Self::Call,
            ("crash", 0) => Self::Crash,
            ("crash", _) => Self::CrashLoaded,
            ("start", children) => Self::Start(children),
            ("stop", children) => Self::Stop(children),
            ("one_for_all", children) => Self::OneForAll(children),
            ("memory", children) => Self::Memory(children),
            _ => return None,
        })
    }

    /// Restarts before those that are timed.
    pub fn restarts_before(self) -> usize {
        if self == Self::CrashLoaded { RESTARTS_BEFORE } else { 0 }
    }
}

/// One system under measurement, in a process of its own.
pub trait System {
    /// Takes one measure; none if the system has no such thing.
    fn measure(&self, measure: Measure) -> Option<Vec<f64>>;
}

/// A runtime on one thread: what work costs does not depend on who else is running.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Time and CPU of one piece of work.
pub struct Cost {
    /// By the clock.
    pub wall: Duration,
    /// On all threads of this process.
    pub cpu: Duration,
}

impl Cost {
    /// ns of CPU for each.
    pub fn ns_each(&self, count: usize) -> Option<Vec<f64>> {
        Some(vec![self.cpu.as_secs_f64() * 1e9 / count as f64])
    }

    /// us of CPU for each.
    pub fn us_each(&self, count: usize) -> Option<Vec<f64>> {
        Some(vec![self.cpu.as_secs_f64() * 1e6 / count as f64])
    }

    /// ms by the clock and of CPU.
    pub fn ms(&self) -> Option<Vec<f64>> {
        Some(vec![self.wall.as_secs_f64() * 1e3, self.cpu.as_secs_f64() * 1e3])
    }
}

/// Measures one piece of work.
pub async fn cost(work: impl Future<Output = ()>) -> Cost {
    let (wall, cpu) = (Instant::now(), cpu_now());
    work.await;
    Cost { cpu: cpu_now().saturating_sub(cpu), wall: wall.elapsed() }
}

fn cpu_now() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

/// Resident memory of this process.
pub fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

/// The middle and the 99th percentile, in us.
pub fn percentiles(mut times: Vec<Duration>) -> Option<Vec<f64>> {
    times.sort();
    let us = |rank: usize| times[rank].as_secs_f64() * 1e6;
    Some(vec![us(times.len() / 2), us(times.len() * 99 / 100)])
}

/// Tells when so many children have come up.
#[derive(Clone, Default)]
pub struct Arrivals(Arc<(AtomicUsize, Notify)>);

impl Arrivals {
    /// So many are still to come.
    pub fn expect(&self, children: usize) {
        self.0.0.store(children, Ordering::SeqCst);
    }

    /// A child is up.
    pub fn arrived(&self) {
        if self.0.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.1.notify_one();
        }
    }

    /// Waits for the last one.
    pub async fn all(&self) {
        self.0.1.notified().await;
    }
}
