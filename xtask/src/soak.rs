//! `cargo xtask soak [--minutes N]`: the random tests again and again, each time from a fresh seed, until one fails or the time
//! is up. What fails is printed by the test itself, with its seed, as small as it could be made.

use std::process::ExitCode;
use std::time::Duration;

use crate::run::{Outcome, cargo, shown};

/// The tests that make up what they do: the package, and the file in its `tests`.
const HUNTS: [(&str, &str); 2] = [("supervision", "conformance"), ("supervision", "random_trees")];

/// Hunts for `minutes`, whole rounds only.
#[expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the real clock: no test of ours runs here")]
pub fn run(minutes: u64) -> Outcome {
    let (began, time) = (std::time::Instant::now(), Duration::from_secs(60 * minutes));
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
