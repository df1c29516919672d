//! What is kept, by trace, within a limit of bytes.
//!
//! A trace is of one of three classes. Healthy ones share one limit; slow ones and failed ones share another, of which the
//! slow may be pushed out down to a quarter by the failed, and the failed are never pushed out by the slow beyond the rest.
//! In each class the oldest trace goes first, and goes whole.

use super::keys::{Map, Trace};
use super::size::Size;
use opentelemetry::trace::TraceId;
use serde::Serialize;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::ops::AddAssign;

/// How a trace went, as far as is known. The later is the graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Healthy,
    Slow,
    Failed,
}

/// What is kept of one trace, with its class.
pub(super) type Kept<T> = (TraceId, Class, Vec<T>);

/// What one more trace takes beside what is kept of it: its entry, its place in the queue.
const GROUP: usize = 256;

/// Where a trace is full, so many of its oldest are looked through for one that is no failure.
const SPARED_MAX: usize = 64;

/// Where queues hold more than this many traces that are gone, and as many as live ones, they are tidied up.
const STALE_MAX: usize = 64;

#[derive(Debug)]
struct Group<T> {
    class: Class,
    /// Oldest first. Most traces are one span.
    items: SmallVec<[(T, usize); 1]>,
    bytes: usize,
}

/// Traces, and what is kept of each.
#[derive(Debug)]
pub(super) struct Groups<T> {
    by_trace: Map<Trace, Group<T>>,
    /// Oldest first, for each class. A trace that has changed its class still stands in the old queue.
    queues: [VecDeque<Trace>; 3],
    bytes: [usize; 3],
    items: [usize; 3],
    healthy_max: usize,
    kept_max: usize,
    /// How many items came so far.
    pub(super) taken: u64,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Spans, or log records.
    pub items: usize,
    /// What they take, as it is estimated.
    pub bytes: usize,
}

impl AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.bytes += other.bytes;
    }
}

/// What had to go, to be dropped where nobody waits for the lock.
#[derive(Debug)]
pub(super) struct Gone<T> {
    groups: Vec<Group<T>>,
    items: Vec<T>,
    /// How many of which class had to make room.
    pub(super) evicted: [u64; 3],
    /// Whether the item itself was too large to be kept.
    pub(super) refused: bool,
}

impl<T> Default for Gone<T> {
    fn default() -> Self {
        Self { groups: Vec::new(), items: Vec::new(), evicted: [0; 3], refused: false }
    }
}

impl<T: Size + Clone> Groups<T> {
    pub(super) fn new(healthy_max: usize, kept_max: usize) -> Self {
        let (by_trace, queues) = (Map::default(), Default::default());
        Self { by_trace, queues, bytes: [0; 3], items: [0; 3], healthy_max, kept_max, taken: 0 }
    }

    /// The class of a trace: healthy, if nothing of it is kept.
    pub(super) fn class_of(&self, trace: Trace) -> Class {
        self.by_trace.get(&trace).map_or(Class::Healthy, |group| group.class)
    }

    /// Keeps `item` of `trace`, which is of this class from now on, or of a graver one if it was before.
    pub(super) fn push(&mut self, trace: Trace, class: Class, (item, size): (T, usize)) -> Gone<T> {
        let mut gone = Gone::default();
        self.taken += 1;
        let before = self.by_trace.get(&trace).map(|group| group.class);
        let class = before.map_or(class, |before| class.max(before));
        let full = self.limit(class) / 2;
        if size + GROUP > full {
            gone.refused = true;
            return gone;
        }
        if before.is_some_and(|before| before < class) {
            self.change(trace, class);
        }
        if before.is_none() {
            self.queues[class as usize].push_back(trace);
            self.bytes[class as usize] += GROUP;
        }
        let group = self.by_trace.entry(trace).or_insert_with(|| Group { class, items: SmallVec::new(), bytes: GROUP });
        while group.bytes + size > full {
            let healthy = group.items.iter().take(SPARED_MAX).position(|(kept, _)| !kept.is_failure());
            if group.items.is_empty() {
                break;
            }
            let (oldest, bytes) = group.items.remove(healthy.unwrap_or(0));
            group.bytes -= bytes;
            self.bytes[class as usize] -= bytes;
            self.items[class as usize] -= 1;
            gone.evicted[class as usize] += 1;
            gone.items.push(oldest);
        }
        group.items.push((item, size));
        group.bytes += size;
        self.bytes[class as usize] += size;
        self.items[class as usize] += 1;
        self.make_room(&mut gone);
        gone
    }

    /// Says that a trace is of this class, unless it is of a graver one already.
    pub(super) fn promote(&mut self, trace: Trace, class: Class) -> Gone<T> {
        let mut gone = Gone::default();
        self.change(trace, class);
        self.make_room(&mut gone);
        gone
    }

    fn change(&mut self, trace: Trace, class: Class) {
        let Some(group) = self.by_trace.get_mut(&trace).filter(|group| group.class < class) else { return };
        self.bytes[group.class as usize] -= group.bytes;
        self.bytes[class as usize] += group.bytes;
        self.items[group.class as usize] -= group.items.len();
        self.items[class as usize] += group.items.len();
        let before = std::mem::replace(&mut group.class, class);
        self.queues[class as usize].push_back(trace);
        self.tidy(before);
    }

    fn limit(&self, class: Class) -> usize {
        if class == Class::Healthy { self.healthy_max } else { self.kept_max }
    }

    fn make_room(&mut self, gone: &mut Gone<T>) {
        while self.bytes[Class::Healthy as usize] > self.healthy_max && self.evict(Class::Healthy, gone) {}
        loop {
            let [_, slow, failed] = self.bytes;
            if slow + failed <= self.kept_max {
                return;
            }
            let first = if slow > self.kept_max / 4 { Class::Slow } else { Class::Failed };
            if !self.evict(first, gone) {
                return;
            }
        }
    }

    /// Lets the oldest trace of a class go. Answers whether there was one.
    fn evict(&mut self, class: Class, gone: &mut Gone<T>) -> bool {
        while let Some(oldest) = self.queues[class as usize].pop_front() {
            if self.by_trace.get(&oldest).is_none_or(|group| group.class != class) {
                continue;
            }
            if let Some(group) = self.by_trace.remove(&oldest) {
                self.bytes[class as usize] -= group.bytes;
                self.items[class as usize] -= group.items.len();
                gone.evicted[class as usize] += group.items.len() as u64;
                gone.groups.push(group);
                return true;
            }
        }
        false
    }

    fn tidy(&mut self, class: Class) {
        let queue = &mut self.queues[class as usize];
        if queue.len() > 2 * self.by_trace.len() + STALE_MAX {
            queue.retain(|trace| self.by_trace.get(trace).is_some_and(|group| group.class == class));
        }
    }

    /// Items and bytes of all healthy traces, and of all others.
    pub(super) fn held(&self) -> [Held; 2] {
        let ([healthy, slow, failed], [a, b, c]) = (self.bytes, self.items);
        [Held { items: a, bytes: healthy }, Held { items: b + c, bytes: slow + failed }]
    }

    /// What is kept of one trace.
    pub(super) fn get(&self, trace: Trace) -> Option<(Class, Vec<T>)> {
        self.by_trace.get(&trace).map(|group| (group.class, group.all()))
    }

    /// What is kept of all traces.
    pub(super) fn all(&self) -> Vec<Kept<T>> {
        self.by_trace.iter().map(|(trace, group)| (trace.id, group.class, group.all())).collect()
    }
}

impl<T: Clone> Group<T> {
    fn all(&self) -> Vec<T> {
        self.items.iter().map(|(item, _)| item.clone()).collect()
    }
}
