//! What `deploy/` says, read by the checkers of each format and held against what the binary does.
//!
//! There is no container engine here: images are not built and compose starts nothing. What a container would give the
//! binary (its command, its environment, its directory, its signals) is given to it directly.

mod collector;
mod compose;
mod image;
mod prometheus;
mod systemd;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tests::binary::{app, workspace};
use yaml_rust2::{Yaml, YamlLoader};

/// Environment variables in the order of their names.
type Environment = BTreeMap<String, String>;

/// A file below `deploy/`.
fn path(name: &str) -> PathBuf {
    workspace().join("deploy").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("deploy/{name}: {error}"))
}

/// A YAML file below `deploy/`, as JSON.
fn yaml(name: &str) -> Value {
    let documents = YamlLoader::load_from_str(&read(name)).unwrap_or_else(|error| panic!("deploy/{name}: {error}"));
    let [document] = documents.as_slice() else { panic!("deploy/{name}: one document was expected") };
    as_json(document)
}

/// No file of ours has keys, anchors or numbers that JSON does not know.
fn as_json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(value) => Value::from(*value),
        Yaml::Integer(value) => Value::from(*value),
        Yaml::String(value) => Value::from(value.as_str()),
        Yaml::Array(values) => values.iter().map(as_json).collect(),
        Yaml::Hash(fields) => {
            fields.iter().map(|(key, value)| (key.as_str().unwrap().to_owned(), as_json(value))).collect()
        }
        other => panic!("not in our files: {other:?}"),
    }
}

/// The lines `NAME=value` of an environment file below `deploy/`.
fn environment_file(name: &str) -> Environment {
    let text = read(name);
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The binary in an empty directory with this environment, and nothing else.
fn run(arguments: &[&str], environment: &Environment) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(app());
    command.args(arguments).current_dir(directory.path()).env_clear().envs(environment);
    command.output().unwrap()
}

/// `app config` with this environment: each key with its value as it is shown and its origin.
fn settings(environment: &Environment) -> BTreeMap<String, (String, String)> {
    let shown = run(&["config"], environment);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let shown = String::from_utf8(shown.stdout).unwrap();
    let lines = shown.lines().filter_map(|line| {
        let (key, rest) = line.split_once(" = ")?;
        let (value, origin) = rest.split_once("  # ").or_else(|| rest.split_once(" # "))?;
        Some((key.to_owned(), (value.trim().trim_matches('"').to_owned(), origin.to_owned())))
    });
    lines.collect()
}

/// A number that is in force with this environment.
fn number(environment: &Environment, key: &str) -> u64 {
    settings(environment)[key].0.parse().unwrap()
}

/// What the process needs of file descriptors when all its limits are reached.
fn descriptors(environment: &Environment) -> u64 {
    number(environment, "limits.connections") + number(environment, "broadcaster.sockets_max")
}

/// The name of the binary under test.
fn binary_name() -> &'static str {
    app().file_name().and_then(|name| name.to_str()).unwrap()
}

/// Runs a checker over `file` and fails with what it says; without it the test says that it was skipped.
fn checked_by(program: &str, arguments: &[&str], file: &Path) {
    let Some(checker) = tests::tools::find(program) else { return };
    let output = Command::new(checker).args(arguments).arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&said));
}
