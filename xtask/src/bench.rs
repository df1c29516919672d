//! `cargo xtask bench [NAME]`: the benchmarks of `tests/benches`, and after `supervision` what goes with it. A row that
//! falls short is printed as `SHORT` and is not an error: the figures are for people, and a busy machine must not break a
//! build.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use crate::postgres::{self, Postgres, Safety};
use crate::run::{Outcome, cargo, shown, target, workspace};

/// The one that is told in several places.
const SUPERVISION: &str = "supervision";

/// Its part that is a benchmark of its own.
const STORM: &str = "storm";

/// Its comparison with others, which is a workspace of its own: the product's lock file does not know them.
const PEERS: &str = "benches/peers/Cargo.toml";

/// The one that is compared with the job queues of others, and where these are: a workspace of their own too. The
/// benchmark starts their program itself, so that both are measured in one run.
const SCHEDULER: &str = "scheduler";
const JOB_PEERS: &str = "benches/jobs/Cargo.toml";
/// By this variable it learns where their program is.
const JOB_PEERS_VARIABLE: &str = "JOB_PEERS";
/// Those that are programs of Node, and by which variable it learns where they are installed.
const NODE_PEERS: &str = "benches/jobs/graphile";
const NODE_PEERS_VARIABLE: &str = "JOB_PEERS_NODE";

/// Runs the benchmark `name`, or all of them one after the other.
pub fn run(name: Option<&str>) -> Outcome {
    let chosen = chosen(name, names()?)?;
    for name in &chosen {
        let mut bench = cargo(&["bench", "--quiet", "--package", "tests", "--bench", name]);
        let mut server = None;
        if name == SCHEDULER {
            ran(JOB_PEERS, &mut cargo(&["build", "--quiet", "--release", "--locked", "--manifest-path", JOB_PEERS]))?;
            bench.env(JOB_PEERS_VARIABLE, job_peers());
            // Without a server or without Node their rows say that they were skipped.
            let told = |trouble: &String| eprintln!("xtask: {trouble}");
            server = Postgres::start(Safety::Full).inspect_err(told).ok();
            bench.envs(server.as_ref().map(|server| (postgres::SERVER, server.url())));
            bench.envs(node_peers().inspect_err(told).ok().map(|program| (NODE_PEERS_VARIABLE, program)));
        }
        ran(name, &mut bench)?;
        drop(server);
    }
    if chosen.iter().any(|name| name == SUPERVISION) {
        ran(PEERS, &mut cargo(&["run", "--quiet", "--release", "--locked", "--manifest-path", PEERS]))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(name: Option<&str>, known: Vec<String>) -> Result<Vec<String>, String> {
    match name {
        None => Ok(known),
        Some(SUPERVISION) => Ok(vec![SUPERVISION.to_owned(), STORM.to_owned()]),
        Some(name) if known.iter().any(|known| known == name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(format!("no benchmark {name}; there are: {}", known.join(", "))),
    }
}

/// Where cargo puts their program.
fn job_peers() -> PathBuf {
    let own = || workspace().join("benches/jobs/target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(own, PathBuf::from).join("release/job-peers")
}

/// Installs those of Node beside what cargo makes, exactly as their lock file says, and answers where their program is.
fn node_peers() -> Result<PathBuf, String> {
    let (from, to) = (workspace().join(NODE_PEERS), target().join("job-peers-node"));
    let failed = |error: std::io::Error| format!("copy {} to {}: {error}", from.display(), to.display());
    std::fs::create_dir_all(&to).map_err(failed)?;
    for file in ["package.json", "package-lock.json", "main.mjs"] {
        std::fs::copy(from.join(file), to.join(file)).map_err(failed)?;
    }
    let mut install = Command::new("npm");
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    ran("npm ci", install.current_dir(&to).stdout(Stdio::null()))?;
    std::path::absolute(to.join("main.mjs")).map_err(failed)
}

fn ran(name: &str, command: &mut Command) -> Result<(), String> {
    match shown(command)? {
        status if status.success() => Ok(()),
        status => Err(format!("{name} ended with {status}")),
    }
}

fn names() -> Result<Vec<String>, String> {
    let folder = workspace().join("tests/benches");
    let failed = |error: std::io::Error| format!("read {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_a_benchmark() {
        assert_eq!(names().unwrap(), ["bus", "scheduler", "service", "storm", "supervision", "telemetry"]);
    }

    #[test]
    fn supervision_brings_the_storm_along() {
        assert_eq!(chosen(Some(SUPERVISION), names().unwrap()).unwrap(), [SUPERVISION, STORM]);
        assert_eq!(chosen(Some(STORM), names().unwrap()).unwrap(), [STORM]);
    }

    #[test]
    fn the_peers_are_workspaces_of_their_own() {
        for peers in [PEERS, JOB_PEERS] {
            let folder = crate::run::workspace().join(peers);
            let folder = folder.parent().unwrap();
            let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            assert!(manifest.lines().any(|line| line == "[workspace]") && folder.join("Cargo.lock").exists());
        }
        let lock = std::fs::read_to_string(crate::run::workspace().join("Cargo.lock")).unwrap();
        assert!(
            !["kameo", "actix", "ractor-supervisor", "apalis"]
                .iter()
                .any(|peer| lock.contains(&format!("name = \"{peer}\"")))
        );
    }

    #[test]
    fn the_peers_of_node_are_locked_without_a_word_of_where_they_come_from() {
        let folder = workspace().join(NODE_PEERS);
        let lock = std::fs::read_to_string(folder.join("package-lock.json")).unwrap();
        assert!(lock.contains("\"integrity\"") && !lock.contains("\"resolved\"") && !lock.contains("://registry"));
        let asked = std::fs::read_to_string(folder.join("package.json")).unwrap();
        let versions = asked.lines().skip_while(|line| !line.contains("dependencies")).skip(1);
        let versions: Vec<&str> = versions.filter_map(|line| line.trim().split('"').nth(3)).collect();
        let is_exact = |version: &&str| version.starts_with(|first: char| first.is_ascii_digit());
        assert!(!versions.is_empty() && versions.iter().all(is_exact), "{versions:?}");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        assert_eq!(
            run(Some("speed")).unwrap_err(),
            "no benchmark speed; there are: bus, scheduler, service, storm, supervision, telemetry"
        );
    }
}
