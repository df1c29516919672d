//! Cases from a seed.

use std::time::Duration;

use fastrand::Rng;
use supervision::{AutoShutdown, Backoff, GiveUpAs, GroupRestart, Intensity, OnStuck, Restart, Shutdown, Strategy};

use super::case::{Act, Case, Conduct, Deed, Node, Operation, Order, Pace, Rules, What};

/// Levels of supervisors, the root's included.
const LEVELS: usize = 3;

/// A budget that is half of what some take.
const SHORT: Duration = Duration::from_millis(45);

const SECOND: Duration = Duration::from_secs(1);

/// The case of a seed: always the same.
pub fn generate(seed: u64, pace: Pace) -> Case {
    let mut maker = Maker { rng: Rng::with_seed(seed), pace, nodes: Vec::new(), deeds: Vec::new() };
    let most = match pace {
        Pace::Paused => maker.one_of(&[3, 8, 20, 60, 200]),
        Pace::Real => maker.one_of(&[3, 8, 30]),
    };
    let root = maker.root();
    maker.nodes.push(root);
    let children = maker.rng.usize(1..=most);
    maker.grow(children, false);
    for number in 1..maker.nodes.len() {
        if maker.nodes[number].is_added {
            maker.act(Act::Add(number));
        }
    }
    for _ in 0..maker.rng.usize(1..=60) {
        maker.something();
    }
    let ends_calmly = maker.rng.bool();
    Case { seed, pace, nodes: maker.nodes, deeds: maker.deeds, ends_calmly }
}

struct Maker {
    rng: Rng,
    pace: Pace,
    nodes: Vec<Node>,
    deeds: Vec<Deed>,
}

impl Maker {
    /// Adds children, each to a supervisor that there is already.
    fn grow(&mut self, children: usize, by_hand: bool) {
        for _ in 0..children {
            let supervisors: Vec<usize> = (0..self.nodes.len()).filter(|number| self.is_supervisor(*number)).collect();
            // Many below one, rather than few below each.
            let parent = if self.chance(50) { supervisors[supervisors.len() - 1] } else { self.one_of(&supervisors) };
            let node = self.child(parent, by_hand);
            self.nodes.push(node);
        }
    }

    fn is_supervisor(&self, number: usize) -> bool {
        matches!(self.nodes[number].what, What::Supervisor(_))
    }

    fn depth(&self, number: usize) -> usize {
        if number == 0 { 1 } else { 1 + self.depth(self.nodes[number].parent) }
    }

    fn root(&mut self) -> Node {
        let what = What::Supervisor(self.rules());
        Node {
            number: 0,
            parent: 0,
            what,
            restart: Restart::Permanent,
            shutdown: Shutdown::Infinity,
            start_budget: None,
            backoff: Backoff::NONE,
            intensity: None,
            degrades: None,
            may_fail_first: false,
            stop_group: None,
            is_significant: false,
            is_added: false,
        }
    }

    fn child(&mut self, parent: usize, by_hand: bool) -> Node {
        let can_be_supervisor = self.depth(parent) < LEVELS;
        let may_fail_first = self.chance(20);
        let what = match self.rng.u8(0..10) {
            0 | 1 if can_be_supervisor => What::Supervisor(self.rules()),
            2..=5 => What::Task(self.conduct(may_fail_first)),
            _ => What::Actor(self.conduct(may_fail_first)),
        };
        let is_supervisor = matches!(what, What::Supervisor(_));
        let restart = self.one_of(&[
            Restart::Permanent,
            Restart::Permanent,
            Restart::Permanent,
            Restart::Transient,
            Restart::Temporary,
        ]);
        let own_budget = self.chance(20);
        let intensity = own_budget.then(|| Intensity::new(self.rng.u32(0..4), self.rng.u32(1..20) * SECOND));
        let parent_node = &self.nodes[parent];
        let What::Supervisor(above) = &parent_node.what else { unreachable!("only supervisors have children") };
        let (auto, is_dynamic) =
            (above.auto_shutdown != AutoShutdown::Never, matches!(above.strategy, Strategy::Dynamic { .. }));
        let is_added = by_hand || is_dynamic;
        // In real time it is waited for: several rests, of one who is told to panic several times, must not take minutes.
        let rest = if self.pace == Pace::Paused { SECOND } else { SECOND / 10 };
        Node {
            number: self.nodes.len(),
            parent,
            what,
            restart,
            shutdown: self.shutdown(is_supervisor),
            start_budget: if is_supervisor { None } else { Some(self.start_budget(may_fail_first)) },
            backoff: self.backoff(),
            intensity,
            degrades: (own_budget && self.chance(50)).then(|| self.rng.u32(1..20) * rest),
            may_fail_first,
            stop_group: if is_added { None } else { self.stop_group(parent) },
            is_significant: auto && restart != Restart::Permanent && self.chance(30),
            is_added,
        }
    }

    /// The group of the declared child before it, or none: members are neighbours.
    fn stop_group(&mut self, parent: usize) -> Option<&'static str> {
        let siblings = || self.nodes.iter().skip(1).filter(|node| node.parent == parent && !node.is_added);
        let before = siblings().next_back().and_then(|node| node.stop_group);
        let is_new = |group: &&str| siblings().all(|node| node.stop_group != Some(*group));
        let fresh = ["io", "cpu", "net", "disk"].into_iter().find(is_new);
        match self.rng.u8(0..10) {
            0 => fresh,
            1..=5 => before,
            _ => None,
        }
    }

    fn rules(&mut self) -> Rules {
        let strategy = self.one_of(&[
            Strategy::OneForOne,
            Strategy::OneForOne,
            Strategy::OneForAll,
            Strategy::RestForOne,
            Strategy::Dynamic { max_children: 500 },
        ]);
        let is_dynamic = matches!(strategy, Strategy::Dynamic { .. });
        let (restarts, seconds) = self.one_of(&[(1, 5), (3, 5), (20, 10), (100, 60)]);
        Rules {
            strategy,
            intensity: self.chance(40).then(|| Intensity::new(restarts, seconds * SECOND)),
            auto_shutdown: match self.rng.u8(0..20) {
                0 if !is_dynamic => AutoShutdown::AnySignificant,
                1 if !is_dynamic => AutoShutdown::AllSignificant,
                _ => AutoShutdown::Never,
            },
            group_restart: if self.chance(10) { GroupRestart::All } else { GroupRestart::Running },
            give_up_as: if self.chance(10) { GiveUpAs::Shutdown } else { GiveUpAs::Failure },
            is_serial: self.chance(10),
        }
    }

    fn conduct(&mut self, fails_first: bool) -> Conduct {
        Conduct {
            start_takes: self.millis(&[0, 0, 0, 1, 30, 90]),
            stop_takes: self.millis(&[0, 0, 0, 1, 30, 90]),
            fails_to_start: self.one_of(&[0, 0, 10, 50]),
            fails_first,
            fails_to_stop: self.one_of(&[0, 0, 0, 20]),
            panics_in_drop: self.one_of(&[0, 0, 0, 10]),
            has_helper: self.chance(20),
            on_stuck: if self.chance(50) { OnStuck::Restart } else { OnStuck::Report },
        }
    }

    fn shutdown(&mut self, is_supervisor: bool) -> Shutdown {
        match self.rng.u8(0..10) {
            0 | 1 => Shutdown::BrutalKill,
            2 | 3 => Shutdown::Within(SHORT),
            4 => Shutdown::Infinity,
            _ if is_supervisor => Shutdown::Infinity,
            _ => Shutdown::Within(5 * SECOND),
        }
    }

    /// Too short for some. Mostly for those whose first failure is not that of the whole tree.
    fn start_budget(&mut self, may_fail_first: bool) -> Duration {
        let is_short = self.chance(if may_fail_first { 30 } else { 1 }) && self.pace == Pace::Paused;
        if is_short { SHORT } else { 10 * SECOND }
    }

    fn backoff(&mut self) -> Backoff {
        let unit = Duration::from_millis(if self.pace == Pace::Paused { 1000 } else { 10 });
        match self.rng.u8(0..4) {
            0 | 1 => Backoff::NONE,
            2 => Backoff::doubling(unit, 20 * unit),
            _ => Backoff { first_immediate: true, jitter: 1.0, ..Backoff::doubling(unit / 10, 5 * unit) },
        }
    }

    /// One deed on something.
    fn something(&mut self) {
        let number = self.rng.usize(0..self.nodes.len());
        let act = match self.rng.u8(0..24) {
            0..=6 => Act::Order(number, self.order()),
            7..=12 => Act::Wait(self.millis(&[0, 0, 1, 40, 500, 3000])),
            13 | 14 => Act::Operate(number, Operation::Kill),
            15 | 16 => Act::Operate(number, Operation::Panic),
            17 => Act::Operate(number, Operation::Stop),
            18 | 19 => Act::Operate(number, Operation::Start),
            20 => Act::Operate(number, Operation::Restart),
            21 => Act::Operate(number, Operation::Delete),
            _ => {
                self.grow(1, true);
                Act::Add(self.nodes.len() - 1)
            }
        };
        // A panic of the root ends all; that is worth it once in a while.
        if act == Act::Operate(0, Operation::Panic) && self.chance(90) {
            return;
        }
        self.act(act);
    }

    fn order(&mut self) -> Order {
        match self.rng.u8(0..8) {
            0..=3 => Order::Panic,
            4 => Order::Fail,
            5 | 6 => Order::Finish,
            _ => Order::Freeze(self.millis(&[10, 500, 9000])),
        }
    }

    fn act(&mut self, act: Act) {
        self.deeds.push(Deed { number: self.deeds.len(), act });
    }

    fn millis(&mut self, of: &[u64]) -> Duration {
        let millis = self.one_of(of);
        Duration::from_millis(if self.pace == Pace::Paused { millis } else { millis.div_ceil(10) })
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(0..100) < percent
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(0..of.len())]
    }
}
