//! What the alerts and the dashboard of `deploy/` ask for is told by the service, under these names and labels.

use std::collections::BTreeSet;

use serde_json::Value;
use tests::binary::workspace;
use yaml_rust2::YamlLoader;

use super::catalogue::Catalogue;

/// What Prometheus says of every target itself.
const OF_PROMETHEUS: [&str; 4] = ["up", "instance", "job", "le"];

fn read(name: &str) -> String {
    std::fs::read_to_string(workspace().join("deploy").join(name))
        .unwrap_or_else(|error| panic!("deploy/{name}: {error}"))
}

/// Each with where it stands.
fn expressions() -> Vec<(String, String)> {
    let alerts = YamlLoader::load_from_str(&read("prometheus/alerts.yaml")).unwrap().remove(0);
    let rules = alerts["groups"].as_vec().unwrap().iter().flat_map(|group| group["rules"].as_vec().unwrap());
    let asked = |rule: &yaml_rust2::Yaml| ["alert", "expr"].map(|field| rule[field].as_str().unwrap().to_owned());
    let mut all: Vec<(String, String)> = rules.map(asked).map(|[name, expression]| (name, expression)).collect();
    let dashboard: Value = serde_json::from_str(&read("grafana/perennial.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.push((panel["title"].as_str().unwrap().to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    all
}

/// A word of an expression, with what stands before and behind it.
struct Word<'a> {
    text: &'a str,
    before: &'a str,
    behind: &'a str,
}

/// The names in an expression: not its texts, numbers, spans of time and variables.
fn words(expression: &str) -> Vec<Word<'_>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut words, mut from, mut quoted, mut bracketed) = (Vec::new(), None, false, false);
    for (at, c) in expression.char_indices().chain([(expression.len(), ' ')]) {
        quoted ^= c == '"';
        bracketed = c == '[' || bracketed && c != ']';
        match from {
            None if is_name(c) && !quoted && !bracketed => from = Some(at),
            Some(start) if !is_name(c) => {
                let text = &expression[start..at];
                from = None;
                if text.starts_with(|c: char| c.is_ascii_lowercase()) {
                    words.push(Word { text, before: &expression[..start], behind: expression[at..].trim_start() });
                }
            }
            _ => {}
        }
    }
    words
}

/// What is asked for that nobody tells.
fn unknown(expression: &str, metrics: &BTreeSet<String>, labels: &BTreeSet<String>) -> Vec<String> {
    const WORDS: [&str; 6] = ["by", "without", "or", "and", "unless", "on"];
    let is_unknown = |word: &Word<'_>| {
        let inside = |open: char, close: char| word.before.rfind(open) > word.before.rfind(close);
        let grouped = word.before.rsplit_once('(').is_some_and(|(before, list)| {
            let before = before.trim_end();
            !list.contains(')') && (before.ends_with(" by") || before.ends_with(" without"))
        });
        match () {
            () if inside('{', '}') || grouped => !labels.contains(word.text),
            () if ["(", "by ", "without "].iter().any(|next| word.behind.starts_with(next))
                || WORDS.contains(&word.text) =>
            {
                false
            }
            () => !metrics.contains(word.text),
        }
    };
    words(expression).iter().filter(|word| is_unknown(word)).map(|word| word.text.to_owned()).collect()
}

#[test]
fn every_metric_and_label_that_alerts_and_the_dashboard_ask_for_is_in_the_catalogue() {
    let catalogue = Catalogue::read();
    let mut metrics: BTreeSet<String> = OF_PROMETHEUS.map(str::to_owned).into();
    let mut labels = metrics.clone();
    for metric in catalogue.metrics.values() {
        let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", metric.prometheus));
        match metric.kind.as_str() {
            "histogram" => metrics.extend(parts),
            _ => drop(metrics.insert(metric.prometheus.clone())),
        }
        labels.extend(metric.labels.keys().map(|label| label.replace('.', "_")));
    }
    let all = expressions();
    assert!(all.len() > 30, "only {} expressions were found", all.len());
    for (place, expression) in &all {
        assert_eq!(unknown(expression, &metrics, &labels), Vec::<String>::new(), "{place}: {expression}");
    }
}

#[test]
fn a_metric_or_a_label_that_nobody_tells_is_found() {
    let [metrics, labels] = [["told", "told_too"], ["label", "le"]].map(|names| names.map(str::to_owned).into());
    let found = |expression: &str| unknown(expression, &metrics, &labels);
    assert_eq!(found(r#"sum by (label) (rate(told{label=~"a|untold"}[5m])) / told_too > 0.5"#), Vec::<String>::new());
    assert_eq!(found("max(untold) or told"), ["untold"]);
    assert_eq!(found("sum by (label, other) (told)"), ["other"]);
    assert_eq!(found(r#"told{other="x"} or told{label="other"}"#), ["other"]);
}
