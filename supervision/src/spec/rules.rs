//! The rules by which a supervisor treats its children. Each that departs from Erlang/OTP says so, and which value is OTP's.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// When a child that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always.
    Permanent,
    /// After a failure only.
    Transient,
    /// Never; its spec is forgotten when it ends.
    Temporary,
}

/// What a child may take to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// It is asked, and killed after this long.
    Within(Duration),
    /// It is asked and waited for, however long that takes. For supervisors, whose children have budgets.
    Infinity,
    /// It is killed at once.
    BrutalKill,
}

impl Serialize for Shutdown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Within(budget) => crate::report::as_millis(budget, serializer),
            Self::Infinity => serializer.serialize_str("infinity"),
            Self::BrutalKill => serializer.serialize_str("brutal_kill"),
        }
    }
}

/// Which siblings share a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// None: only the failed child is started again.
    OneForOne,
    /// All: they are stopped in reverse order, and all are started in order.
    OneForAll,
    /// Those after it in start order.
    RestForOne,
    /// As [`Strategy::OneForOne`], for children that come and go at run time; they stop all at once.
    Dynamic {
        /// The most children at a time.
        max_children: usize,
    },
}

/// Whether the end of significant children ends their supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoShutdown {
    /// It does not.
    #[default]
    Never,
    /// The first significant child that ends for good ends it.
    AnySignificant,
    /// The last significant child that ends for good ends it.
    AllSignificant,
}

/// What follows when a child has used up its own restart budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGiveUp {
    /// Its supervisor gives up with it: all siblings stop and the failure climbs the tree.
    Escalate,
    /// It is shown as degraded and tried again for ever, every `retry` (less up to half of it, at random). Each try still
    /// counts against the budget that all children share, if there is one.
    Degrade {
        /// The slow beat of the further tries.
        retry: Duration,
    },
}

/// How a supervisor ends that gave up.
///
/// In OTP it ends with `shutdown`, which is orderly: a transient supervisor that gave up is silently not started again.
/// Here that is [`GiveUpAs::Shutdown`], and not the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GiveUpAs {
    /// As [`Exit::GaveUp`](crate::Exit::GaveUp), which is a failure.
    #[default]
    Failure,
    /// As [`Exit::Shutdown`](crate::Exit::Shutdown). OTP's rule.
    Shutdown,
}

/// Which members a restart of the whole group starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupRestart {
    /// Not those that an operator stopped, nor those that came to their end: neither a decision nor finished work is undone
    /// because a sibling failed.
    #[default]
    Running,
    /// All but temporary ones. OTP's rule.
    All,
}

/// What follows when a child fails at its very first start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstStart {
    /// Its supervisor fails with it. Right for what only a change of the configuration can cure. OTP's rule.
    #[default]
    Fail,
    /// It counts as a restart that failed: the others go on, and it is tried again after its backoff, when all have started.
    Retry,
}

/// What follows when a child is alive but stuck: a loop that promised to beat does not, or one message is in hand for longer
/// than [`ChildSpec::message_within`](crate::ChildSpec::message_within).
///
/// Either way it is an event, a line in the log and counted. OTP knows no stuck child; it is [`OnStuck::Report`] with no
/// heartbeat declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStuck {
    /// Nothing.
    #[default]
    Report,
    /// It is stopped, within its budget, and started again as after a failure. One that does not yield cannot be ended: it is
    /// reported as leaked, and started when it has ended after all.
    Restart,
}
