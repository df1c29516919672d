//! A supervisor that panics, is killed or hangs, and a tree that is stopped, at every moment of a life.
//!
//! The moments are the events, and what lies between: the same script is played again and again, and each time the blow
//! falls after the next event, until the script ends before its turn comes.
#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

mod common;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use common::{Journal, Manners, Message, SECOND, address, generous, ill_mannered};
use supervision::{
    Address, Backoff, ChildSpec, Event, EventKind, Exit, OperationError, Shutdown, Status, StopOutcome, StopReport,
    Strategy, SupervisorSpec, TaskGroup, Tree,
};
use tokio::sync::mpsc;

/// What befalls the tree, and whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Panic(&'static str),
    Kill(&'static str),
    /// It hangs, and is stopped with its tree.
    Hang(&'static str),
    Stop,
}

/// The workers, in start order.
const WORKERS: [&str; 5] = ["sup.a", "sup.b", "sup.inner.x", "sup.inner.y", "sup.c"];

/// How a tree stops in which all run.
const REPORT: [&str; 7] = ["sup.c", "sup.inner.y", "sup.inner.x", "sup.inner", "sup.b", "sup.a", "sup"];

/// The start and the stop of a worker.
const TAKES: Duration = Duration::from_millis(10);

type Addresses = BTreeMap<&'static str, Address<Message>>;

/// The supervisor to be struck: a group, one member of which waits before it is started again, with another supervisor in it.
fn sup(journal: &Journal, addresses: &Addresses) -> ChildSpec {
    let worker = |path: &'static str| {
        let manners = Manners { start_takes: TAKES, stop_takes: TAKES, ..Manners::default() };
        let id = path.rsplit('.').next().unwrap();
        ill_mannered(id, journal, &addresses[path], manners).stop_within(Shutdown::Within(SECOND))
    };
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne)
        .intensity(generous())
        .child(worker("sup.inner.x"))
        .child(worker("sup.inner.y"));
    let sup = SupervisorSpec::new("sup", Strategy::OneForAll)
        .intensity(generous())
        .child(worker("sup.a"))
        .child(worker("sup.b").backoff(Backoff { jitter: 0.0, ..Backoff::default() }))
        .child(ChildSpec::supervisor(inner).backoff(Backoff::NONE))
        .child(worker("sup.c"));
    ChildSpec::supervisor(sup).backoff(Backoff::NONE).stop_within(Shutdown::Within(5 * SECOND))
}

/// One life of the tree.
struct Life {
    tree: Tree,
    /// What the workers and the events say, and when the blow fell.
    journal: Journal,
    addresses: Addresses,
    script: TaskGroup,
    events: mpsc::UnboundedReceiver<usize>,
}

impl Life {
    async fn begin() -> Self {
        let (journal, script) = (Journal::default(), TaskGroup::new("script"));
        let addresses: Addresses = WORKERS.into_iter().map(|path| (path, address(path))).collect();
        let (tell, events) = mpsc::unbounded_channel();
        let (written, count) = (journal.clone(), AtomicUsize::new(0));
        let observer = move |event: &Event| {
            written.write(line_of(event));
            // Nobody listens any more when the blow has fallen.
            let _ = tell.send(count.fetch_add(1, SeqCst) + 1);
        };
        let root = SupervisorSpec::new("root", Strategy::OneForOne).intensity(generous());
        let tree = Tree::options().observer(observer).start(root).await.unwrap();
        Self { tree, journal, addresses, script, events }
    }

    /// All that happens to the tree, but for the blow: the boot, the wait, stop and start of the group, an end in the inner
    /// supervisor, a restart by hand, and the stop and start of all.
    fn play(&self) {
        let (tree, addresses) = (self.tree.clone(), self.addresses.clone());
        let spec = sup(&self.journal, &self.addresses);
        self.script.spawn("script", async move {
            // Whatever the blow makes of an operation, it is answered.
            let _ = tree.add_child("/", spec).await;
            tokio::time::sleep(SECOND).await;
            let _ = addresses["sup.b"].try_send(Message::Panic);
            tokio::time::sleep(5 * SECOND).await;
            let _ = tree.kill_child("sup.inner.x").await;
            tokio::time::sleep(SECOND).await;
            let _ = tree.restart("sup.c").await;
            let _ = tree.stop_child("sup").await;
            let _ = tree.start_child("sup").await;
            tokio::time::sleep(5 * SECOND).await;
        });
    }

    /// Waits for the moment, or for the end of the script; true if the moment came.
    async fn moment_comes(&mut self, moment: usize) -> bool {
        loop {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => if event == moment { return true },
                _ = until_empty(&self.script) => return false,
            }
        }
    }

    /// Strikes, if that can still be: what starts or stops is not struck, and says so.
    async fn strike(&self, blow: Blow) -> Result<(), OperationError> {
        self.journal.write("blow");
        match blow {
            Blow::Panic("/") => {
                self.tree.inject_panic("/").await?;
                // A stop would come first.
                self.tree.ended().await;
                Ok(())
            }
            Blow::Panic(path) => self.tree.inject_panic(path).await,
            Blow::Kill(path) => self.tree.kill_child(path).await,
            Blow::Hang(path) => self.tree.inject_hang(path).await,
            Blow::Stop => Ok(()),
        }
    }

    /// The end of the tree: the report, and all that was written down.
    async fn end(self) -> (Exit, StopReport, Vec<String>) {
        self.tree.stop().await;
        let ended = self.tree.ended().await;
        assert!(self.script.stop(200 * SECOND).await.is_empty());
        for address in self.addresses.values() {
            assert!(matches!(address.try_send(Message::Fail), Err(supervision::SendError::Down { .. })));
        }
        (ended.exit, ended.report, self.journal.take())
    }
}

fn line_of(event: &Event) -> String {
    let what = match &event.kind {
        EventKind::Exited { .. } => "exited".to_owned(),
        EventKind::Stopped { outcome, .. } => format!("stopped {outcome:?}"),
        _ => "event".to_owned(),
    };
    format!("{what} {}", event.path)
}

async fn until_empty(script: &TaskGroup) {
    while !script.wait(10_000 * SECOND).await.is_empty() {}
}

/// Plays one life with one blow; false if the script ended before its moment came.
async fn survives(blow: Blow, moment: usize, delay: Duration) -> bool {
    let tasks = alive_tasks();
    let mut life = Life::begin().await;
    life.play();
    let came = life.moment_comes(moment).await;
    tokio::time::sleep(delay).await;
    let context = format!("{blow:?} {delay:?} after event {moment}");
    let struck = came && life.strike(blow).await.is_ok();
    let ends_tree = matches!(blow, Blow::Panic("/") | Blow::Hang(_) | Blow::Stop);
    if !(struck && ends_tree) {
        until_empty(&life.script).await;
        all_are_up(&life.tree, &context);
    }
    let (exit, report, lines) = life.end().await;
    let expected = if struck && blow == Blow::Panic("/") { "panic" } else { "shutdown" };
    assert_eq!(exit.cause(), expected, "{context}");
    all_have_ended_in_order(&lines, &context);
    report_is_complete(&report, &lines, struck && ends_tree, &context);
    if struck && let Blow::Panic(path) | Blow::Kill(path) = blow {
        ended_in_order(path, matches!(blow, Blow::Panic(_)), &lines, &context);
    }
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(alive_tasks(), tasks, "{context}: tasks are left");
    came
}

/// It was started again by its own supervisor, with all its children.
fn all_are_up(tree: &Tree, context: &str) {
    let snapshot = tree.snapshot();
    let nodes = snapshot.walk();
    assert_eq!(nodes.len(), 8, "{context}");
    for node in nodes {
        assert_eq!(node.status, Status::Up, "{context}: {}", node.path);
    }
}

/// No incarnation began before the one before it had ended, and each of them did end.
fn all_have_ended_in_order(lines: &[String], context: &str) {
    for path in WORKERS {
        let own = lines.iter().filter_map(|line| {
            let (verb, name) = line.split_once(' ')?;
            let (of, number) = name.split_once('#')?;
            (of == path && verb != "stop").then_some((verb, number))
        });
        let own: Vec<_> = own.collect();
        for life in own.chunks(2) {
            let [("start", began), ("drop", ended)] = life else { panic!("{context}: {path}: {own:?}") };
            assert_eq!(began, ended, "{context}");
        }
    }
}

/// All is stopped in the exact reverse; whoever lived when the tree was struck is reported, dead or alive.
fn report_is_complete(report: &StopReport, lines: &[String], is_struck: bool, context: &str) {
    let reported: Vec<&str> = report.children.iter().map(|child| child.path.as_str()).collect();
    assert!(report.children.iter().all(|child| child.outcome != StopOutcome::Leaked), "{context}: {report:?}");
    if !is_struck {
        assert_eq!(reported, REPORT, "{context}");
        return;
    }
    let places: Vec<usize> = reported.iter().map(|path| place(&REPORT, path)).collect();
    assert!(places.is_sorted_by(|a, b| a < b), "{context}: {reported:?}");
    let blow = place_of_blow(lines);
    for path in WORKERS {
        let verb_of = |line: &&String| line.contains(&format!(" {path}#"));
        let lives = lines[..blow].iter().rfind(verb_of).is_some_and(|line| !line.starts_with("drop"));
        assert!(!lives || reported.contains(&path), "{context}: {path} is missing in {reported:?}");
    }
}

/// Between the blow and the end of the supervisor its workers end, the last one first; gently, if there is time.
fn ended_in_order(path: &str, is_gentle: bool, lines: &[String], context: &str) {
    let after = &lines[place_of_blow(lines)..];
    let is_end = |line: &String| {
        let (what, whose) = line.rsplit_once(' ').unwrap_or_default();
        whose == path && (what == "exited" || what.starts_with("stopped"))
    };
    let end = after.iter().position(is_end).unwrap_or(after.len());
    let below = if path == "/" { String::new() } else { format!("{path}.") };
    let dropped = after[..end].iter().filter_map(|line| line.strip_prefix("drop ")?.split('#').next());
    let dropped: Vec<&str> = dropped.filter(|worker| worker.starts_with(&below)).collect();
    let places: Vec<usize> = dropped.iter().map(|worker| place(&WORKERS, worker)).collect();
    assert!(places.is_sorted_by(|a, b| a > b), "{context}: {dropped:?}");
    let killed = after[..end].iter().any(|line| line.starts_with("stopped Killed"));
    assert!(!(is_gentle && killed), "{context}: {after:?}");
}

fn place_of_blow(lines: &[String]) -> usize {
    lines.iter().position(|line| line == "blow").unwrap()
}

fn place(order: &[&str], path: &str) -> usize {
    order.iter().position(|known| *known == path).unwrap()
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Strikes at each moment of the script: right after each event, and in the middle of what follows it.
async fn survives_always(blow: Blow) {
    for delay in [Duration::ZERO, TAKES / 2] {
        let mut moment = 1;
        while survives(blow, moment, delay).await {
            moment += 1;
        }
        assert!(moment > 30, "only {moment} moments");
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_panics_at_any_moment_stops_its_children_in_order_and_is_started_again() {
    survives_always(Blow::Panic("sup")).await;
    survives_always(Blow::Panic("sup.inner")).await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_killed_at_any_moment_takes_its_children_with_it_and_is_started_again() {
    survives_always(Blow::Kill("sup")).await;
    survives_always(Blow::Kill("sup.inner")).await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_hangs_at_any_moment_is_killed_when_the_tree_stops_and_its_children_are_reported() {
    survives_always(Blow::Hang("sup")).await;
    survives_always(Blow::Hang("sup.inner")).await;
}

#[tokio::test(start_paused = true)]
async fn a_root_that_panics_at_any_moment_stops_all_in_order() {
    survives_always(Blow::Panic("/")).await;
}

#[tokio::test(start_paused = true)]
async fn a_tree_may_be_stopped_at_any_moment() {
    survives_always(Blow::Stop).await;
}
