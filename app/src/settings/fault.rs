//! What is wrong with a configuration, all of it at once, each fault with the place its value came from.

use std::fmt;

/// One thing that is wrong. Displayed as one line: `key = value (origin): what is allowed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key in dots (`scheduler.lease_ms`); empty when the fault is not about one key.
    pub key: String,
    /// The value as it may be shown: secrets and values of unknown keys are hidden.
    pub shown: Option<String>,
    /// Where the value came from: `file x.toml`, `environment variable APP__API__LISTEN` ...
    pub origin: Option<String>,
    /// What is wrong, or what is allowed.
    pub reason: String,
}

impl Fault {
    /// A fault of a source as a whole (a file that cannot be read), which has no key.
    pub fn of_source(origin: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: String::new(), shown: None, origin: Some(origin.into()), reason: reason.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(shown) = &self.shown {
            write!(f, " = {shown}")?;
        }
        match &self.origin {
            Some(origin) if self.key.is_empty() => write!(f, "{origin}: {}", self.reason),
            Some(origin) => write!(f, " ({origin}): {}", self.reason),
            None => write!(f, ": {}", self.reason),
        }
    }
}

/// Every fault of a configuration; never empty. Displayed as one line each, below a line that counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the configuration has 1 fault")?,
            n => write!(f, "the configuration has {n} faults")?,
        }
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_line_with_its_key_value_origin_and_reason() {
        let fault = Fault {
            key: "api.listen".into(),
            shown: Some("\"x\"".into()),
            origin: Some("environment variable APP__API__LISTEN".into()),
            reason: "must be an address".into(),
        };
        let shown = "api.listen = \"x\" (environment variable APP__API__LISTEN): must be an address";
        assert_eq!(fault.to_string(), shown);
        assert_eq!(Faults(vec![fault]).to_string(), format!("the configuration has 1 fault\n  {shown}"));
    }

    #[test]
    fn a_fault_of_a_whole_file_names_the_file_first() {
        let fault = Fault::of_source("file x.toml", "cannot be read");
        assert_eq!(fault.to_string(), "file x.toml: cannot be read");
    }
}
