//! Programs that the tests need and Cargo does not bring: servers of Debian, checkers of PyPI.

use std::path::PathBuf;

/// Where the full test command has put the checkers; plain `cargo test` knows none.
const TOOLS: &str = "TEST_TOOLS";

/// The program, from the full test command's own folder or the search path. If it is nowhere the test says that it was
/// skipped, and returns: the full test command takes that for a failure.
pub fn find(program: &str) -> Option<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::var_os(TOOLS).map(PathBuf::from).into_iter().chain(std::env::split_paths(&search));
    let found = folders.map(|folder| folder.join(program)).find(|path| path.is_file());
    if found.is_none() {
        println!("skipped: no {program} on this machine (`cargo xtask test` installs it)");
    }
    found
}
