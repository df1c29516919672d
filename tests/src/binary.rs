//! The binary under test: built by cargo exactly as `cargo run` builds it, once for each test process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// Names a binary that was built just now, so that not each test process has to ask cargo again.
const BUILT: &str = "APP_UNDER_TEST";

/// The development build of the service, brought up to date at the first call.
pub fn app() -> &'static Path {
    static APP: OnceLock<PathBuf> = OnceLock::new();
    APP.get_or_init(|| match std::env::var_os(BUILT) {
        Some(built) => PathBuf::from(built),
        None => build(&["build", "--bin", "app"], "app"),
    })
}

/// Names a build of the service with all its features.
const WITH_FEATURES: &str = "APP_WITH_FEATURES";

/// The development build of the service with its feature `sentry`. Without the full test command there is
/// none: then the test says that it was skipped, and returns.
pub fn app_with_features() -> Option<PathBuf> {
    let built = std::env::var_os(WITH_FEATURES).map(PathBuf::from);
    if built.is_none() {
        println!("skipped: no build of the service with its features (`cargo xtask test` makes one)");
    }
    built
}

/// The release build of the service, for the benchmarks.
pub fn released_app() -> &'static Path {
    static APP: OnceLock<PathBuf> = OnceLock::new();
    APP.get_or_init(|| build(&["build", "--release", "--package", "app", "--bin", "app"], "app"))
}

/// Runs cargo and reads from its messages where the executable `name` lies.
fn build(arguments: &[&str], name: &str) -> PathBuf {
    let output = cargo().args(arguments).args(["--message-format", "json-render-diagnostics"]).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("cargo {arguments:?} made no executable {name}"))
}

/// Cargo at the root of the workspace, without the variables that an outer cargo set for *this* package: build scripts
/// watch some of them, and would run again at each change between the outer and the inner build.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.current_dir(workspace()).stdin(Stdio::null());
    for (name, _) in std::env::vars() {
        if is_of_the_outer_package(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn is_of_the_outer_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_", "CARGO_CRATE_", "CARGO_PRIMARY_", "NEXTEST"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_where_the_lock_file_lies() {
        assert!(workspace().join("Cargo.lock").is_file());
    }

    #[test]
    fn variables_of_the_outer_package_are_kept_out_and_the_users_own_stay() {
        assert!(is_of_the_outer_package("CARGO_PKG_NAME"));
        assert!(is_of_the_outer_package("CARGO_MANIFEST_DIR"));
        assert!(!is_of_the_outer_package("CARGO_HOME"));
        assert!(!is_of_the_outer_package("CARGO_TARGET_DIR"));
        assert!(!is_of_the_outer_package("CARGO_NET_OFFLINE"));
    }
}
