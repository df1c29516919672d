//! Pages whose commands are played literally: blocks fenced as `console`, their commands by `bash`, their answers line
//! by line.
//!
//! Numbers, ids and times differ from day to day, so digits and ids are compared as such and not by value. A line `...`
//! stands for any lines, and `...` within a line for anything. `^C` is a SIGINT to the command that runs in the
//! foreground. A command that ends with `\` goes on in the next line; what comes after `   #` is for people.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Ended, Process};

/// A command of a page and the lines that it shows below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// As it is typed.
    pub command: String,
    /// What it prints.
    pub expected: Vec<String>,
}

/// The steps of each block of `page` that is fenced as `console`.
///
/// # Panics
///
/// As [`steps`].
pub fn blocks(page: &str) -> Vec<Vec<Step>> {
    let blocks = page.split("```console\n").skip(1).map(|block| block.split("\n```").next().unwrap_or_default());
    blocks.map(steps).collect()
}

/// The steps of one block.
///
/// # Panics
///
/// If it begins with anything but a command.
pub fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => {
                let command = command.split("   #").next().unwrap_or_default().trim_end().to_owned();
                steps.push(Step { command, expected: Vec::new() });
            }
            (None, Some(step)) if step.command.ends_with('\\') => {
                step.command.pop();
                step.command.push_str(line.trim_start());
            }
            (None, Some(step)) => step.expected.push(line.to_owned()),
            (None, None) => panic!("a line before the first command: {line}"),
        }
    }
    steps
}

/// Whether `printed` is what was expected.
pub fn matches(expected: &[String], printed: &[String]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((line, rest)), _) if line.trim() == "..." => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]))
        }
        (Some((line, rest)), Some((found, more))) => is_like(line, found) && matches(rest, more),
        _ => false,
    }
}

/// Whether `found` has the pieces of `line` in their order, the first at its begin and the last at its end.
fn is_like(line: &str, found: &str) -> bool {
    let (line, found) = (normal(line), normal(found));
    let Some((first, rest)) = line.split_once("...") else { return line == found };
    let Some(mut found) = found.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = rest.split("...").collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = found.find(piece) else { return false };
        found = &found[at + piece.len()..];
    }
    found.ends_with(last)
}

/// Ids become `<id>`, every other number `0`; spaces at the end are nothing.
fn normal(line: &str) -> String {
    let mut out = String::new();
    for word in line.trim_end().split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_') {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        match is_id(bare) {
            true => out.push_str(&word.replace(bare, "<id>")),
            false => out.push_str(&digits_as_zero(word)),
        }
    }
    out
}

/// A UUID, a key, or 16 and more hexadecimal digits.
fn is_id(word: &str) -> bool {
    let word = word.strip_prefix("pk_").unwrap_or(word);
    let digits = word.chars().filter(|c| *c != '-');
    word.len() >= 16 && digits.clone().all(|c| c.is_ascii_hexdigit()) && digits.count() >= 16
}

fn digits_as_zero(word: &str) -> String {
    let mut out = String::new();
    for c in word.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('0') => {}
            true => out.push('0'),
            false => out.push(c),
        }
    }
    out
}

/// The name of a variable that `text` begins with.
fn name(text: &str) -> &str {
    text.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default()
}

/// A terminal: commands in one directory, one after the other, each knowing the variables (in small letters) that those
/// before it have set.
pub struct Shell {
    directory: PathBuf,
    replaced: Vec<(String, String)>,
    variables: TempDir,
}

impl Shell {
    /// A terminal in that directory, with nothing of this project's or of Cargo's environment.
    pub fn new(directory: &Path) -> Shell {
        Shell { directory: directory.to_owned(), replaced: Vec::new(), variables: tempfile::tempdir().unwrap() }
    }

    /// Types and expects `ours` wherever a page says `theirs`: an address, for example, that is free on this machine.
    pub fn replacing(mut self, theirs: &str, ours: &str) -> Shell {
        self.replaced.push((theirs.to_owned(), ours.to_owned()));
        self
    }

    /// Starts a command and waits for nothing.
    pub fn start(&self, command: &str) -> Process {
        let command = self.ours(command);
        let file = self.variables.path().join("variables").display().to_string();
        let keep = format!("for NAME in $(compgen -v | grep -E '^[a-z]+$'); do declare -p $NAME; done > {file}");
        let script = format!("[ -e {file} ] && . {file}\n{command}\nCODE=$?; {keep}; exit $CODE");
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(&self.directory);
        for (name, _) in std::env::vars() {
            if ["APP_", "OTEL_", "CARGO_PKG_"].iter().any(|start| name.starts_with(start)) || name == "RUST_LOG" {
                bash.env_remove(name);
            }
        }
        Process::spawn(bash)
    }

    /// Plays a step to its end: the command succeeds and prints what the page says.
    pub async fn play(&self, step: &Step, within: Duration) -> Ended {
        let waited = tokio::time::timeout(within, self.start(&step.command).wait(2 * within)).await;
        let ended = waited.unwrap_or_else(|_| panic!("`{}` does not end", step.command));
        assert_eq!(ended.code, 0, "`{}` printed {:#?} {}", step.command, ended.stdout, ended.log());
        let (expected, printed): (Vec<_>, _) =
            (step.expected.iter().map(|line| self.ours(line)).collect(), &ended.stdout);
        assert!(matches(&expected, printed), "`{}` prints {expected:#?}, not {printed:#?}", step.command);
        ended
    }

    /// `text` with the variables that were set so far, as `$name`.
    pub async fn with_variables(&self, text: &str) -> String {
        let mut filled = self.ours(text);
        let names: BTreeSet<&str> = text.split('$').skip(1).map(name).filter(|name| !name.is_empty()).collect();
        for each in names {
            let ended = self.start(&format!("printf %s \"${each}\"")).wait(Duration::from_secs(60)).await;
            filled = filled.replace(&format!("${each}"), &ended.stdout.concat());
        }
        filled
    }

    fn ours(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_transcript_is_read_as_commands_and_their_lines() {
        let page = "# X\n```console\n$ cargo run\nready in 0.2 s\n$ curl -s \\\n    x   # a comment\n{}\n$ ^C\n```\n```console\n$ no\n```\n";
        let page = page.replace("x   # a comment", "x");
        let step = |command: &str, expected: &[&str]| Step {
            command: command.into(),
            expected: expected.iter().map(|line| (*line).into()).collect(),
        };
        let first = vec![step("cargo run", &["ready in 0.2 s"]), step("curl -s x", &["{}"]), step("^C", &[])];
        assert_eq!(blocks(&page), [first, vec![step("no", &[])]]);
        assert_eq!(steps("$ curl -s x   # a comment"), [step("curl -s x", &[])]);
    }

    #[test]
    fn numbers_and_ids_are_compared_as_such_and_words_by_value() {
        let same = |a: &str, b: &str| matches(&[a.to_owned()], &[b.to_owned()]);
        assert!(same("ready in 0.2 s", "ready in 12.75 s"));
        let (one, other) = ("0190a7a0-1b2c-7000-8000-00000000abcd", "0190b8b1-dead-7fff-9000-123456789abc");
        assert!(same(&format!(r#"{{"id":"{one}","n":1}}"#), &format!(r#"{{"id":"{other}","n":27}}"#)));
        assert!(same("key pk_0123456789abcdef0123", "key pk_fedcba9876543210fedc"));
        assert!(!same("ready in 0.2 s", "waited for 0.2 s"));
        assert!(!same("port 8080 open", "port 8080 closed"));
    }

    #[test]
    fn three_dots_stand_for_any_lines_and_for_none() {
        assert!(matches(&lines("a\n...\nd"), &lines("a\nb\nc\nd")));
        assert!(matches(&lines("a\n...\nd"), &lines("a\nd")));
        assert!(!matches(&lines("a\n...\nd"), &lines("a\nb")));
        assert!(!matches(&lines("a"), &lines("a\nb")));
    }

    #[test]
    fn three_dots_within_a_line_stand_for_anything_in_between() {
        let same = |a: &str, b: &str| matches(&lines(a), &lines(b));
        assert!(same(r#"{"a":1...}"#, r#"{"a":2,"b":"x"}"#));
        assert!(same(r#"...,"b":...,"c":3}"#, r#"{"a":1,"b":2,"c":4}"#));
        assert!(!same(r#"{"a":1...}"#, r#"{"b":2}"#));
        assert!(!same(r#"..."c":1...}"#, r#"{"a":1}"#));
    }

    #[tokio::test]
    async fn a_variable_of_one_command_is_known_to_the_next_and_a_failure_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let shell = Shell::new(directory.path()).replacing("theirs", "ours");
        let step = |command: &str, printed: &str| Step { command: command.into(), expected: lines(printed) };
        shell.play(&step("name='the theirs'; echo $name", "the ours"), Duration::from_secs(10)).await;
        shell.play(&step("echo \"$name again\"", "the ours again"), Duration::from_secs(10)).await;
        let filled = shell.with_variables("{ a = \"$name\" } of theirs").await;
        assert_eq!(filled, "{ a = \"the ours\" } of ours");
        assert_eq!(shell.start("exit 3").wait(Duration::from_secs(10)).await.code, 3);
        assert_eq!(shell.start("false").wait(Duration::from_secs(10)).await.code, 1);
    }
}
