//! Scenario files, read.

use super::{
    check::{self, Fault},
    options::{ChildOptions, Shutdown, StartPlan, StartStep, StopManner, SupervisorOptions, Word},
    scenario::{Action, Declaration, Declared, Place, Reason, Scenario},
};

/// Why a file is not one of scenarios.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// Counted from 1; of a scenario as a whole, where it begins.
    pub line: usize,
    pub problem: Problem,
}

/// What is wrong in a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("`{0}` is neither a declaration nor an action")]
    UnknownStatement(String),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("`{0}` is one word too many")]
    TooMuch(String),
    #[error("`{0}` stands before the first scenario")]
    NoScenario(String),
    #[error("`{0}` is no path")]
    BadPath(String),
    #[error("`{0}` is not of the form KEY=VALUE")]
    BadOption(String),
    #[error("there is no option `{0}` here")]
    UnknownOption(String),
    #[error("the option `{0}` is given twice")]
    OptionTwice(String),
    #[error("`{value}` is no value of {key}")]
    BadValue { key: String, value: String },
    #[error(transparent)]
    Unsound(#[from] Fault),
}

/// All scenarios of a file.
///
/// # Errors
/// The first line that is not understood, or the first scenario that the format does not allow.
pub fn parse(text: &str) -> Result<Vec<Scenario>, ParseError> {
    let mut begun: Vec<(usize, Scenario)> = Vec::new();
    for (line, statement) in (1..).zip(text.lines()) {
        let words: Vec<&str> = statement.split('#').next().unwrap_or_default().split_whitespace().collect();
        take_line(line, &words, &mut begun).map_err(|problem| ParseError { line, problem })?;
    }
    let checked = begun.into_iter().map(|(line, scenario)| match check::check(&scenario) {
        Ok(()) => Ok(scenario),
        Err(fault) => Err(ParseError { line, problem: fault.into() }),
    });
    checked.collect()
}

fn take_line(line: usize, words: &[&str], begun: &mut Vec<(usize, Scenario)>) -> Result<(), Problem> {
    let Some((verb, rest)) = words.split_first() else { return Ok(()) };
    if *verb == "scenario" {
        let name = only(rest, "the name")?.to_owned();
        begun.push((line, Scenario { name, declarations: Vec::new(), actions: Vec::new() }));
        return Ok(());
    }
    let (_, scenario) = begun.last_mut().ok_or_else(|| Problem::NoScenario((*verb).to_owned()))?;
    match *verb {
        "sup" | "child" => scenario.declarations.push(declaration(verb, rest)?),
        _ => scenario.actions.push(action(verb, rest)?),
    }
    Ok(())
}

fn declaration(verb: &str, words: &[&str]) -> Result<Declaration, Problem> {
    let (path, options) = words.split_first().ok_or(Problem::Missing("the path"))?;
    let declared = match verb {
        "sup" => Declared::Supervisor(supervisor_options(options)?),
        _ => Declared::Child(child_options(options)?),
    };
    Ok(Declaration { place: place(path)?, declared })
}

fn action(verb: &str, words: &[&str]) -> Result<Action, Problem> {
    let only_place = || only(words, "the path").and_then(place);
    match verb {
        "crash" if words.is_empty() => Err(Problem::Missing("the path")),
        "crash" => words.iter().map(|word| place(word)).collect::<Result<_, _>>().map(Action::Crash),
        "exit" => {
            let (path, reason) = words.split_first().ok_or(Problem::Missing("the path"))?;
            Ok(Action::Exit(place(path)?, Reason::parse(only(reason, "the reason")?)))
        }
        "kill" => only_place().map(Action::Kill),
        "terminate" => only_place().map(Action::Terminate),
        "restart" => only_place().map(Action::Restart),
        "delete" => only_place().map(Action::Delete),
        "spawn" => only_place().map(Action::Spawn),
        "count" => only_place().map(Action::Count),
        "add" => {
            let (path, options) = words.split_first().ok_or(Problem::Missing("the path"))?;
            let (place, written) = (place(path)?, options.join(" "));
            Ok(Action::Add { place, options: child_options(options)?, written })
        }
        "advance" => {
            let millis = number("advance", only(words, "the time in milliseconds")?)?;
            Ok(Action::Advance { millis })
        }
        "release" => nothing(words).map(|()| Action::Release),
        "stop" => nothing(words).map(|()| Action::Stop),
        _ => Err(Problem::UnknownStatement(verb.to_owned())),
    }
}

fn child_options(words: &[&str]) -> Result<ChildOptions, Problem> {
    let mut options = ChildOptions::default();
    for (key, value) in pairs(words)? {
        match key {
            "restart" => options.restart = word(key, value)?,
            "shutdown" => options.shutdown = shutdown(value)?,
            "significant" => options.significant = truth(key, value)?,
            "start" => options.start = plan(value)?,
            "stop" => options.stop = manner(value)?,
            _ => return Err(Problem::UnknownOption(key.to_owned())),
        }
    }
    Ok(options)
}

fn supervisor_options(words: &[&str]) -> Result<SupervisorOptions, Problem> {
    let mut options = SupervisorOptions::default();
    for (key, value) in pairs(words)? {
        match key {
            "strategy" => options.strategy = word(key, value)?,
            "intensity" => options.intensity = number(key, value)?,
            "period" => options.period_secs = number(key, value)?,
            "auto_shutdown" => options.auto_shutdown = word(key, value)?,
            "restart" => options.restart = word(key, value)?,
            "significant" => options.significant = truth(key, value)?,
            "start" => options.start = plan(value)?,
            // Any other makes the order depend on a race.
            "shutdown" if value == "infinity" => {}
            "shutdown" => return Err(bad_value(key, value)),
            _ => return Err(Problem::UnknownOption(key.to_owned())),
        }
    }
    Ok(options)
}

fn pairs<'a>(words: &[&'a str]) -> Result<Vec<(&'a str, &'a str)>, Problem> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| Problem::BadOption((*word).to_owned()))?;
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(Problem::OptionTwice(key.to_owned()));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn shutdown(value: &str) -> Result<Shutdown, Problem> {
    match value {
        "infinity" => Ok(Shutdown::Infinity),
        "brutal_kill" => Ok(Shutdown::BrutalKill),
        millis => number("shutdown", millis).map(Shutdown::Millis),
    }
}

fn manner(value: &str) -> Result<StopManner, Problem> {
    match value {
        "clean" => Ok(StopManner::Clean),
        "normal" => Ok(StopManner::Normal),
        "bad" => Ok(StopManner::Bad),
        "hang" => Ok(StopManner::Hang),
        _ => {
            let millis = value.strip_prefix("slow:").ok_or_else(|| bad_value("stop", value))?;
            number("stop", millis).map(StopManner::Slow)
        }
    }
}

fn plan(value: &str) -> Result<StartPlan, Problem> {
    let (steps, repeats) = value.strip_suffix('*').map_or((value, false), |steps| (steps, true));
    let steps = steps.split(',').map(|step| word::<StartStep>("start", step)).collect::<Result<_, _>>()?;
    Ok(StartPlan { steps, repeats })
}

fn word<W: Word>(key: &str, value: &str) -> Result<W, Problem> {
    W::of_word(value).ok_or_else(|| bad_value(key, value))
}

fn number<N: std::str::FromStr>(key: &str, value: &str) -> Result<N, Problem> {
    value.parse().map_err(|_| bad_value(key, value))
}

fn truth(key: &str, value: &str) -> Result<bool, Problem> {
    number(key, value)
}

fn place(word: &str) -> Result<Place, Problem> {
    Place::parse(word).ok_or_else(|| Problem::BadPath(word.to_owned()))
}

fn bad_value(key: &str, value: &str) -> Problem {
    Problem::BadValue { key: key.to_owned(), value: value.to_owned() }
}

fn only<'a>(words: &[&'a str], what: &'static str) -> Result<&'a str, Problem> {
    let (first, rest) = words.split_first().ok_or(Problem::Missing(what))?;
    nothing(rest).map(|()| *first)
}

fn nothing(words: &[&str]) -> Result<(), Problem> {
    words.first().map_or(Ok(()), |word| Err(Problem::TooMuch((*word).to_owned())))
}
