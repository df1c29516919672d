//! How the supervisors and children of a scenario are declared.

use std::fmt;

/// A value that is written as one word of a fixed list.
pub trait Word: Copy + PartialEq + 'static {
    /// All values and their words.
    const WORDS: &'static [(Self, &'static str)];

    /// The value of a word.
    fn of_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(value, _)| *value)
    }

    /// The word of a value.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(value, _)| *value == self).map_or("", |(_, word)| word)
    }
}

/// What a supervisor restarts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    #[default]
    OneForOne,
    OneForAll,
    RestForOne,
    SimpleOneForOne,
}

impl Word for Strategy {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::OneForOne, "one_for_one"),
        (Self::OneForAll, "one_for_all"),
        (Self::RestForOne, "rest_for_one"),
        (Self::SimpleOneForOne, "simple_one_for_one"),
    ];
}

/// Whether the end of significant children ends their supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoShutdown {
    #[default]
    Never,
    AnySignificant,
    AllSignificant,
}

impl Word for AutoShutdown {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Never, "never"), (Self::AnySignificant, "any_significant"), (Self::AllSignificant, "all_significant")];
}

/// After which ends a child is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    #[default]
    Permanent,
    Transient,
    Temporary,
}

impl Word for Restart {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Permanent, "permanent"), (Self::Transient, "transient"), (Self::Temporary, "temporary")];
}

/// How long a child may take to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    Millis(u64),
    Infinity,
    BrutalKill,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::Millis(5000)
    }
}

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Millis(millis) => write!(f, "{millis}"),
            Self::Infinity => f.write_str("infinity"),
            Self::BrutalKill => f.write_str("brutal_kill"),
        }
    }
}

/// What a child does when it is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopManner {
    /// Ends with the reason it was asked with.
    #[default]
    Clean,
    /// Ends with `normal`.
    Normal,
    /// Ends with `bad`.
    Bad,
    /// Works that many milliseconds, and then is clean.
    Slow(u64),
    /// Does not end until it is killed.
    Hang,
}

impl fmt::Display for StopManner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => f.write_str("clean"),
            Self::Normal => f.write_str("normal"),
            Self::Bad => f.write_str("bad"),
            Self::Slow(millis) => write!(f, "slow:{millis}"),
            Self::Hang => f.write_str("hang"),
        }
    }
}

/// What one attempt to start a child comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartStep {
    #[default]
    Ok,
    Fail,
    Ignore,
    /// Blocks until it is released, then succeeds.
    HoldOk,
    /// Blocks until it is released, then fails.
    HoldFail,
}

impl StartStep {
    /// Whether it blocks.
    pub fn is_held(self) -> bool {
        matches!(self, Self::HoldOk | Self::HoldFail)
    }

    /// The same without blocking.
    pub fn released(self) -> Self {
        match self {
            Self::HoldOk => Self::Ok,
            Self::HoldFail => Self::Fail,
            other => other,
        }
    }
}

impl Word for StartStep {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Ok, "ok"),
        (Self::Fail, "fail"),
        (Self::Ignore, "ignore"),
        (Self::HoldOk, "hold_ok"),
        (Self::HoldFail, "hold_fail"),
    ];
}

/// What the attempts to start a child come to, one after the other; when it is used up, they succeed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartPlan {
    pub steps: Vec<StartStep>,
    /// The last step is that of all further attempts too.
    pub repeats: bool,
}

impl StartPlan {
    /// What the attempt of this number, counted from 0, comes to.
    pub fn attempt(&self, number: usize) -> StartStep {
        let last = self.steps.last().filter(|_| self.repeats);
        self.steps.get(number).or(last).copied().unwrap_or_default()
    }
}

impl fmt::Display for StartPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.steps.iter().map(|step| step.word()).collect();
        write!(f, "{}{}", words.join(","), if self.repeats { "*" } else { "" })
    }
}

/// How a worker, or a template of workers, is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChildOptions {
    pub restart: Restart,
    pub shutdown: Shutdown,
    pub significant: bool,
    pub start: StartPlan,
    pub stop: StopManner,
}

impl fmt::Display for ChildOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Self::default();
        option(f, "restart", self.restart.word(), self.restart == default.restart)?;
        option(f, "shutdown", self.shutdown, self.shutdown == default.shutdown)?;
        option(f, "significant", self.significant, !self.significant)?;
        option(f, "start", &self.start, self.start.steps.is_empty())?;
        option(f, "stop", self.stop, self.stop == default.stop)
    }
}

/// How a supervisor is declared; the last three matter below the root only, where it is a child itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisorOptions {
    pub strategy: Strategy,
    pub intensity: u32,
    pub period_secs: u64,
    pub auto_shutdown: AutoShutdown,
    pub restart: Restart,
    pub significant: bool,
    pub start: StartPlan,
}

impl Default for SupervisorOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            intensity: 1,
            period_secs: 5,
            auto_shutdown: AutoShutdown::default(),
            restart: Restart::default(),
            significant: false,
            start: StartPlan::default(),
        }
    }
}

impl SupervisorOptions {
    /// What it is as a child: it may take any time to stop, because its children do.
    pub fn as_child(&self) -> ChildOptions {
        ChildOptions {
            restart: self.restart,
            shutdown: Shutdown::Infinity,
            significant: self.significant,
            start: self.start.clone(),
            stop: StopManner::Clean,
        }
    }
}

impl fmt::Display for SupervisorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Self::default();
        option(f, "restart", self.restart.word(), self.restart == default.restart)?;
        option(f, "strategy", self.strategy.word(), self.strategy == default.strategy)?;
        option(f, "intensity", self.intensity, self.intensity == default.intensity)?;
        option(f, "period", self.period_secs, self.period_secs == default.period_secs)?;
        option(f, "auto_shutdown", self.auto_shutdown.word(), self.auto_shutdown == default.auto_shutdown)?;
        option(f, "significant", self.significant, !self.significant)?;
        option(f, "start", &self.start, self.start.steps.is_empty())
    }
}

/// Writes `KEY=VALUE` unless the value is what it is without being written.
fn option(f: &mut fmt::Formatter<'_>, key: &str, value: impl fmt::Display, is_default: bool) -> fmt::Result {
    if is_default { Ok(()) } else { write!(f, " {key}={value}") }
}
