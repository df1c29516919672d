//! What happened in a scenario, line by line, and where two accounts of it differ.

use std::fmt;

/// Lines that are shown before a difference.
const CONTEXT_LINES: usize = 6;

/// What happened in one scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub name: String,
    /// All but the heading and the empty line at the end.
    pub lines: Vec<String>,
}

impl Trace {
    /// The traces of a file.
    ///
    /// # Errors
    /// The number of a line, counted from 1, that stands before the first heading.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, usize> {
        let mut traces: Vec<Self> = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
            match (line.strip_prefix("== "), traces.last_mut()) {
                (Some(name), _) => traces.push(Self { name: name.to_owned(), lines: Vec::new() }),
                (None, Some(trace)) => trace.lines.push(line.to_owned()),
                (None, None) => return Err(number),
            }
        }
        Ok(traces)
    }

    /// Whether a start was held in it.
    pub fn is_held(&self) -> bool {
        self.lines.iter().any(|line| line == "= held")
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "== {}", self.name)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f)
    }
}

/// What counts when two traces are compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Comparison {
    ignored: &'static [char],
    reasons: Reasons,
}

/// How exit reasons are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reasons {
    /// As they are written.
    #[default]
    Exact,
    /// As one of `orderly`, `killed` and `abnormal`.
    Kinds,
}

impl Comparison {
    /// Every line counts, to the letter.
    pub const EXACT: Self = Self { ignored: &[], reasons: Reasons::Exact };

    /// Leaves out the lines that begin with one of these: `!` reports, `~` states, `=` replies, `>` titles.
    pub const fn ignoring(self, ignored: &'static [char]) -> Self {
        Self { ignored, ..self }
    }

    /// Compares exit reasons in this way.
    pub const fn reasons(self, reasons: Reasons) -> Self {
        Self { reasons, ..self }
    }

    /// Where the two differ first, if they do.
    pub fn difference(self, expected: &Trace, actual: &Trace) -> Option<Difference> {
        let (expected_lines, actual_lines) = (self.lines(expected), self.lines(actual));
        let same = expected_lines.iter().zip(&actual_lines).take_while(|(expected, actual)| expected == actual).count();
        let (expected_line, actual_line) = (expected_lines.get(same), actual_lines.get(same));
        (expected_line != actual_line).then(|| Difference {
            scenario: expected.name.clone(),
            before: expected_lines[same.saturating_sub(CONTEXT_LINES)..same].to_vec(),
            expected: expected_line.cloned(),
            actual: actual_line.cloned(),
        })
    }

    fn lines(self, trace: &Trace) -> Vec<String> {
        let counts = |line: &&String| !line.starts_with(self.ignored);
        trace.lines.iter().filter(counts).map(|line| self.line(line)).collect()
    }

    fn line(self, line: &str) -> String {
        let exit = || line.strip_prefix("exit ")?.split_once(' ');
        match exit() {
            Some((who, reason)) if self.reasons == Reasons::Kinds => format!("exit {who} {}", kind(reason)),
            _ => line.to_owned(),
        }
    }
}

/// `orderly`, `killed` or `abnormal`.
fn kind(reason: &str) -> &'static str {
    match reason {
        "normal" | "shutdown" => "orderly",
        "killed" => "killed",
        _ if reason.starts_with("shutdown:") => "orderly",
        _ => "abnormal",
    }
}

/// Where two traces differ first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub scenario: String,
    /// Lines that are the same in both.
    pub before: Vec<String>,
    /// None where the trace has ended.
    pub expected: Option<String>,
    /// None where the trace has ended.
    pub actual: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "== {}", self.scenario)?;
        self.before.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        writeln!(f, "  - {}", self.expected.as_deref().unwrap_or("(end)"))?;
        write!(f, "  + {}", self.actual.as_deref().unwrap_or("(end)"))
    }
}
