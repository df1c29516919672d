//! Assertions that say what they saw: [`ensure!`](crate::ensure), [`ensure_eq!`](crate::ensure_eq) and
//! [`unreachable_state!`](crate::unreachable_state).
//!
//! The values are left in a thread-local, from where the panic hook moves them into the capture of this very panic. They
//! are gone from there as soon as the stack unwinds, so that no later panic can find them.

use super::catch_sync;
use std::cell::RefCell;
use std::fmt::{self, Arguments, Write};

/// Fields that one assertion may have. More do not compile.
pub const FIELDS_MAX: usize = 16;

/// Bytes of one value that are kept; what is longer is cut at a character and marked.
pub const VALUE_MAX: usize = 1024;

/// Bytes of a text that are kept: of what a panic said, or an error.
pub const TEXT_MAX: usize = 4096;

/// Behind a value that was cut.
const CUT: &str = "... (cut)";

/// Panics unless the condition holds, and says what it saw: for what can only be false if this program is wrong.
///
/// ```should_panic
/// # use telemetry::ensure;
/// # struct Account { id: u64, limit: i64, state: Option<&'static str> }
/// # let (account, total) = (Account { id: 7, limit: 100, state: None }, 150);
/// ensure!(total <= account.limit, "account {} is beyond its limit", account.id;
///     total, limit = account.limit, state = ?account.state);
/// ```
///
/// The message may be left out, and so may the fields. Fields are written as those of `tracing` are: `key = value` and
/// `key = %value` by `Display`, `key = ?value` by `Debug`, and a variable may stand for both. Names may have dots. Nothing is
/// evaluated or formatted unless the condition is false. At most [`FIELDS_MAX`](crate::panic::FIELDS_MAX) fields, of
/// [`VALUE_MAX`](crate::panic::VALUE_MAX) bytes each; no secrets.
///
/// ```compile_fail
/// # let a = 1;
/// telemetry::ensure!(false; a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a); // one too many
/// ```
///
/// The message stays as it is written here. The condition's own text and the fields reach the incident (`detail`), the span
/// event (`panic.condition`, `panic.context.<key>`) and the log record (`panic.condition`, `panic.context`).
///
/// When to use it, and when a `Result`: see [`Policy`](crate::panic::Policy).
#[macro_export]
#[collapse_debuginfo(yes)]
macro_rules! ensure {
    ($condition:expr $(; $($fields:tt)*)?) => {
        if !$condition {
            $crate::__broken!(Some(stringify!($condition)), format_args!("does not hold: {}", stringify!($condition)), [], $($($fields)*)?)
        }
    };
    ($condition:expr, $message:literal $(, $argument:expr)* $(,)? $(; $($fields:tt)*)?) => {
        if !$condition {
            $crate::__broken!(Some(stringify!($condition)), format_args!($message $(, $argument)*), [], $($($fields)*)?)
        }
    };
}

/// Panics unless both are equal. As [`ensure!`](crate::ensure), with the fields `left` and `right`, by `Debug`.
///
/// ```should_panic
/// # use telemetry::ensure_eq;
/// # let (claimed, held) = (3, 2);
/// ensure_eq!(claimed, held, "a job was lost"; queue = "default");
/// ```
#[macro_export]
#[collapse_debuginfo(yes)]
macro_rules! ensure_eq {
    ($left:expr, $right:expr $(; $($fields:tt)*)?) => {
        $crate::ensure_eq!($left, $right, "not equal: {} and {}", stringify!($left), stringify!($right) $(; $($fields)*)?)
    };
    ($left:expr, $right:expr, $message:literal $(, $argument:expr)* $(,)? $(; $($fields:tt)*)?) => {
        match (&$left, &$right) {
            (left, right) => if !(*left == *right) {
                $crate::__broken!(
                    Some(concat!(stringify!($left), " == ", stringify!($right))),
                    format_args!($message $(, $argument)*),
                    [("left", format_args!("{left:?}")), ("right", format_args!("{right:?}")),],
                    $($($fields)*)?
                )
            }
        }
    };
}

/// Panics: for a branch that is reached only if this program is wrong. As [`ensure!`](crate::ensure), without a condition.
///
/// ```should_panic
/// # use telemetry::unreachable_state;
/// # let state = "closed";
/// match state {
///     "open" => {}
///     other => unreachable_state!("a socket that is neither open nor gone"; state = other),
/// }
/// ```
#[macro_export]
#[collapse_debuginfo(yes)]
macro_rules! unreachable_state {
    ($message:literal $(, $argument:expr)* $(,)? $(; $($fields:tt)*)?) => {
        $crate::__broken!(None, format_args!($message $(, $argument)*), [], $($($fields)*)?)
    };
}

/// Takes fields one by one into the list, and then fails with it. Not an interface.
#[doc(hidden)]
#[macro_export]
#[collapse_debuginfo(yes)]
macro_rules! __broken {
    ($condition:expr, $message:expr, [$($done:tt)*] $(,)?) => {{
        const _: () = assert!(
            $crate::__private::count(&$crate::__broken!(@names [$($done)*])) <= $crate::panic::FIELDS_MAX,
            "an assertion has at most 16 fields, of which `ensure_eq` needs two"
        );
        $crate::__private::broken($condition, $message, &[$($done)*])
    }};
    (@names [$(($name:expr, $value:expr),)*]) => { [$($name),*] as [&str; _] };
    ($condition:expr, $message:expr, [$($done:tt)*], $($key:ident).+ = ? $value:expr $(, $($rest:tt)*)?) => {
        $crate::__broken!($condition, $message, [$($done)* (stringify!($($key).+), format_args!("{:?}", $value)),], $($($rest)*)?)
    };
    ($condition:expr, $message:expr, [$($done:tt)*], $($key:ident).+ = % $value:expr $(, $($rest:tt)*)?) => {
        $crate::__broken!($condition, $message, [$($done)* (stringify!($($key).+), format_args!("{}", $value)),], $($($rest)*)?)
    };
    ($condition:expr, $message:expr, [$($done:tt)*], $($key:ident).+ = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__broken!($condition, $message, [$($done)* (stringify!($($key).+), format_args!("{}", $value)),], $($($rest)*)?)
    };
    ($condition:expr, $message:expr, [$($done:tt)*], ? $key:ident $(, $($rest:tt)*)?) => {
        $crate::__broken!($condition, $message, [$($done)* (stringify!($key), format_args!("{:?}", $key)),], $($($rest)*)?)
    };
    ($condition:expr, $message:expr, [$($done:tt)*], $(%)? $key:ident $(, $($rest:tt)*)?) => {
        $crate::__broken!($condition, $message, [$($done)* (stringify!($key), format_args!("{}", $key)),], $($($rest)*)?)
    };
}

/// What a failed assertion knew beyond its message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assertion {
    /// The condition, as it is written in the source.
    pub condition: Option<&'static str>,
    /// The fields, in their order.
    pub fields: Vec<(&'static str, String)>,
}

impl Assertion {
    /// Condition and fields, as an incident keeps them.
    pub(super) fn detail(&self) -> impl Iterator<Item = (String, String)> {
        let condition = self.condition.map(|text| ("condition".to_owned(), text.to_owned()));
        condition.into_iter().chain(self.fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())))
    }

    /// The fields as [`line()`].
    pub(super) fn line(&self) -> Option<String> {
        line(self.fields.iter().map(|(key, value)| (*key, value.as_str())))
    }
}

/// All in one line, `key=value`, for a log record, whose fields are fixed; none if there are none.
pub(super) fn line<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let mut line = String::new();
    for (key, value) in pairs {
        let gap = if line.is_empty() { "" } else { " " };
        let is_plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
        let _ = if is_plain { write!(line, "{gap}{key}={value}") } else { write!(line, "{gap}{key}={value:?}") };
    }
    Some(line).filter(|line| !line.is_empty())
}

thread_local! {
    static LEFT: RefCell<Option<Assertion>> = const { RefCell::new(None) };
}

/// For the panic hook: what the assertion that panics right now has left.
pub(super) fn take() -> Option<Assertion> {
    // On a thread that is ending it may be gone, and this is the panic hook.
    LEFT.try_with(RefCell::take).ok().flatten()
}

/// What is left for the hook, for as long as the stack is not unwound.
struct Left(());

impl Left {
    fn leave(assertion: Assertion) -> Self {
        LEFT.with(|left| left.replace(Some(assertion)));
        Self(())
    }
}

impl Drop for Left {
    /// Without our hook, nobody has taken it.
    fn drop(&mut self) {
        drop(take());
    }
}

/// The assertion did not hold.
#[doc(hidden)]
#[cold]
#[track_caller]
pub fn broken(condition: Option<&'static str>, message: Arguments<'_>, fields: &[(&'static str, Arguments<'_>)]) -> ! {
    // Rendered before anything is left: what is formatted is foreign code, and may panic itself.
    let message = message.to_string();
    let fields = fields.iter().map(|(key, value)| (*key, render(*value))).collect();
    let _left = Left::leave(Assertion { condition, fields });
    panic!("{message}")
}

/// How many names. Not an interface.
#[doc(hidden)]
pub const fn count(names: &[&str]) -> usize {
    names.len()
}

fn render(value: Arguments<'_>) -> String {
    let rendered = catch_sync(|| {
        let mut text = Bounded(String::new());
        match text.write_fmt(value) {
            Ok(()) => text.0,
            Err(fmt::Error) => text.0 + CUT,
        }
    });
    rendered.unwrap_or_else(|captured| format!("could not be written, it panicked: {}", captured.message))
}

/// The text as far as it is kept: whoever panics or fails may say megabytes, and it goes into every log line, span and record.
/// Cut at a character, and marked.
pub fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        text.push_str(CUT);
        text.shrink_to_fit();
    }
    text
}

/// A text that refuses to grow beyond its limit: a value's `Debug` may write megabytes.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = VALUE_MAX - self.0.len();
        let fits = text.floor_char_boundary(free);
        self.0.push_str(&text[..fits]);
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panic::{CapturedPanic, install_hook};

    fn failing(work: impl FnOnce()) -> CapturedPanic {
        install_hook();
        catch_sync(work).unwrap_err()
    }

    fn fields(panic: &CapturedPanic) -> Vec<(&str, &str)> {
        panic.assertion.fields.iter().map(|(key, value)| (*key, value.as_str())).collect()
    }

    #[test]
    fn a_condition_that_holds_evaluates_nothing_else() {
        ensure!(true, "{}", unreachable_text(); value = unreachable_text());
        ensure_eq!(1 + 1, 2, "{}", unreachable_text());
    }

    fn unreachable_text() -> &'static str {
        panic!("evaluated although the condition holds")
    }

    #[test]
    fn the_message_stays_clean_and_the_values_are_kept_apart() {
        let (total, state, job) = (7, Some("open"), "17");
        let panic = failing(
            || ensure!(total < 5, "{} of {total}", "too much"; total, ?state, %job, limit = 5, job.kind = "a b", all = ?[1, 2],),
        );
        assert_eq!((panic.message.as_str(), panic.assertion.condition), ("too much of 7", Some("total < 5")));
        let expected = [
            ("total", "7"),
            ("state", "Some(\"open\")"),
            ("job", "17"),
            ("limit", "5"),
            ("job.kind", "a b"),
            ("all", "[1, 2]"),
        ];
        assert_eq!(fields(&panic), expected);
        let line = "total=7 state=\"Some(\\\"open\\\")\" job=17 limit=5 job.kind=\"a b\" all=\"[1, 2]\"";
        assert_eq!(panic.assertion.line().as_deref(), Some(line));
    }

    #[test]
    fn the_place_is_that_of_the_assertion() {
        let mut line = 0;
        let panic = failing(|| {
            line = line!() + 1;
            ensure!(1 > 2);
        });
        assert_eq!(panic.message, "does not hold: 1 > 2");
        assert!(panic.location.as_deref().unwrap().contains(&format!("panic/ensure.rs:{line}:")));
    }

    #[test]
    fn two_that_are_not_equal_are_both_told() {
        let panic = failing(|| ensure_eq!(1 + 1, "three".len(); why = "counting"));
        assert_eq!(panic.message, "not equal: 1 + 1 and \"three\".len()");
        assert_eq!(panic.assertion.condition, Some("1 + 1 == \"three\".len()"));
        assert_eq!(fields(&panic), [("left", "2"), ("right", "5"), ("why", "counting")]);
    }

    #[test]
    fn a_branch_that_cannot_be_has_values_and_no_condition() {
        let panic = failing(|| unreachable_state!("neither {} nor closed", "open"; state = 3));
        assert_eq!((panic.message.as_str(), panic.assertion.condition), ("neither open nor closed", None));
        assert_eq!(fields(&panic), [("state", "3")]);
    }

    #[test]
    fn a_long_value_is_cut_at_a_character_and_marked() {
        let long = "ä".repeat(10_000);
        let panic = failing(|| ensure!(long.is_empty(); long = long, odd = format!("x{long}")));
        for (_, value) in fields(&panic) {
            assert!(value.len() <= VALUE_MAX + CUT.len() && value.len() > VALUE_MAX && value.ends_with("ä... (cut)"));
        }
    }

    #[test]
    fn what_a_panic_says_is_cut_at_a_character_and_marked() {
        for said in ["ä".repeat(TEXT_MAX), format!("x{}", "ä".repeat(TEXT_MAX))] {
            let captured = failing(|| std::panic::panic_any(said));
            let message = &captured.message;
            assert!(message.len() <= TEXT_MAX + CUT.len() && message.ends_with("ä... (cut)"), "{}", message.len());
        }
        assert_eq!(cut("x".repeat(TEXT_MAX)).len(), TEXT_MAX);
    }

    #[test]
    fn a_value_that_panics_when_it_is_written_costs_only_itself() {
        struct Bad;
        impl fmt::Display for Bad {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("no text")
            }
        }
        let panic = failing(|| ensure!(false, "clean"; bad = Bad, good = 1));
        assert_eq!(panic.message, "clean");
        assert_eq!(fields(&panic), [("bad", "could not be written, it panicked: no text"), ("good", "1")]);
    }

    #[test]
    fn values_never_stick_to_a_later_panic() {
        // Foreign code catches the assertion; what panics next on this thread, with the same message even, is another.
        let swallowed = || drop(std::panic::catch_unwind(|| ensure!(false, "swallowed"; stale = 1)));
        let panic = failing(|| {
            swallowed();
            panic!("swallowed")
        });
        assert_eq!(panic.assertion, Assertion::default());
        swallowed();
        assert_eq!(failing(|| panic!("later")).assertion, Assertion::default());
        let nested = failing(|| {
            drop(catch_sync(|| ensure!(false, "inner"; inner = 1)));
            ensure!(false, "outer"; outer = 2);
        });
        assert_eq!(fields(&nested), [("outer", "2")]);
    }

    #[test]
    fn values_are_gone_when_the_stack_is_unwound_though_no_hook_took_them() {
        let left = std::panic::catch_unwind(|| {
            let _left = Left::leave(Assertion { condition: Some("false"), fields: Vec::new() });
            std::panic::resume_unwind(Box::new("past the hook"));
        });
        assert!(left.is_err());
        assert_eq!(take(), None);
    }
}
