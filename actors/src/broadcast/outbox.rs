//! The queue of one subscriber: bounded in bytes, frames and time, with its reason to close.
//!
//! One task takes from it, anyone may put into it, and nobody ever waits here but that task. What was taken counts as
//! still queued until the task comes back for more, because only then has it been written: a client that does not
//! read is behind even if its queue looks empty.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

use super::{Frame, lock};

/// Frames handed out at once: enough to fill many writes, few enough that progress shows often.
const BATCH_MAX: usize = 256;

/// A queue that once held a burst gives its memory back when it has become empty above this many frames.
const KEEP_CAPACITY: usize = 64;

/// How far a subscriber may be behind, and how long it may be silent.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// Bytes that may wait for it; 1 MiB.
    pub bytes_max: usize,
    /// Frames that may wait for it.
    pub frames_max: usize,
    /// How old the oldest frame it has not taken may be; 5 s.
    pub behind_max: Duration,
    /// It is sent a ping when nothing was heard of it for this long; 30 s.
    pub ping_after: Duration,
    /// How long it may take to answer a ping; 10 s.
    pub pong_within: Duration,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 20,
            frames_max: 8_192,
            behind_max: Duration::from_secs(5),
            ping_after: Duration::from_secs(30),
            pong_within: Duration::from_secs(10),
        }
    }
}

/// Why we close a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// It was further behind than its outbox allows. What waited for it is lost.
    Slow,
    /// It did not answer a ping. What waited for it is lost.
    Unresponsive,
    /// The key it was opened with opens nothing any more. What waited for it is lost.
    Revoked,
    /// This process is going away. Everything that waited was handed out first.
    Draining {
        /// When to connect again, in ms from now; jittered, so that not everybody returns at once.
        after_ms: u64,
    },
}

impl CloseReason {
    /// A short name for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Unresponsive => "unresponsive",
            Self::Revoked => "revoked",
            Self::Draining { .. } => "draining",
        }
    }

    /// Whether what still waits is thrown away, and a write in progress is cut.
    pub fn is_at_once(self) -> bool {
        !matches!(self, Self::Draining { .. })
    }
}

/// What the task of a connection is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch {
    /// Write all of these, oldest first, then flush once. Never empty.
    Frames(Vec<Frame>),
    /// Send a ping: nothing was heard for a while.
    Ping,
    /// Close for this reason. It is repeated to whoever asks again.
    Closed(CloseReason),
}

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It will be handed out.
    Queued,
    /// The connection is closing or closed; nothing was queued.
    Closed,
    /// It was too much: the outbox closed itself as [`CloseReason::Slow`] and threw this many frames away.
    Overflowed { dropped: usize },
}

/// How far a subscriber is behind.
pub(super) struct Load {
    /// Frames that wait.
    pub(super) frames: usize,
    /// Bytes that wait or were handed out and not confirmed.
    pub(super) bytes: usize,
    /// Since when the oldest frame waits that it has not taken.
    pub(super) behind_since: Option<Instant>,
    /// When anything was last heard of it.
    pub(super) heard_at: Instant,
}

pub(super) struct Outbox {
    limits: OutboxLimits,
    state: Mutex<State>,
}

struct State {
    queued: VecDeque<(Frame, Instant)>,
    queued_bytes: usize,
    /// What the task took and has not confirmed by coming back: bytes, and since when its oldest frame waits.
    in_flight: Option<(usize, Instant)>,
    closing: Option<CloseReason>,
    waker: Option<Waker>,
    heard_at: Instant,
    ping: Ping,
}

#[derive(Clone, Copy, PartialEq)]
enum Ping {
    NotDue,
    Due,
    Sent(Instant),
}

impl Outbox {
    pub(super) fn new(limits: OutboxLimits) -> Self {
        let state = State {
            queued: VecDeque::new(),
            queued_bytes: 0,
            in_flight: None,
            closing: None,
            waker: None,
            heard_at: Instant::now(),
            ping: Ping::NotDue,
        };
        Self { limits, state: Mutex::new(state) }
    }

    /// Queues `frames` and wakes the task. `now` is given so that a fan-out reads the clock once.
    pub(super) fn push(&self, frames: &[Frame], now: Instant) -> Pushed {
        let mut state = lock(&self.state);
        if state.closing.is_some() {
            return Pushed::Closed;
        }
        let bytes: usize = frames.iter().map(Frame::len).sum();
        let waiting = state.queued_bytes + state.in_flight.map_or(0, |(bytes, _)| bytes);
        let is_too_much =
            waiting + bytes > self.limits.bytes_max || state.queued.len() + frames.len() > self.limits.frames_max;
        let pushed = if is_too_much {
            Pushed::Overflowed { dropped: frames.len() + state.close(CloseReason::Slow) }
        } else {
            state.queued.extend(frames.iter().map(|frame| (frame.clone(), now)));
            state.queued_bytes += bytes;
            Pushed::Queued
        };
        wake(state);
        pushed
    }

    /// Begins to close, unless that has begun with a reason that is as strong. Returns the frames it threw away, or
    /// `None` if nothing changed.
    pub(super) fn close(&self, reason: CloseReason) -> Option<usize> {
        let mut state = lock(&self.state);
        let changes = state.closing.is_none_or(|known| reason.is_at_once() && !known.is_at_once());
        changes.then(|| {
            let dropped = state.close(reason);
            wake(state);
            dropped
        })
    }

    /// Looks at the clock: the reason to close now if it is too far behind or silent. Makes a ping due.
    pub(super) fn overdue(&self, now: Instant) -> Option<CloseReason> {
        let mut state = lock(&self.state);
        if state.closing.is_some_and(CloseReason::is_at_once) {
            return None;
        }
        if state.behind_since().is_some_and(|since| now.duration_since(since) > self.limits.behind_max) {
            return Some(CloseReason::Slow);
        }
        match state.ping {
            Ping::Sent(at) if now.duration_since(at) > self.limits.pong_within => Some(CloseReason::Unresponsive),
            Ping::NotDue if now.duration_since(state.heard_at) >= self.limits.ping_after => {
                state.ping = Ping::Due;
                wake(state);
                None
            }
            _ => None,
        }
    }

    /// Something came from the client: it is there.
    pub(super) fn heard(&self) {
        let mut state = lock(&self.state);
        state.heard_at = Instant::now();
        state.ping = Ping::NotDue;
    }

    /// What waits, and since when.
    pub(super) fn load(&self) -> Load {
        let state = lock(&self.state);
        Load {
            frames: state.queued.len(),
            bytes: state.queued_bytes + state.in_flight.map_or(0, |(bytes, _)| bytes),
            behind_since: state.behind_since(),
            heard_at: state.heard_at,
        }
    }

    /// What to do next. Asking confirms that the batch before was written.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Batch> {
        let mut state = lock(&self.state);
        state.in_flight = None;
        if let Some(frames) = state.take() {
            return Poll::Ready(Batch::Frames(frames));
        }
        if let Some(reason) = state.closing {
            return Poll::Ready(Batch::Closed(reason));
        }
        if state.ping == Ping::Due {
            state.ping = Ping::Sent(Instant::now());
            return Poll::Ready(Batch::Ping);
        }
        state.wait(cx.waker());
        Poll::Pending
    }

    /// Ready when a write in progress is to be cut.
    pub(super) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut state = lock(&self.state);
        match state.closing {
            Some(reason) if reason.is_at_once() => Poll::Ready(reason),
            _ => {
                state.wait(cx.waker());
                Poll::Pending
            }
        }
    }
}

impl State {
    fn take(&mut self) -> Option<Vec<Frame>> {
        let oldest = self.queued.front()?.1;
        let count = self.queued.len().min(BATCH_MAX);
        let frames: Vec<Frame> = self.queued.drain(..count).map(|(frame, _)| frame).collect();
        let bytes = frames.iter().map(Frame::len).sum();
        self.queued_bytes -= bytes;
        self.in_flight = Some((bytes, oldest));
        if self.queued.is_empty() && self.queued.capacity() > KEEP_CAPACITY {
            self.queued = VecDeque::new();
        }
        Some(frames)
    }

    fn close(&mut self, reason: CloseReason) -> usize {
        self.closing = Some(reason);
        if !reason.is_at_once() {
            return 0;
        }
        self.queued_bytes = 0;
        std::mem::take(&mut self.queued).len()
    }

    fn behind_since(&self) -> Option<Instant> {
        self.in_flight.map(|(_, since)| since).or_else(|| self.queued.front().map(|(_, since)| *since))
    }

    fn wait(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

/// Gives the lock back and then wakes the task, because that lock is what it wants first of all.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}
