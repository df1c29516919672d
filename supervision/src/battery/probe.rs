//! What the battery knows of the child under test, and what it does to it. One for each check.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire},
        },
    },
    task::{Context, Poll, Waker},
};

use futures_util::{FutureExt, future::BoxFuture};
use ractor::ActorCell;

use crate::{
    ChildContext, TaskGroup,
    process::{Process, StartChild, StartFailure, Started, TaskControls},
    task::TaskStarter,
};

/// Looks on at one child, and holds the fault that it is to meet next.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    plan: Mutex<Plan>,
    /// Phase and message of each panic that was recorded for the child.
    panics: Mutex<Vec<(&'static str, String)>>,
    lives: AtomicUsize,
    /// Incarnations that began while the state of an earlier one was still there.
    overlaps: AtomicUsize,
    handle: Mutex<Option<Handle>>,
    contexts: Mutex<Vec<ChildContext>>,
}

/// The fault that is to come. Each happens once.
#[derive(Debug, Default)]
enum Plan {
    #[default]
    None,
    Panic {
        phase: &'static str,
        message: String,
    },
    Hold {
        phase: &'static str,
    },
    Holding {
        phase: &'static str,
        incarnation: u64,
        waker: Waker,
    },
}

/// By what the running incarnation is killed.
enum Handle {
    Actor(ActorCell),
    Task(TaskControls),
    Supervisor,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Probe {
    /// The next time the child comes by `phase`, it panics with this message.
    pub(super) fn panic_in(&self, phase: &'static str, message: String) {
        *lock(&self.plan) = Plan::Panic { phase, message };
    }

    /// The next time the child comes by `phase`, it stays there until it is released or ended.
    pub(super) fn hold_in(&self, phase: &'static str) {
        *lock(&self.plan) = Plan::Hold { phase };
    }

    /// Lets the child go on.
    pub(super) fn release(&self) {
        if let Plan::Holding { waker, .. } = std::mem::take(&mut *lock(&self.plan)) {
            waker.wake();
        }
    }

    /// True while the child stands where it was to be held.
    pub(super) fn is_holding(&self) -> bool {
        matches!(*lock(&self.plan), Plan::Holding { .. })
    }

    /// True if the fault that was planned has come about.
    pub(super) fn has_struck(&self) -> bool {
        matches!(*lock(&self.plan), Plan::None)
    }

    pub(super) fn panics(&self) -> Vec<(&'static str, String)> {
        lock(&self.panics).clone()
    }

    pub(super) fn lives(&self) -> usize {
        self.lives.load(Acquire)
    }

    pub(super) fn overlaps(&self) -> usize {
        self.overlaps.load(Acquire)
    }

    /// Kills the running incarnation, behind the back of its supervisor. False if there is none that can be.
    pub(super) fn kill(&self) -> bool {
        match &*lock(&self.handle) {
            Some(Handle::Actor(cell)) => cell.kill(),
            Some(Handle::Task(controls)) => controls.kill.cancel(),
            Some(Handle::Supervisor) | None => return false,
        }
        true
    }

    /// The actor of the running incarnation.
    pub(super) fn actor(&self) -> Option<ActorCell> {
        match &*lock(&self.handle) {
            Some(Handle::Actor(cell)) => Some(cell.clone()),
            _ => None,
        }
    }

    /// Tasks in the groups of all incarnations.
    pub(super) fn scoped_tasks(&self) -> usize {
        lock(&self.contexts).iter().filter_map(ChildContext::task_group).map(TaskGroup::len).sum()
    }

    /// True if tasks of any incarnation did not end when they were asked to.
    pub(super) fn had_to_abort_tasks(&self) -> bool {
        lock(&self.contexts).iter().filter_map(ChildContext::task_group).any(TaskGroup::had_to_abort)
    }

    pub(crate) fn strike(&self, phase: &'static str) {
        let mut plan = lock(&self.plan);
        let message = match std::mem::take(&mut *plan) {
            Plan::Panic { phase: at, message } if at == phase => message,
            other => {
                *plan = other;
                return;
            }
        };
        drop(plan);
        panic!("{message}");
    }

    pub(crate) fn poll_hold(&self, phase: &'static str, incarnation: u64, context: &Context<'_>) -> Poll<()> {
        let mut plan = lock(&self.plan);
        let is_held = match &*plan {
            Plan::Hold { phase: at } => *at == phase,
            Plan::Holding { phase: at, incarnation: of, .. } => *at == phase && *of == incarnation,
            Plan::None | Plan::Panic { .. } => false,
        };
        if !is_held {
            return Poll::Ready(());
        }
        *plan = Plan::Holding { phase, incarnation, waker: context.waker().clone() };
        Poll::Pending
    }

    pub(crate) fn seen(&self, phase: &'static str, message: &str) {
        lock(&self.panics).push((phase, message.to_owned()));
    }

    pub(crate) fn life_begins(&self) {
        self.lives.fetch_add(1, AcqRel);
    }

    pub(crate) fn life_ends(&self) {
        self.lives.fetch_sub(1, AcqRel);
    }
}

/// The child's own starter, looked at.
pub(super) struct Probed {
    pub(super) starter: Arc<dyn StartChild>,
    pub(super) probe: Arc<Probe>,
}

impl StartChild for Probed {
    fn start(&self, context: ChildContext) -> BoxFuture<'static, Result<Started, StartFailure>> {
        let probe = Arc::clone(&self.probe);
        if probe.lives() > 0 {
            probe.overlaps.fetch_add(1, AcqRel);
        }
        context.set_probe(Arc::clone(&probe));
        lock(&probe.contexts).push(context.clone());
        let starting = self.starter.start(context);
        async move {
            let started = starting.await?;
            *lock(&probe.handle) = Some(match &started.process {
                Process::Actor { cell, .. } => Handle::Actor(cell.clone()),
                Process::Task { controls } => Handle::Task(controls.clone()),
                Process::Supervisor(_) => Handle::Supervisor,
            });
            Ok(started)
        }
        .boxed()
    }

    fn as_task(&self) -> Option<&TaskStarter> {
        self.starter.as_task()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
