//! The first five minutes, played literally from the README.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::binary::workspace;
use tests::eventually;
use tests::process::Process;
use tests::transcript::{self, Shell, Step, matches};

/// The first command builds the service, on a fresh machine with all it depends on.
const BUILD: Duration = Duration::from_secs(1500);
const SOON: Duration = Duration::from_secs(30);

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
    let steps = transcript::blocks(&readme).remove(0);
    let shell = Shell::new(workspace());
    let is_new = !workspace().join("data").exists();
    let (first, rest) = steps.split_first().unwrap();
    assert_eq!(first.command, "cargo run");
    let service = shell.start(&first.command);
    shows(&service, 0, first, BUILD).await;
    for step in rest {
        if step.command == "^C" {
            let from = service.stdout().len();
            service.signal_group(Signal::SIGINT);
            let ended = service.wait(SOON).await;
            assert_eq!(ended.code, 0, "{}", ended.log());
            assert!(matches(&step.expected, &ended.stdout[from..]), "{:#?}", &ended.stdout[from..]);
        } else {
            shell.play(step, SOON).await;
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
