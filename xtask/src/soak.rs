//! `cargo xtask soak [--minutes N]`: hundreds of random kills, and then the random tests again and again, each time from a fresh
//! seed, until one fails or the time is up. What fails is printed by the test itself, with its seed, as small as it could be made.

use std::process::ExitCode;
use std::time::Duration;

use crate::postgres::{self, Postgres, Safety};
use crate::run::{Outcome, cargo, shown};
use crate::tools;

/// The tests that make up what they do: the package, and the file in its `tests`.
const HUNTS: [(&str, &str); 2] = [("supervision", "conformance"), ("supervision", "random_trees")];

/// How often the service is killed on each store, if the caller's environment does not say it.
const KILLS: [(&str, &str); 2] = [("KILL_ROUNDS_SQLITE", "500"), ("KILL_ROUNDS_POSTGRES", "100")];

/// Kills as often as is due, however long that takes, and hunts until `minutes` are over, whole rounds only.
#[expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the real clock: no test of ours runs here")]
pub fn run(minutes: u64) -> Outcome {
    let (began, time) = (std::time::Instant::now(), Duration::from_secs(60 * minutes));
    kill()?;
    let mut rounds = 0;
    while rounds == 0 || began.elapsed() < time {
        for (package, test) in HUNTS {
            let status = shown(&mut cargo(&["test", "--quiet", "--package", package, "--test", test]))?;
            if !status.success() {
                return Err(format!("{test} of {package} failed in round {}", rounds + 1));
            }
        }
        rounds += 1;
    }
    println!("{rounds} rounds in {} s, and nothing found", began.elapsed().as_secs());
    Ok(ExitCode::SUCCESS)
}

/// The same test as in the full test command, with more rounds.
fn kill() -> Result<(), String> {
    tools::set_up();
    let server = Postgres::start(Safety::None)?;
    let mut command = cargo(&["test", "--package", "tests", "--test", "random_kills", "--"]);
    command.args(["--nocapture", "--test-threads=1"]).env(postgres::SERVER, server.url());
    command.envs(KILLS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()));
    match shown(&mut command)?.success() {
        true => Ok(()),
        false => Err("random_kills of tests failed; its seed stands above".to_owned()),
    }
}
