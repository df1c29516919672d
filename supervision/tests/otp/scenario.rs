//! A scenario: which supervisors and children there are, and what is done to them. It prints itself in the format from
//! which it is parsed.

use std::fmt;

use super::options::{ChildOptions, SupervisorOptions};

/// A place in the tree: `/` is the root, `s.x` the child `x` of its child `s`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(String);

impl Place {
    /// The root supervisor.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// The place that is written so, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = |id: &str| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (text == "/" || text.split('.').all(is_id)).then(|| Self(text.to_owned()))
    }

    /// The place of its supervisor; the root is its own.
    pub fn parent(&self) -> Self {
        self.0.rsplit_once('.').map_or_else(Self::root, |(parent, _)| Self(parent.to_owned()))
    }

    /// Its name within its supervisor.
    pub fn id(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(_, id)| id)
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// Whether it is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        let below = || self.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with('.'));
        self == other || other.is_root() || below()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a process is gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Normal,
    Shutdown,
    ShutdownWith(String),
    Killed,
    /// `crash`, `bad`, or any other word.
    Abnormal(String),
}

impl Reason {
    /// The reason of an action `crash`.
    pub fn crash() -> Self {
        Self::Abnormal("crash".to_owned())
    }

    /// The reason that is written so.
    pub fn parse(word: &str) -> Self {
        match word {
            "normal" => Self::Normal,
            "shutdown" => Self::Shutdown,
            "killed" => Self::Killed,
            _ => match word.strip_prefix("shutdown:") {
                Some(word) => Self::ShutdownWith(word.to_owned()),
                None => Self::Abnormal(word.to_owned()),
            },
        }
    }

    /// Whether it is no failure.
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::Normal | Self::Shutdown | Self::ShutdownWith(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::ShutdownWith(word) => write!(f, "shutdown:{word}"),
            Self::Killed => f.write_str("killed"),
            Self::Abnormal(word) => f.write_str(word),
        }
    }
}

/// What is declared at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declared {
    Supervisor(SupervisorOptions),
    Child(ChildOptions),
}

/// One line of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    pub place: Place,
    pub declared: Declared,
}

impl Declaration {
    /// What it is for its supervisor.
    pub fn as_child(&self) -> ChildOptions {
        match &self.declared {
            Declared::Supervisor(options) => options.as_child(),
            Declared::Child(options) => options.clone(),
        }
    }

    /// Its options if it is a supervisor.
    pub fn supervisor(&self) -> Option<&SupervisorOptions> {
        match &self.declared {
            Declared::Supervisor(options) => Some(options),
            Declared::Child(_) => None,
        }
    }
}

impl fmt::Display for Declaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.declared {
            Declared::Supervisor(options) => write!(f, "sup {}{options}", self.place),
            Declared::Child(options) => write!(f, "child {}{options}", self.place),
        }
    }
}

/// What is done to the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// These workers of one supervisor crash, all before it sees the first.
    Crash(Vec<Place>),
    /// A worker ends by itself.
    Exit(Place, Reason),
    /// A worker is killed from outside.
    Kill(Place),
    /// A child is stopped by hand.
    Terminate(Place),
    /// A stopped child is started by hand.
    Restart(Place),
    /// A stopped child is forgotten.
    Delete(Place),
    /// A worker is added to a supervisor.
    Add {
        place: Place,
        options: ChildOptions,
        /// The options as they are written, defaults or not: the trace repeats them.
        written: String,
    },
    /// An instance of the root's template is started.
    Spawn(Place),
    /// The children of a supervisor are counted.
    Count(Place),
    /// Time passes.
    Advance {
        /// How much.
        millis: u64,
    },
    /// The start that is held goes on.
    Release,
    /// The root is told to stop.
    Stop,
}

impl Action {
    /// The places it names.
    pub fn places(&self) -> &[Place] {
        match self {
            Self::Crash(places) => places,
            Self::Exit(place, _)
            | Self::Kill(place)
            | Self::Terminate(place)
            | Self::Restart(place)
            | Self::Delete(place)
            | Self::Add { place, .. }
            | Self::Spawn(place)
            | Self::Count(place) => std::slice::from_ref(place),
            Self::Advance { .. } | Self::Release | Self::Stop => &[],
        }
    }

    /// The addition of a worker, its options written as short as can be.
    pub fn add(place: Place, options: ChildOptions) -> Self {
        let written = options.to_string().trim_start().to_owned();
        Self::Add { place, options, written }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(places) => {
                f.write_str("crash")?;
                places.iter().try_for_each(|place| write!(f, " {place}"))
            }
            Self::Exit(place, reason) => write!(f, "exit {place} {reason}"),
            Self::Kill(place) => write!(f, "kill {place}"),
            Self::Terminate(place) => write!(f, "terminate {place}"),
            Self::Restart(place) => write!(f, "restart {place}"),
            Self::Delete(place) => write!(f, "delete {place}"),
            Self::Add { place, written, .. } if written.is_empty() => write!(f, "add {place}"),
            Self::Add { place, written, .. } => write!(f, "add {place} {written}"),
            Self::Spawn(place) => write!(f, "spawn {place}"),
            Self::Count(place) => write!(f, "count {place}"),
            Self::Advance { millis } => write!(f, "advance {millis}"),
            Self::Release => f.write_str("release"),
            Self::Stop => f.write_str("stop"),
        }
    }
}

/// A tree and what is done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub name: String,
    /// In start order within each supervisor.
    pub declarations: Vec<Declaration>,
    pub actions: Vec<Action>,
}

impl Scenario {
    /// What is declared at `place`.
    pub fn declared(&self, place: &Place) -> Option<&Declaration> {
        self.declarations.iter().find(|declaration| declaration.place == *place)
    }

    /// The options of the supervisor that is declared at `place`.
    pub fn supervisor(&self, place: &Place) -> Option<&SupervisorOptions> {
        self.declared(place).and_then(Declaration::supervisor)
    }

    /// What is declared directly below `place`, in start order.
    pub fn children_of(&self, place: &Place) -> impl Iterator<Item = &Declaration> {
        self.declarations.iter().filter(move |child| !child.place.is_root() && child.place.parent() == *place)
    }

    /// Whether some start is held.
    pub fn has_holds(&self) -> bool {
        let declared = self.declarations.iter().map(Declaration::as_child);
        let added = self.actions.iter().filter_map(|action| match action {
            Action::Add { options, .. } => Some(options.clone()),
            _ => None,
        });
        declared.chain(added).any(|child| child.start.steps.iter().any(|step| step.is_held()))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scenario {}", self.name)?;
        self.declarations.iter().try_for_each(|declaration| writeln!(f, "{declaration}"))?;
        self.actions.iter().try_for_each(|action| writeln!(f, "{action}"))
    }
}
