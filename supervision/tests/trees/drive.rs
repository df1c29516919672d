//! Plays a case, and says what was wrong.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use supervision::{Event, Exit, OperationError, Path, StartError, Status, TaskGroup, Tree};
use tokio::time::timeout;

use super::{
    build,
    case::{Act, Case, Operation, Pace},
    oracles,
    tally::Tally,
    worker::Message,
    world::{Wire, World},
};

/// Longer than anything may take.
const FOR_EVER: Duration = Duration::from_secs(3000);

/// One case as it is played.
pub struct Play<'a> {
    pub case: &'a Case,
    pub world: Arc<World>,
    pub tally: Arc<Tally>,
}

/// Plays the case to its end. Answers with all that was wrong, and after it the latest events.
pub async fn play(case: &Case) -> Vec<String> {
    let tasks_before = alive_tasks();
    let play = Play { case, world: World::new(case.seed), tally: Tally::new(case) };
    let mut faults = match play.start().await {
        Ok(Some(tree)) => play.live(tree).await,
        Ok(None) => Vec::new(),
        Err(fault) => vec![fault],
    };
    faults.extend(oracles::all_ended(&play.world));
    faults.extend(play.tasks_left(tasks_before).await);
    faults.extend(play.world.faults());
    faults.extend(play.tally.faults());
    if !faults.is_empty() {
        faults.extend(play.tally.log().into_iter().map(|line| format!("  {line}")));
    }
    faults
}

impl Play<'_> {
    /// The tree, or none if it may fail to start and did.
    async fn start(&self) -> Result<Option<Tree>, String> {
        let Some(rules) = self.case.rules(0) else { return Err("there is no root".to_owned()) };
        let spec = build::supervisor(self.case, 0, rules, &self.world);
        let tally = Arc::clone(&self.tally);
        let starting = Tree::options().observer(move |event: &Event| tally.observe(event)).start(spec);
        match timeout(FOR_EVER, starting).await {
            Err(_) => Err("the start hangs".to_owned()),
            Ok(Ok(tree)) => Ok(Some(tree)),
            Ok(Err(StartError::Child { path, .. })) if self.may_fail_to_start(&path) || self.tally.has_given_up() => {
                Ok(None)
            }
            Ok(Err(error)) => Err(format!("it does not start: {error}")),
        }
    }

    fn may_fail_to_start(&self, path: &Path) -> bool {
        let node = self.case.at(path.as_str());
        node.is_some_and(|node| {
            node.conduct().is_some_and(|conduct| node.start_budget.is_some_and(|budget| budget < conduct.start_takes))
        })
    }

    async fn live(&self, tree: Tree) -> Vec<String> {
        let (operations, answers) = (TaskGroup::new("operations"), Arc::new(Mutex::new(Vec::new())));
        for deed in &self.case.deeds {
            self.act(deed.act, &tree, &operations, &answers).await;
        }
        let mut faults = operations.wait(FOR_EVER).await;
        faults.iter_mut().for_each(|operation| operation.push_str(" is never answered"));
        faults.append(&mut answers.lock().unwrap());
        if self.case.ends_calmly {
            self.world.be_calm();
            faults.extend(self.until_quiet(&tree).await);
        }
        faults.extend(self.stop(&tree).await);
        faults
    }

    async fn act(&self, act: Act, tree: &Tree, operations: &TaskGroup, answers: &Arc<Mutex<Vec<String>>>) {
        let (tree, answers) = (tree.clone(), Arc::clone(answers));
        match act {
            Act::Wait(time) => tokio::time::sleep(time).await,
            Act::Order(node, order) => match self.world.wire(node) {
                // It may be down, full or not there.
                Some(Wire::Actor(address)) => drop(address.try_send(Message::Do(order))),
                Some(Wire::Task(wire)) => drop(wire.send(order)),
                None => {}
            },
            Act::Operate(node, operation) => {
                let path = self.case.path(node);
                operations.spawn(format!("{act:?}"), async move {
                    if operate(&tree, path, operation).await == Err(OperationError::Timeout) {
                        answers.lock().unwrap().push(format!("{act:?} took too long"));
                    }
                });
            }
            Act::Add(number) => {
                let Some(node) = self.case.node(number) else { return };
                let (parent, spec) = (self.case.path(node.parent), build::child(self.case, node, &self.world));
                operations.spawn(format!("{act:?}"), async move {
                    if tree.add_child(parent, spec).await == Err(OperationError::Timeout) {
                        answers.lock().unwrap().push(format!("{act:?} took too long"));
                    }
                });
            }
        }
    }

    /// Waits until all is as it should be when nothing happens; says what is not.
    async fn until_quiet(&self, tree: &Tree) -> Vec<String> {
        let (step, steps) = match self.case.pace {
            Pace::Paused => (Duration::from_secs(10), 20),
            Pace::Real => (Duration::from_millis(20), 1000),
        };
        for _ in 0..steps {
            tokio::time::sleep(step).await;
            if oracles::unrest(self, tree).is_empty() {
                return oracles::deaf(self, tree).await;
            }
        }
        oracles::unrest(self, tree)
    }

    async fn stop(&self, tree: &Tree) -> Vec<String> {
        let before = tree.snapshot();
        let had_ended = before.status == Status::Down;
        let stop_began = self.world.tick();
        let Ok(report) = timeout(FOR_EVER, tree.stop()).await else { return vec!["the stop hangs".to_owned()] };
        let mut faults = Vec::new();
        if had_ended {
            faults.extend(self.wrong_end(&tree.ended().await.exit));
        } else {
            faults.extend(oracles::wrong_turns(self, &before, stop_began));
        }
        if self.case.ends_calmly && !had_ended {
            faults.extend(oracles::wrong_report(self.case, &before, &report));
        }
        faults.extend(oracles::leaks(&report));
        faults.extend(oracles::still_there(self, tree));
        faults.extend(self.tally.differences(&tree.snapshot()));
        faults
    }

    /// A tree ends by itself only for a reason that its specs allow.
    fn wrong_end(&self, exit: &Exit) -> Option<String> {
        let rules = self.case.rules(0)?;
        let was_told_to = self.case.deeds.iter().any(|deed| deed.act == Act::Operate(0, Operation::Panic));
        let is_right = match exit {
            Exit::Panic(_) => was_told_to,
            Exit::GaveUp { .. } => self.tally.root_gave_up(),
            Exit::Shutdown => self.tally.root_gave_up() || rules.auto_shutdown != Default::default(),
            _ => false,
        };
        (!is_right).then(|| format!("the tree ended: {exit}"))
    }

    /// Tasks that are there still, some time later.
    async fn tasks_left(&self, before: usize) -> Option<String> {
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if alive_tasks() <= before {
                return None;
            }
        }
        Some(format!("{} tasks were there before, and {} are now", before, alive_tasks()))
    }
}

async fn operate(tree: &Tree, path: Path, operation: Operation) -> Result<(), OperationError> {
    match operation {
        Operation::Kill => tree.kill_child(path).await,
        Operation::Panic => tree.inject_panic(path).await,
        Operation::Stop => tree.stop_child(path).await,
        Operation::Start => tree.start_child(path).await.map(drop),
        Operation::Restart => tree.restart(path).await.map(drop),
        Operation::Delete => tree.delete_child(path).await,
    }
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
