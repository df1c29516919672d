//! Erlang/OTP's own supervisor, by a script beside this program.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::measure::Measure;

/// True if this machine has Erlang.
pub fn is_installed() -> bool {
    let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    quiet(Command::new("escript").arg("--version"))
}

/// The script with the words of the measure; none if it does not have that one.
pub fn command(measure: Measure) -> Option<Command> {
    if measure == Measure::MessageMetered {
        return None;
    }
    let mut command = Command::new("escript");
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("otp.escript")).args(measure.words());
    Some(command)
}
