//! The first five minutes, played literally from the README: its commands by `bash`, its answers line by line.
//!
//! Numbers, ids and times differ from day to day, so digits and ids are compared as such and not by value. A line `...`
//! stands for any lines. `^C` is a SIGINT to the command that runs in the foreground.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::binary::workspace;
use tests::eventually;
use tests::process::Process;

/// The first command builds the service, on a fresh machine with all it depends on.
const BUILD: Duration = Duration::from_secs(1500);
const SOON: Duration = Duration::from_secs(30);

/// A command of the README and the lines that it shows below it.
#[derive(Debug, PartialEq)]
struct Step {
    command: String,
    expected: Vec<String>,
}

/// The steps of the first block that is fenced as `console`.
fn steps(readme: &str) -> Vec<Step> {
    let block = readme.split("```console\n").nth(1).expect("a console block").split("\n```").next().unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => {
                let command = command.split("   #").next().unwrap().trim_end().to_owned();
                steps.push(Step { command, expected: Vec::new() });
            }
            (None, Some(step)) => step.expected.push(line.to_owned()),
            (None, None) => panic!("a line before the first command: {line}"),
        }
    }
    steps
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

/// A UUID or 16 and more hexadecimal digits.
fn is_id(word: &str) -> bool {
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

/// Whether `printed` is what was expected, `...` standing for any lines.
fn matches(expected: &[String], printed: &[String]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((line, rest)), _) if line.trim() == "..." => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]))
        }
        (Some((line, rest)), Some((found, more))) => normal(line) == normal(found) && matches(rest, more),
        _ => false,
    }
}

fn bash(command: &str) -> Process {
    let mut bash = Command::new("bash");
    bash.args(["-c", command]).current_dir(workspace());
    for (name, _) in std::env::vars() {
        if name.starts_with("APP_") || name.starts_with("OTEL_") || name.starts_with("CARGO_PKG_") || name == "RUST_LOG"
        {
            bash.env_remove(name);
        }
    }
    Process::spawn(bash)
}

async fn shows(process: &Process, from: usize, step: &Step, within: Duration) {
    eventually(&format!("`{}` prints {:#?}", step.command, step.expected), within, || async {
        let printed = process.stdout().split_off(from);
        if process.ended().is_some_and(|status| !status.success()) {
            panic!("`{}` failed after {printed:#?}", step.command);
        }
        matches(&step.expected, &printed).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_first_five_minutes_are_as_the_readme_says() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let steps = steps(&readme);
    let is_new = !workspace().join("data").exists();
    let (first, rest) = steps.split_first().unwrap();
    assert_eq!(first.command, "cargo run");
    let service = bash(&first.command);
    shows(&service, 0, first, BUILD).await;
    for step in rest {
        if step.command == "^C" {
            let from = service.stdout().len();
            service.signal_group(Signal::SIGINT);
            let ended = service.wait(SOON).await;
            assert_eq!(ended.code, 0, "{}", ended.log());
            assert!(matches(&step.expected, &ended.stdout[from..]), "{:#?}", &ended.stdout[from..]);
        } else {
            let command = bash(&step.command);
            let ended = command.wait(SOON).await;
            assert_eq!(ended.code, 0, "`{}` {}", step.command, ended.log());
            assert!(matches(&step.expected, &ended.stdout), "`{}` printed {:#?}", step.command, ended.stdout);
        }
    }
    assert!(service.ended().is_some(), "the transcript ends with ^C");
    if is_new {
        std::fs::remove_dir_all(workspace().join("data")).unwrap();
    }
}

#[test]
fn the_readme_names_the_command_that_ci_runs() {
    let read = |path: &str| std::fs::read_to_string(workspace().join(path)).unwrap();
    assert!(read("README.md").lines().any(|line| line == "$ cargo xtask test"));
    assert!(read(".ci/run").lines().any(|line| line == "test_command='cargo xtask test'"));
}

#[test]
fn a_transcript_is_read_as_commands_and_their_lines() {
    let readme = "# X\n```console\n$ cargo run\nready in 0.2 s\n$ curl -s x   # a comment\n{}\n$ ^C\n```\n```console\n$ no\n```\n";
    let step = |command: &str, expected: &[&str]| Step {
        command: command.into(),
        expected: expected.iter().map(|line| (*line).into()).collect(),
    };
    assert_eq!(steps(readme), [step("cargo run", &["ready in 0.2 s"]), step("curl -s x", &["{}"]), step("^C", &[])]);
}

#[test]
fn numbers_and_ids_are_compared_as_such_and_words_by_value() {
    let same = |a: &str, b: &str| matches(&[a.to_owned()], &[b.to_owned()]);
    assert!(same("ready in 0.2 s", "ready in 12.75 s"));
    let (one, other) = ("0190a7a0-1b2c-7000-8000-00000000abcd", "0190b8b1-dead-7fff-9000-123456789abc");
    assert!(same(&format!(r#"{{"id":"{one}","n":1}}"#), &format!(r#"{{"id":"{other}","n":27}}"#)));
    assert!(!same("ready in 0.2 s", "waited for 0.2 s"));
    assert!(!same("port 8080 open", "port 8080 closed"));
}

#[test]
fn three_dots_stand_for_any_lines_and_for_none() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(matches(&lines("a\n...\nd"), &lines("a\nb\nc\nd")));
    assert!(matches(&lines("a\n...\nd"), &lines("a\nd")));
    assert!(!matches(&lines("a\n...\nd"), &lines("a\nb")));
    assert!(!matches(&lines("a"), &lines("a\nb")));
}
