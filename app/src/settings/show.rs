//! How settings are shown: every value with its origin, and no secret in any of them.

use std::fmt;

use serde_json::Value;

use super::{Loaded, StopTable};

/// The keys whose values nobody sees.
const SECRETS: [&str; 2] = ["admin.token", "telemetry.sentry.dsn"];

/// The keys whose values may be addresses with a password, however badly written.
const ADDRESSES: [&str; 3] = ["bus.url", "otel.endpoint", "store.url"];

/// Longer values are cut, so that a stray file in a variable does not fill the screen.
const SHOWN_MAX: usize = 200;

/// A value as it may be shown: secrets hidden, passwords in addresses too.
pub(super) fn value(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) if SECRETS.contains(&key) => if text.is_empty() { "\"\"" } else { "[hidden]" }.to_owned(),
        _ if SECRETS.contains(&key) => "[hidden]".to_owned(),
        // The path of a file may hold anything.
        Value::String(text) if text.starts_with("sqlite:") => cut(Value::from(text.as_str()).to_string()),
        Value::String(text) if ADDRESSES.contains(&key) => cut(Value::from(without_user(text)).to_string()),
        Value::String(text) => cut(Value::from(without_password(text)).to_string()),
        other => cut(other.to_string()),
    }
}

/// A password may stand where no parser finds it, behind a `/` or a `#` that should have been escaped.
fn without_user(text: &str) -> String {
    match (without_password(text), text.split_once("://"), text.rsplit_once('@')) {
        (hidden, ..) if hidden != text => hidden,
        (_, Some((scheme, _)), Some((_, host))) => format!("{scheme}://hidden@{host}"),
        (_, None, Some((_, host))) => format!("hidden@{host}"),
        _ => text.to_owned(),
    }
}

fn without_password(text: &str) -> String {
    let Some(mut url) = url::Url::parse(text).ok().filter(|url| url.password().is_some()) else {
        return text.to_owned();
    };
    // An address with a password always takes another one.
    let _ = url.set_password(Some("hidden"));
    url.into()
}

fn cut(mut shown: String) -> String {
    if let Some((at, _)) = shown.char_indices().nth(SHOWN_MAX) {
        shown.truncate(at);
        shown.push_str("...");
    }
    shown
}

/// `key = value  # origin` for each key, then the stop table.
impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = self
            .leaves
            .iter()
            .map(|(key, leaf)| (format!("{key} = {}", value(key, &leaf.value)), &leaf.origin))
            .collect();
        let width = shown.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        for (line, origin) in shown {
            writeln!(f, "{line:width$}  # {origin}")?;
        }
        write!(f, "\n{}", StopTable::of(&self.settings))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::{Sources, load};

    #[test]
    fn a_secret_is_hidden_whatever_its_type_and_an_empty_one_is_seen_to_be_empty() {
        assert_eq!(value("admin.token", &json!("s3cret")), "[hidden]");
        assert_eq!(value("admin.token", &json!(12)), "[hidden]");
        assert_eq!(value("admin.token", &json!("")), "\"\"");
    }

    #[test]
    fn a_password_in_an_address_is_hidden() {
        assert_eq!(value("otel.endpoint", &json!("https://me:pw@host/")), "\"https://me:hidden@host/\"");
    }

    #[test]
    fn a_password_in_the_address_of_the_bus_is_hidden_however_badly_it_is_written() {
        let all =
            ["redis://:s3cret@h", "redis://s3cret@h", "redis://:s3/cret@h", "redis://:s3#cret@h", "redis:s3cret@h"];
        let more = ["redis://u:1/s3cret@h", "redis://u:x@s3cret@h", "redis ://:s3cret@h"];
        for text in all.into_iter().chain(more) {
            let shown = value("bus.url", &json!(text));
            assert!(!shown.contains("cret") && shown.contains('h'), "{text} is shown as {shown}");
        }
        let shown = value("store.url", &json!("postgres://me:s3cret@db/app?sslmode=require"));
        assert_eq!(shown, "\"postgres://me:hidden@db/app?sslmode=require\"");
        assert_eq!(value("store.url", &json!("sqlite://a@b.db")), "\"sqlite://a@b.db\"");
        assert_eq!(value("bus.url", &json!("redis://cache:6379")), "\"redis://cache:6379\"");
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(value("log.filter", &json!("x".repeat(1000))).len(), SHOWN_MAX + 3);
    }

    #[test]
    fn everything_is_printed_with_its_origin_and_the_stop_table_below() {
        let token = "APP__ADMIN__TOKEN".into();
        let sources = Sources { environment: vec![(token, "a-token-of-our-own".into())], ..Sources::default() };
        let loaded = load(&sources).unwrap();
        let shown = loaded.to_string();
        assert!(shown.contains("[hidden]") && !shown.contains("a-token-of-our-own"));
        assert!(!format!("{:?}", loaded.settings).contains("a-token-of-our-own"));
        let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert!(line("admin.token").ends_with("# environment variable APP__ADMIN__TOKEN"));
        assert!(line("scheduler.batch = 100").ends_with("# built-in default.toml"));
        assert!(line("channel_manager.allow_http = true").ends_with("# built-in development.toml"));
        assert!(shown.contains("left of the grace period"));
    }
}
