//! Which keys there are. `default.toml` is complete, so it is the list: what is not in it is refused, with a
//! suggestion.

use std::collections::BTreeSet;

use config::{FileFormat, Format, Map, Value, ValueKind};

use super::fault::Fault;

/// The keys, their defaults and their reasons.
const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// How alike a wrong key and a real one must be for a suggestion; 1 is equal.
const ALIKE: f64 = 0.6;

/// The values of one source, each under its key in dots.
pub(super) type Values = Map<String, Value>;

/// The keys there are: those of `default.toml`.
pub(super) struct Schema {
    /// The values of `default.toml`.
    pub(super) defaults: Values,
    keys: BTreeSet<String>,
    sections: BTreeSet<String>,
}

impl Schema {
    pub(super) fn new() -> Self {
        let origin = "built-in default.toml".to_owned();
        // A test holds that the built-in files can be read.
        let table = FileFormat::Toml.parse(Some(&origin), DEFAULT_TOML).unwrap_or_default();
        let mut values = Map::new();
        flatten("", table, &mut |key, value| {
            values.insert(key, value);
        });
        let keys: BTreeSet<String> = values.keys().cloned().collect();
        let sections = keys.iter().flat_map(|key| key.match_indices('.').map(|(at, _)| key[..at].to_owned())).collect();
        Self { defaults: values, keys, sections }
    }

    /// Keeps what can be used of a source; the rest is a fault.
    pub(super) fn check(&self, table: Map<String, Value>, origin: &str, faults: &mut Vec<Fault>) -> Values {
        let (mut values, mut refused) = (Values::new(), Vec::new());
        flatten("", table, &mut |key, value| match self.refuses(&key, &value, origin) {
            Some(reason) => refused.push(Fault { key, shown: None, origin: Some(origin.to_owned()), reason }),
            None => {
                values.insert(key, Value::new(Some(&origin.to_owned()), value.kind));
            }
        });
        refused.sort_by(|a, b| a.key.cmp(&b.key));
        faults.append(&mut refused);
        values
    }

    fn refuses(&self, key: &str, value: &Value, origin: &str) -> Option<String> {
        let empty_section = matches!(&value.kind, ValueKind::Table(table) if table.is_empty());
        if self.keys.contains(key) {
            return empty_section.then(|| "is one value, not a section".to_owned());
        }
        if self.sections.contains(key) {
            return (!empty_section).then(|| "is a section, not one value".to_owned());
        }
        if let Some(value) = self.keys.iter().find(|value| key.starts_with(&format!("{value}."))) {
            return Some(format!("unknown key, `{value}` is one value, not a section"));
        }
        Some(match self.suggestion(key) {
            Some(near) if origin.starts_with("environment") => {
                format!("unknown key, did you mean {}?", variable_of(near))
            }
            Some(near) => format!("unknown key, did you mean `{near}`?"),
            None => "unknown key".to_owned(),
        })
    }

    fn suggestion(&self, key: &str) -> Option<&str> {
        let alike = |known: &str| strsim::normalized_damerau_levenshtein(key, known);
        let best = self.keys.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
        (alike(best) >= ALIKE).then_some(best)
    }

    /// `APP_API_LISTEN` is not read; whoever sets it means `APP__API__LISTEN`, and should not find out in production.
    pub(super) fn almost_a_variable(&self, name: &str) -> Option<Fault> {
        let key =
            self.keys.iter().find(|key| name.starts_with("APP_") && variable_of(key).replace("__", "_") == name)?;
        let reason = format!("is not read, did you mean {}?", variable_of(key));
        Some(Fault::of_source(format!("environment variable {name}"), reason))
    }
}

/// The variable that sets a key.
pub(super) fn variable_of(key: &str) -> String {
    format!("APP__{}", key.to_uppercase().replace('.', "__"))
}

/// Calls `take` with every value that is not a table, and with every table that is empty.
pub(super) fn flatten(prefix: &str, table: Map<String, Value>, take: &mut impl FnMut(String, Value)) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(inner) if !inner.is_empty() => flatten(&key, inner, take),
            _ => take(key, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_variable_and_every_section_its_keys() {
        let schema = Schema::new();
        assert!(schema.keys.contains("scheduler.backoff.base_ms") && schema.sections.contains("scheduler.backoff"));
        assert!(schema.keys.iter().all(|key| !schema.sections.contains(key)));
        assert_eq!(variable_of("scheduler.backoff.base_ms"), "APP__SCHEDULER__BACKOFF__BASE_MS");
    }

    #[test]
    fn only_a_near_key_is_suggested() {
        let schema = Schema::new();
        assert_eq!(schema.suggestion("sheduler.batch"), Some("scheduler.batch"));
        assert_eq!(schema.suggestion("quite.another"), None);
    }
}
