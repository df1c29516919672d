//! In the sources of the service: what is told is told by its declaration.

use std::path::{Path, PathBuf};

use tests::binary::workspace;

/// How a span, a metric or a named event is made past its declaration.
const PAST_IT: [&str; 9] = [
    "_span!(",
    "tracing::span!(",
    "[instrument",
    "[tracing::instrument",
    "span_builder(",
    "global::tracer(",
    "global::meter(",
    ".add_event(",
    "!(name: ",
];

/// The sources of what a service consists of, without tests.
fn sources() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        ["supervision", "actors", "app", "sentry"].iter().map(|name| workspace().join(name).join("src")).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let is_of_tests = path.file_stem().is_some_and(|name| name == "tests" || name == "testing");
            match (is_of_tests, path.is_dir()) {
                (true, _) => {}
                (false, true) => folders.push(path),
                (false, false) => files.push(path),
            }
        }
    }
    files
}

/// The file up to the tests at its end.
fn product(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
}

#[test]
fn nothing_is_told_past_its_declaration() {
    let files = sources();
    assert!(files.len() > 100, "{} files", files.len());
    let mut found = Vec::new();
    for path in files {
        let text = product(&path);
        let past = text.lines().filter(|line| PAST_IT.iter().any(|way| line.contains(way)));
        found.extend(past.map(|line| format!("{}: {}", path.display(), line.trim())));
    }
    assert_eq!(found, Vec::<String>::new());
}
