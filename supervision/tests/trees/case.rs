//! A tree and what is done to it, as data: generated from a seed, made smaller, printed, replayed.

use std::{collections::BTreeSet, fmt, time::Duration};

use supervision::{
    AutoShutdown, Backoff, GiveUpAs, GroupRestart, Intensity, OnStuck, Path, Restart, Shutdown, Strategy,
};

/// On whose clock a case is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One thread, and time stands still while anything is left to do.
    Paused,
    /// Several threads, and the clock on the wall.
    Real,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub seed: u64,
    pub pace: Pace,
    /// The root is number 0; a parent comes before its children.
    pub nodes: Vec<Node>,
    pub deeds: Vec<Deed>,
    /// Whether all is left in peace before the tree is stopped, or it is stopped in the middle of things.
    pub ends_calmly: bool,
}

#[derive(Clone, Debug)]
pub struct Node {
    /// Stays when others are dropped from the case.
    pub number: usize,
    /// The number of its supervisor; the root's own is its own.
    pub parent: usize,
    pub what: What,
    pub restart: Restart,
    pub shutdown: Shutdown,
    pub start_budget: Option<Duration>,
    pub backoff: Backoff,
    pub intensity: Option<Intensity>,
    pub degrades: Option<Duration>,
    pub may_fail_first: bool,
    pub stop_group: Option<&'static str>,
    pub is_significant: bool,
    /// Not declared, but added by a deed.
    pub is_added: bool,
}

#[derive(Clone, Debug)]
pub enum What {
    Supervisor(Rules),
    Actor(Conduct),
    Task(Conduct),
}

#[derive(Clone, Debug)]
pub struct Rules {
    pub strategy: Strategy,
    pub intensity: Option<Intensity>,
    pub auto_shutdown: AutoShutdown,
    pub group_restart: GroupRestart,
    pub give_up_as: GiveUpAs,
    pub is_serial: bool,
}

/// How a worker behaves by itself. Chances are in percent, and drawn anew for each incarnation.
#[derive(Clone, Debug)]
pub struct Conduct {
    pub start_takes: Duration,
    pub stop_takes: Duration,
    pub fails_to_start: u64,
    /// At its very first start too.
    pub fails_first: bool,
    pub fails_to_stop: u64,
    pub panics_in_drop: u64,
    /// It spawns a task of its own.
    pub has_helper: bool,
    pub on_stuck: OnStuck,
}

#[derive(Clone, Debug)]
pub struct Deed {
    /// Stays when others are dropped from the case.
    pub number: usize,
    pub act: Act,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Wait(Duration),
    Order(usize, Order),
    Operate(usize, Operation),
    Add(usize),
}

/// What a worker is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Panic,
    Fail,
    Finish,
    /// To stand still, with a message in hand or without a beat.
    Freeze(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Kill,
    Panic,
    Stop,
    Start,
    Restart,
    Delete,
}

impl Case {
    pub fn node(&self, number: usize) -> Option<&Node> {
        self.nodes.iter().find(|node| node.number == number)
    }

    pub fn children(&self, number: usize) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.number != 0 && node.parent == number)
    }

    pub fn path(&self, number: usize) -> Path {
        if number == 0 {
            return Path::root();
        }
        let parent = self.node(number).map_or(0, |node| node.parent);
        self.path(parent).child(&Node::id(number))
    }

    /// The node at a path; none for the root and for what is no node, as a worker's helper.
    pub fn at(&self, path: &str) -> Option<&Node> {
        self.node(path.rsplit('.').next()?.strip_prefix('n')?.parse().ok()?)
    }

    /// The numbers from the node up to the root's child.
    pub fn lineage(&self, number: usize) -> Vec<usize> {
        std::iter::successors(self.node(number), |node| self.node(node.parent))
            .map(|node| node.number)
            .take_while(|number| *number != 0)
            .collect()
    }

    pub fn rules(&self, number: usize) -> Option<&Rules> {
        match &self.node(number)?.what {
            What::Supervisor(rules) => Some(rules),
            What::Actor(_) | What::Task(_) => None,
        }
    }

    /// Whether somebody tries to delete the node.
    pub fn deletes(&self, number: usize) -> bool {
        self.deeds.iter().any(|deed| deed.act == Act::Operate(number, Operation::Delete))
    }

    /// The case with these nodes and deeds only, and without what would dangle then.
    pub fn only(&self, nodes: &BTreeSet<usize>, deeds: &BTreeSet<usize>) -> Self {
        let kept = |number: &usize| *number == 0 || self.lineage(*number).iter().all(|above| nodes.contains(above));
        let nodes: Vec<Node> = self.nodes.iter().filter(|node| kept(&node.number)).cloned().collect();
        let deeds = self.deeds.iter().filter(|deed| deeds.contains(&deed.number));
        let deeds = deeds.filter(|deed| deed.act.node().is_none_or(|number| kept(&number))).cloned().collect();
        Self { nodes, deeds, ..self.clone() }
    }
}

impl Node {
    pub fn id(number: usize) -> String {
        format!("n{number}")
    }

    pub fn conduct(&self) -> Option<&Conduct> {
        match &self.what {
            What::Actor(conduct) | What::Task(conduct) => Some(conduct),
            What::Supervisor(_) => None,
        }
    }
}

impl Act {
    pub fn node(&self) -> Option<usize> {
        match self {
            Self::Wait(_) => None,
            Self::Order(node, _) | Self::Operate(node, _) | Self::Add(node) => Some(*node),
        }
    }
}

/// How to play it again, and what it is.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: Vec<usize>| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let nodes = list(self.nodes.iter().map(|node| node.number).collect());
        let deeds = list(self.deeds.iter().map(|deed| deed.number).collect());
        writeln!(f, "PACE={:?} SEED={} NODES={nodes} DEEDS={deeds}", self.pace, self.seed)?;
        for node in &self.nodes {
            writeln!(f, "  {} {node:?}", self.path(node.number))?;
        }
        for deed in &self.deeds {
            writeln!(f, "  {deed:?}")?;
        }
        write!(f, "  and then the stop, {}", if self.ends_calmly { "in peace" } else { "in the middle of things" })
    }
}
