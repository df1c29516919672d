//! The alerts: read and tried by Prometheus' own tool. That they and the dashboard ask for what there is, is told in the tests
//! of the telemetry.

use serde_json::{Value, json};
use tests::binary::workspace;

use super::{checked_by, path, read, yaml};

fn alerts() -> Vec<Value> {
    yaml("prometheus/alerts.yaml")["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn promtool_finds_nothing_to_say_against_the_alerts() {
    checked_by("promtool", &["check", "rules", "--lint-fatal"], &path("prometheus/alerts.yaml"));
}

#[test]
fn the_alerts_fire_when_they_should_and_not_before() {
    checked_by("promtool", &["test", "rules"], &path("prometheus/alerts.test.yaml"));
}

#[test]
fn every_expression_of_the_dashboard_is_one() {
    let dashboard: Value = serde_json::from_str(&read("grafana/perennial.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let rules: Vec<Value> = targets
        .enumerate()
        .map(|(number, target)| {
            let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            json!({"record": format!("expression:{number}"), "expr": expression})
        })
        .collect();
    assert!(rules.len() > 20, "{} expressions", rules.len());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yaml");
    // JSON is YAML.
    std::fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    checked_by("promtool", &["check", "rules"], &file);
}

#[test]
fn every_alert_leads_to_a_chapter_that_is_there() {
    for alert in alerts() {
        let leads = alert["annotations"]["inspecting"].as_str().unwrap_or_else(|| panic!("{alert:#}"));
        let (page, chapter) = leads.split_once('#').unwrap();
        let text = std::fs::read_to_string(workspace().join(page)).unwrap();
        let titles = text.lines().filter_map(|line| line.strip_prefix("## "));
        let found = titles.map(|title| title.to_lowercase().replace(' ', "-").replace([',', '.', '`'], ""));
        assert!(found.into_iter().any(|anchor| anchor == chapter), "{leads}");
    }
}
