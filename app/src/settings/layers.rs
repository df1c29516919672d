//! Where values come from, one layer over the other.
//!
//! Every layer is checked against the keys there are before it is laid over the others, so that a section can never be
//! lost under a stray value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use config::{Config, Environment, FileFormat, Format, Map, Source, Value, ValueKind};

use telemetry::export::Variables;

use super::fault::Fault;
use super::schema::{Schema, Values, flatten, variable_of};

/// The built-in file of each profile.
const PROFILES: [(&str, &str); 2] = [
    ("development", include_str!("../../config/development.toml")),
    ("production", include_str!("../../config/production.toml")),
];

/// What the settings are made of, besides the built-in files.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--profile`, which wins over everything.
    pub profile: Option<String>,
    /// `--config` or `APP_CONFIG_FILE`: a TOML file over the profile's.
    pub file: Option<PathBuf>,
    /// The environment; what begins with `APP__`, and `RUST_LOG`, is read; `OTEL_*` is checked.
    pub environment: Vec<(OsString, OsString)>,
}

impl Sources {
    /// The environment of this process, with the arguments of its command line.
    pub fn of_process(profile: Option<String>, file: Option<PathBuf>) -> Self {
        Self { profile, file, environment: std::env::vars_os().collect() }
    }

    /// The variables that telemetry reads. What is not UTF-8 it does not see.
    pub(super) fn variables(&self) -> Variables {
        let pairs = self.environment.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
        Variables::of_pairs(pairs)
    }

    /// `RUST_LOG`, if it is set, not empty and readable.
    fn rust_log(&self) -> Option<&str> {
        let (_, value) = self.environment.iter().find(|(name, _)| name == "RUST_LOG")?;
        value.to_str().filter(|value| !value.trim().is_empty())
    }
}

/// One value in force, and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    /// The value as it was written.
    pub(super) value: serde_json::Value,
    /// `built-in default.toml`, `file x.toml`, `environment variable APP__API__LISTEN` ...
    pub(super) origin: String,
}

/// Every key with the value in force.
pub(super) type Leaves = BTreeMap<String, Leaf>;

/// Lays all sources over the defaults. What cannot be used is a fault, and is left out.
pub(super) fn merge(sources: &Sources) -> (Leaves, Vec<Fault>) {
    let mut faults = Vec::new();
    let schema = Schema::new();
    let file = sources.file.as_ref().map(|path| file_layer(path, &schema, &mut faults)).unwrap_or_default();
    let environment = environment_layer(sources, &schema, &mut faults);
    let argument = sources.profile.as_deref().map(argument_layer).unwrap_or_default();
    let profile = [&argument, &environment, &file].iter().find_map(|layer| layer.text("profile"));
    let profile = profile_layer(profile.as_deref(), &schema, &mut faults);
    let config = [Layer { values: schema.defaults.clone() }, profile, file, environment, argument]
        .into_iter()
        .fold(Config::builder(), |builder, layer| builder.add_source(layer))
        .build();
    match config {
        Ok(config) => (leaves(config.cache), faults),
        Err(error) => {
            faults.push(Fault::of_source("configuration", error.to_string()));
            (leaves(Value::new(None, schema.defaults)), faults)
        }
    }
}

/// The values of one source, each under its key in dots.
#[derive(Debug, Clone, Default)]
struct Layer {
    values: Values,
}

impl Layer {
    fn text(&self, key: &str) -> Option<String> {
        self.values.get(key).and_then(|value| value.clone().into_string().ok())
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.values.clone())
    }
}

fn file_layer(path: &PathBuf, schema: &Schema, faults: &mut Vec<Fault>) -> Layer {
    let origin = format!("file {}", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => toml_layer(&origin, &text, schema, faults),
        Err(error) => {
            faults.push(Fault::of_source(origin, format!("cannot be read: {error}")));
            Layer::default()
        }
    }
}

/// A wrong name is no fault here: the key `profile` is read like every other, and refused there.
fn profile_layer(name: Option<&str>, schema: &Schema, faults: &mut Vec<Fault>) -> Layer {
    let name = name.unwrap_or(PROFILES[0].0);
    match PROFILES.iter().find(|(profile, _)| *profile == name) {
        Some((profile, text)) => toml_layer(&format!("built-in {profile}.toml"), text, schema, faults),
        None => Layer::default(),
    }
}

fn toml_layer(origin: &str, text: &str, schema: &Schema, faults: &mut Vec<Fault>) -> Layer {
    match FileFormat::Toml.parse(Some(&origin.to_owned()), text) {
        Ok(table) => Layer { values: schema.check(table, origin, faults) },
        Err(error) => {
            faults.push(Fault::of_source(origin, on_one_line(&error.to_string())));
            Layer::default()
        }
    }
}

fn argument_layer(profile: &str) -> Layer {
    let value = Value::new(Some(&"argument --profile".to_owned()), profile);
    Layer { values: Map::from_iter([("profile".to_owned(), value)]) }
}

fn environment_layer(sources: &Sources, schema: &Schema, faults: &mut Vec<Fault>) -> Layer {
    let mut ours = Map::new();
    for (name, value) in &sources.environment {
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("APP__") {
            faults.extend(schema.almost_a_variable(name));
        } else if let Some(value) = value.to_str() {
            ours.insert(name.to_owned(), value.to_owned());
        } else {
            faults.push(Fault::of_source(format!("environment variable {name}"), "must be UTF-8"));
        }
    }
    let read = Environment::with_prefix("APP").separator("__").source(Some(ours)).collect().unwrap_or_default();
    let mut layer = Layer::default();
    for (key, value) in read.into_iter().collect::<BTreeMap<_, _>>() {
        let origin = format!("environment variable {}", variable_of(&key));
        layer.values.extend(schema.check(Map::from_iter([(key, value)]), &origin, faults));
    }
    if let Some(filter) = sources.rust_log() {
        let value = Value::new(Some(&"environment variable RUST_LOG".to_owned()), filter);
        layer.values.insert("log.filter".to_owned(), value);
    }
    layer
}

fn leaves(root: Value) -> Leaves {
    let mut leaves = Leaves::new();
    if let ValueKind::Table(table) = root.kind {
        flatten("", table, &mut |key, value| {
            let origin = value.origin().unwrap_or("unknown").to_owned();
            // An empty section of a file says nothing.
            if !matches!(value.kind, ValueKind::Table(_)) {
                leaves.insert(key, Leaf { value: to_json(value), origin });
            }
        });
    }
    leaves
}

/// Without any conversion: text stays text. The readers decide what it may mean.
fn to_json(value: Value) -> serde_json::Value {
    match value.kind {
        ValueKind::Nil => serde_json::Value::Null,
        ValueKind::Boolean(value) => value.into(),
        ValueKind::I64(value) => value.into(),
        ValueKind::U64(value) => value.into(),
        ValueKind::I128(value) => value.to_string().into(),
        ValueKind::U128(value) => value.to_string().into(),
        ValueKind::Float(value) => value.into(),
        ValueKind::String(value) => value.into(),
        ValueKind::Array(items) => items.into_iter().map(to_json).collect(),
        ValueKind::Table(table) => table.into_iter().map(|(key, value)| (key, to_json(value))).collect(),
    }
}

/// The first and the last line of the parser's drawing: the place, and what is wrong there.
fn on_one_line(error: &str) -> String {
    let mut lines = error.lines().filter(|line| !line.trim().is_empty());
    match (lines.next(), lines.next_back()) {
        (Some(first), Some(last)) => format!("{first}: {last}"),
        _ => error.to_owned(),
    }
}
