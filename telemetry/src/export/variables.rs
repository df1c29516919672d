//! The `OTEL_*` variables, read through one door so that tests can give their own.

use super::StartError;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

type LookUp = dyn Fn(&str) -> Option<String> + Send + Sync;

/// A source of variables. An empty value counts as absent, as the standard says.
pub struct Variables(Box<LookUp>);

impl Variables {
    /// Those of the process.
    pub fn of_process() -> Self {
        Self(Box::new(|name| std::env::var(name).ok()))
    }

    /// These and no others.
    pub fn of_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let pairs: HashMap<_, _> = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self(Box::new(move |name| pairs.get(name).cloned()))
    }

    /// The value of `name`, without surrounding space.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The first of `names` that has a value, with its name.
    pub(super) fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, String)> {
        names.iter().find_map(|name| Some((*name, self.get(name)?)))
    }

    /// Whether `name` says true. The standard knows `true` in any case; anything else is false.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A duration in milliseconds from the first of `names` that has a value.
    pub(super) fn milliseconds(&self, names: &[&str]) -> Result<Option<Duration>, StartError> {
        Ok(self.parsed(names, "a number of milliseconds")?.map(Duration::from_millis))
    }

    /// A value from the first of `names` that has one.
    pub(super) fn parsed<T: FromStr>(&self, names: &[&str], expected: &'static str) -> Result<Option<T>, StartError> {
        let Some((name, value)) = self.first(names) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(StartError::Variable { name: name.to_owned(), value, expected }),
        }
    }
}

impl fmt::Debug for Variables {
    /// Without the values: headers among them are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Variables")
    }
}
