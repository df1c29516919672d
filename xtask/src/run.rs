//! Running cargo from the root of the workspace, shown or captured.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

/// How the command ended, or why it could not be carried out, in words for the one who typed it.
pub type Outcome = Result<ExitCode, String>;

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Where cargo puts what it makes.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// `cargo` with these arguments, not yet started.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).args(arguments);
    // What cargo told xtask of xtask itself: build scripts that look at it would run again, and all that is behind them.
    let of_xtask =
        |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|kind| name.starts_with(kind));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(of_xtask) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command whose output goes straight through.
pub fn shown(command: &mut Command) -> Result<ExitStatus, String> {
    command.status().map_err(|error| format!("start {command:?}: {error}"))
}

/// Runs a command, passes each line of both its outputs through in their order, and hands it to `see` as well.
pub fn seen(command: &mut Command, mut see: impl FnMut(&str)) -> Result<ExitStatus, String> {
    let failed = |error| format!("run cargo: {error}");
    let (output, writer) = std::io::pipe().map_err(failed)?;
    let mut child = command.stdout(writer.try_clone().map_err(failed)?).stderr(writer).spawn().map_err(failed)?;
    // The command keeps its ends of the pipe for a second start; the output would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for line in BufReader::new(output).lines() {
        let line = line.map_err(failed)?;
        println!("{line}");
        see(&line);
    }
    child.wait().map_err(failed)
}

/// Runs a command and returns its standard output; what it says on standard error goes through.
pub fn captured(command: &mut Command) -> Result<String, String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("start {command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?} ended with {}", output.status)),
    }
}
