//! Where one check takes place: the child alone under a supervisor, and what must be true when it is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Check, Outcome, Probe, Subject,
    probe::Probed,
    report::Trouble,
    subject::{Call, Post},
    trial,
};
use crate::{
    Backoff, BeatState, ChildSpec, ChildStop, Exit, Heartbeats, Intensity, Kind, NodeSnapshot, OnGiveUp, Restart,
    StartError, Status, StopReport, Strategy, SupervisorSpec, Tree,
};

/// The longest wait for anything that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest that a whole check may take; the child's own stop budget comes on top.
const CHECK_WITHIN: Duration = Duration::from_secs(120);

/// How long what ends with the child may take to be gone after it.
const GONE_WITHIN: Duration = Duration::from_millis(500);

/// How the message of a panic that the battery brings about begins; each has a number of its own.
const MESSAGE: &str = "battery: panic";

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub(super) type Verdict<T = ()> = Result<T, Trouble>;

/// One check's child and what is known of it.
pub(super) struct Stand {
    pub(super) probe: Arc<Probe>,
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) post: Option<Box<dyn Post>>,
    pub(super) call: Option<Box<dyn Call>>,
    spec: ChildSpec,
    heartbeats: Heartbeats,
    tree: Option<Tree>,
    /// The panic that was brought about: phase and message.
    expected: Vec<(&'static str, String)>,
    tasks_before: usize,
}

/// One check, from making the child to looking at what is left of it.
pub(super) async fn carry_out<S: Into<Subject>>(check: Check, make: &impl Fn() -> S) -> Outcome {
    let tasks_before = Handle::current().metrics().num_alive_tasks();
    let mut stand = Stand::new(make().into(), tasks_before);
    let work = telemetry::panic::catch(trial::carry_out(check, &mut stand));
    let verdict = match tokio::time::timeout(CHECK_WITHIN, work).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(captured)) => Err(format!("the check itself panicked: {}", captured.message).into()),
        Err(_) => Err(format!("not over after {CHECK_WITHIN:?}").into()),
    };
    let left = stand.finish().await;
    match (verdict, left) {
        (Ok(()), Err(why)) => Outcome::Failed(why),
        (Err(Trouble::Failed(first)), Err(second)) => Outcome::Failed(format!("{first}; {second}")),
        (verdict, _) => verdict.into(),
    }
}

impl Stand {
    fn new(subject: Subject, tasks_before: usize) -> Self {
        let (probe, given) = (Arc::new(Probe::default()), subject.spec);
        let starter = Arc::new(Probed { starter: Arc::clone(&given.starter), probe: Arc::clone(&probe) });
        let spec = ChildSpec {
            starter,
            restart: Restart::Permanent,
            backoff: Backoff::NONE,
            intensity: None,
            on_give_up: OnGiveUp::Escalate,
            significant: false,
            ..given
        };
        Self {
            probe,
            id: spec.id.clone(),
            kind: spec.kind,
            post: subject.post,
            call: subject.call,
            spec,
            heartbeats: Heartbeats::new(),
            tree: None,
            expected: Vec::new(),
            tasks_before,
        }
    }

    /// Changes the child before it is started.
    pub(super) fn change(&mut self, change: impl FnOnce(ChildSpec) -> ChildSpec) {
        self.spec = change(self.spec.clone());
    }

    /// The child panics the next time it comes by `phase`; expected to be recorded once.
    pub(super) fn panic_in(&mut self, phase: &'static str) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let message = format!("{MESSAGE} {} of {} in {phase}", NEXT.fetch_add(1, Relaxed), self.id);
        self.probe.panic_in(phase, message.clone());
        self.expected.push((phase, message));
    }

    /// As [`Stand::panic_in`], for a panic that somebody else brings about.
    pub(super) fn expect_panic(&mut self, phase: &'static str, message: String) {
        self.expected.push((phase, message));
    }

    /// Takes back what was planned and has not come about.
    pub(super) fn call_off(&mut self) {
        self.probe.release();
        self.expected.clear();
    }

    pub(super) async fn try_start(&mut self, cancelled: CancellationToken) -> Result<(), StartError> {
        let root = SupervisorSpec::new("battery", Strategy::OneForOne)
            .intensity(Intensity::new(20, PATIENCE))
            .child(self.spec.clone());
        self.tree =
            Some(Tree::options().heartbeats(self.heartbeats.clone()).cancelled_by(cancelled).start(root).await?);
        Ok(())
    }

    pub(super) async fn start(&mut self) -> Verdict {
        self.try_start(CancellationToken::new()).await.map_err(|error| Trouble::Start(error.to_string()))
    }

    pub(super) fn tree(&self) -> Verdict<&Tree> {
        self.tree.as_ref().ok_or_else(|| Trouble::Failed("it was never started".to_owned()))
    }

    /// Waits until the child serves as this incarnation.
    pub(super) async fn up(&self, incarnation: u64) -> Verdict {
        let is_up = |node: &NodeSnapshot| node.status == Status::Up && node.incarnation == incarnation;
        self.until(&format!("it is up as incarnation {incarnation}"), || self.node().is_ok_and(|it| is_up(&it)))
            .await?;
        let lives = self.probe.lives();
        match (self.kind, lives) {
            (Kind::Actor, 1) | (Kind::Task | Kind::Supervisor, 0 | 1) => Ok(()),
            (_, lives) => Err(format!("{lives} incarnations have state at the same time").into()),
        }
    }

    pub(super) async fn answers(&self) -> Verdict {
        let Some(call) = &self.call else { return Ok(()) };
        call.answer().await.map_err(|error| format!("a call has no answer: {error}").into())
    }

    pub(super) fn node(&self) -> Verdict<NodeSnapshot> {
        let snapshot = self.tree()?.snapshot();
        snapshot.find(&self.id).cloned().ok_or_else(|| Trouble::Failed("it is not in the tree".to_owned()))
    }

    /// Waits for something that is bound to happen.
    pub(super) async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) -> Verdict {
        let limit = Instant::now() + PATIENCE;
        while !is_so() {
            if Instant::now() > limit {
                let status = self.node().map(|node| format!("{:?}", node.status)).unwrap_or_default();
                return Err(format!("waited {PATIENCE:?} in vain until {what} {status}").into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Stops the tree; answers the child's own line of the report.
    pub(super) async fn stop(&self) -> Verdict<ChildStop> {
        let report = self.tree()?.stop().await;
        self.line(&report)
    }

    pub(super) fn line(&self, report: &StopReport) -> Verdict<ChildStop> {
        let line = report.children.iter().find(|child| child.path.as_str() == self.id);
        line.cloned().ok_or_else(|| Trouble::Failed("the stop report has no line for it".to_owned()))
    }

    /// Ends what is still there, and looks at what is left.
    async fn finish(mut self) -> Result<(), String> {
        self.probe.release();
        if let Some(tree) = self.tree.take() {
            tree.stop().await;
            if let Exit::GaveUp { cause, .. } = tree.ended().await.exit {
                return Err(format!("it failed until its supervisor gave up: it {cause}"));
            }
        }
        let limit = Instant::now() + GONE_WITHIN;
        while self.leftovers().is_some() && Instant::now() < limit {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        match self.leftovers().or_else(|| self.wrong_panics()) {
            Some(what) => Err(what),
            None => Ok(()),
        }
    }

    fn leftovers(&self) -> Option<String> {
        let probe = &self.probe;
        let alive = Handle::current().metrics().num_alive_tasks();
        let beating = self.heartbeats.snapshot().into_iter().find(|beat| beat.state != BeatState::Waiting);
        if probe.overlaps() > 0 {
            Some("an incarnation began before the state of the one before was dropped".to_owned())
        } else if probe.lives() > 0 {
            Some("its state is still there after it has stopped".to_owned())
        } else if probe.scoped_tasks() > 0 {
            Some(format!("{} tasks of its group are left", probe.scoped_tasks()))
        } else if probe.had_to_abort_tasks() {
            Some("tasks of its group did not hear that it had ended, and kept the next start waiting".to_owned())
        } else if let Some(beat) = beating {
            Some(format!("its loop {} still counts as {:?}", beat.loop_name, beat.state))
        } else if alive > self.tasks_before {
            let more = alive - self.tasks_before;
            Some(format!("{more} tasks are left on the runtime {GONE_WITHIN:?} after it has stopped"))
        } else {
            None
        }
    }

    /// Each panic that was brought about is recorded once, in its phase, and no other is.
    fn wrong_panics(&self) -> Option<String> {
        let mut recorded = self.probe.panics();
        for (phase, message) in &self.expected {
            let found = recorded.iter().position(|(at, text)| at == phase && text == message);
            match found {
                Some(index) => drop(recorded.swap_remove(index)),
                None => return Some(format!("the panic in {phase} was not recorded as such: {recorded:?}")),
            }
            let kept = telemetry::incidents::recent(telemetry::incidents::KEPT_MAX);
            // A storm elsewhere in the process may have pushed it out.
            let is_overrun = kept.len() >= telemetry::incidents::KEPT_MAX;
            let kept = kept.iter().filter(|incident| incident.message == *message && incident.phase == *phase).count();
            if message.starts_with(MESSAGE) && kept != 1 && !(is_overrun && kept == 0) {
                return Some(format!("the panic in {phase} left {kept} incidents"));
            }
        }
        let (phase, message) = recorded.first()?;
        Some(format!("panicked in {phase}: {message}"))
    }
}
