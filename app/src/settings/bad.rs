//! Bad configurations, each with the exact line it is answered with. Most stand in the two text files beside this one.

use super::{Sources, load};

/// A TOML file on the left; on the right the only fault, behind the name of the file.
const BAD_FILES: &[(&str, &str)] = &[
    (
        "[api]\nlisten = 8080\n",
        "api.listen = 8080 (file FILE): must be an IP address and a port, such as 127.0.0.1:8080",
    ),
    ("[api]\nport = 8080\n", "api.port (file FILE): unknown key"),
    ("[scheduler]\nlease_m = 5\n", "scheduler.lease_m (file FILE): unknown key, did you mean `scheduler.lease_ms`?"),
    ("[admin]\ntoken = 12\n", "admin.token = [hidden] (file FILE): must be text in quotes"),
    ("scheduler = 5\n", "scheduler (file FILE): is a section, not one value"),
    ("[api.listen]\n", "api.listen (file FILE): is one value, not a section"),
    ("[scheduler]\nbatch = [1, 2]\n", "scheduler.batch = [1,2] (file FILE): must be an integer from 1 to 1000"),
    ("[health]\nrequired = [1]\n", "health.required = [1] (file FILE): must be a list of words"),
    ("[api\n", "file FILE: TOML parse error at line 1, column 5: unclosed table, expected `]`"),
];

/// Variables with their values, and the line below them.
type Case<'a> = (Vec<(&'a str, &'a str)>, &'a str);

fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    let mut environment = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(fault) => cases.push((std::mem::take(&mut environment), fault)),
            None => environment.push(line.split_once('=').unwrap()),
        }
    }
    cases
}

fn sources(environment: &[(&str, &str)]) -> Sources {
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Sources { environment, ..Sources::default() }
}

fn faults(sources: &Sources) -> Vec<String> {
    load(sources).expect_err("must be refused").0.iter().map(ToString::to_string).collect()
}

#[test]
fn every_bad_variable_is_answered_with_its_line_and_no_other() {
    let cases = cases(include_str!("bad_variables.txt"));
    assert!(cases.len() >= 25);
    for (environment, line) in cases {
        assert_eq!(faults(&sources(&environment)), [line]);
    }
}

#[test]
fn production_is_strict_where_development_is_not() {
    for (environment, line) in cases(include_str!("bad_in_production.txt")) {
        let development = load(&sources(&environment));
        assert!(development.is_ok(), "{development:?}");
        let mut production = sources(&environment);
        production.profile = Some("production".into());
        production.environment.push(("APP__OTEL__ENDPOINT".into(), "off".into()));
        production.environment.reverse();
        assert_eq!(faults(&production), [line]);
    }
}

#[test]
fn production_takes_an_address_for_each_signal_or_silence_that_is_meant() {
    let each = ["TRACES", "METRICS", "LOGS"].map(|signal| format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
    let mut addresses: Vec<_> = each.iter().map(|name| (name.as_str(), "http://collector:4318")).collect();
    addresses.push(("APP__PROFILE", "production"));
    assert!(load(&sources(&addresses)).is_ok());
    addresses.remove(0);
    assert!(faults(&sources(&addresses))[0].starts_with("otel.endpoint"), "traces would go to the standard's default");
    let silent = [("APP__PROFILE", "production"), ("APP__OTEL__ENDPOINT", "off"), ("OTEL_SDK_DISABLED", "true")];
    assert!(load(&sources(&silent)).is_ok());
}

#[test]
fn every_bad_file_is_answered_with_its_line_and_no_other() {
    for (text, line) in BAD_FILES {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        assert_eq!(faults(&sources), [line.replace("FILE", &file.path().display().to_string())]);
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let sources = Sources { file: Some("no/such/file.toml".into()), ..Sources::default() };
    let line = "file no/such/file.toml: cannot be read: No such file or directory (os error 2)";
    assert_eq!(faults(&sources), [line]);
}

#[test]
#[cfg(unix)]
fn a_variable_that_is_not_utf_8_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let value = std::ffi::OsString::from_vec(vec![0xff]);
    let sources = Sources { environment: vec![("APP__API__LISTEN".into(), value)], ..Sources::default() };
    assert_eq!(faults(&sources), ["environment variable APP__API__LISTEN: must be UTF-8"]);
}

#[test]
fn all_faults_are_told_at_once_and_one_cause_is_told_once() {
    let all = [
        ("APP__API__LISTEN", "x"),
        ("APP__SCHEDULER__LEASE_MS", "x"),
        ("APP__SCHEDULER__HEARTBEAT_MS", "20000"),
        ("APP__STORE__URL", "x"),
        ("APP__NOPE", "x"),
        ("APP__ADMIN__LISTEN", "0.0.0.0:1"),
    ];
    let keys: Vec<_> = load(&sources(&all)).unwrap_err().0.into_iter().map(|fault| fault.key).collect();
    assert_eq!(keys, ["nope", "api.listen", "scheduler.lease_ms", "store.url", "admin.token"]);
}
