//! The catalogue against what arrives at a collector and what stands on `/metrics` in a full life of the service: nothing is
//! told that is not in it, and nothing is in it that is never told.

use std::collections::{BTreeMap, BTreeSet};

use tests::collector::{Collector, Point, Span};

use super::catalogue::{Catalogue, Names};
use super::life;

/// What a test does not bring about, and why.
const NOT_HERE: &[(&str, &str)] = &[
    ("actor.message", "no actor of the service as it is takes messages that carry a trace; those of others may"),
    ("incident.reports", "nobody is told of incidents by a service that was built without a reporter"),
    ("panic.uncaught", "all that runs has somebody who catches its panics"),
];

/// The same of an attribute or a label: of what, which, why.
const NEVER_BORNE: &[(&str, &str, &str)] = &[
    ("panic.recovered", "panic.condition", "an assertion breaks only if the program is wrong"),
    ("panic.recovered", "panic.context", "likewise"),
];

/// What stands on which thing, and which values it has.
type Seen = BTreeMap<String, BTreeMap<String, Names>>;

fn note<'a>(seen: &mut Seen, name: &str, attributes: impl IntoIterator<Item = (&'a String, &'a String)>) {
    let here = seen.entry(name.to_owned()).or_default();
    for (key, value) in attributes {
        here.entry(key.clone()).or_default().insert(value.clone());
    }
}

#[tokio::test]
async fn what_is_told_is_in_the_catalogue_and_what_is_in_the_catalogue_is_told() {
    let catalogue = Catalogue::read();
    let collector = Collector::start().await;
    let Some(pages) = life::of_the_service(&collector).await else { return };
    let mut faults = spans(&catalogue, &collector.spans());
    faults.extend(events(&catalogue, &collector));
    faults.extend(metrics(&catalogue, &collector.points()));
    for page in pages {
        faults.extend(prometheus(&catalogue, &page));
    }
    assert!(faults.is_empty(), "{:#?}", faults);
}

fn spans(catalogue: &Catalogue, arrived: &[Span]) -> BTreeSet<String> {
    let (mut seen, mut faults) = (Seen::new(), BTreeSet::new());
    for span in arrived {
        let Some(name) = catalogue.name_of(span) else {
            faults.insert(format!("a span that is not in the catalogue: {} of the kind {}", span.name, span.kind));
            continue;
        };
        note(&mut seen, name, &span.attributes);
        let declared = &catalogue.spans[name];
        if declared.made != "child" && !span.is_root() {
            faults.insert(format!("a span that is no root: {name}"));
        }
        let is_follower = declared.made == "new root plus link";
        if span.links.is_empty() == is_follower && name != "panic.{recovered|uncaught}" {
            faults.insert(format!("{name} has links: {:?}", span.links));
        }
    }
    let declared = catalogue.spans.iter().map(|(name, span)| (name, &span.attributes));
    faults.extend(compare("span", declared.map(|(n, a)| (n.as_str(), a.clone())), &seen, &catalogue.everywhere));
    faults
}

fn events(catalogue: &Catalogue, collector: &Collector) -> BTreeSet<String> {
    let (mut seen, mut faults) = (Seen::new(), BTreeSet::new());
    let spans = collector.spans();
    for event in spans.iter().flat_map(|span| &span.events) {
        if catalogue.events.contains_key(&event.name) {
            note(&mut seen, &event.name, &event.attributes);
        } else if !event.attributes.contains_key("level") {
            // One with a level is a log record that was written within the span.
            faults.insert(format!("an event that is not in the catalogue: {}", event.name));
        }
    }
    for log in collector.logs() {
        // The name of a record that was given none is its place.
        let is_named = !log.name.is_empty() && !log.name.starts_with("event ");
        if is_named && !catalogue.events.contains_key(&log.name) {
            faults.insert(format!("a log record that is not in the catalogue: {}", log.name));
        } else if is_named {
            note(&mut seen, &log.name, &log.attributes);
        }
    }
    let declared = catalogue.events.iter().map(|(name, attributes)| (name.as_str(), attributes.clone()));
    faults.extend(compare("event", declared, &seen, &catalogue.everywhere));
    faults
}

fn metrics(catalogue: &Catalogue, arrived: &[Point]) -> BTreeSet<String> {
    let (mut seen, mut faults) = (Seen::new(), BTreeSet::new());
    for point in arrived.iter().filter(|point| !catalogue.is_foreign(&point.name)) {
        let Some(metric) = catalogue.metrics.get(&point.name) else {
            faults.insert(format!("a metric that is not in the catalogue: {}", point.name));
            continue;
        };
        note(&mut seen, &point.name, &point.attributes);
        // How a gauge is asked for its value is not told.
        let kind = metric.kind.trim_start_matches("observable ");
        if (point.unit.as_str(), point.kind) != (metric.unit.as_str(), kind) {
            faults.insert(format!("{} arrived as {} in {}", point.name, point.kind, point.unit));
        }
        for (label, all) in metric.labels.iter().filter(|(_, all)| !all.is_empty()) {
            if let Some(value) = point.attributes.get(label).filter(|value| !all.contains(*value)) {
                faults.insert(format!("{} has a {label} that is not in the catalogue: {value}", point.name));
            }
        }
    }
    let declared =
        catalogue.metrics.iter().map(|(name, metric)| (name.as_str(), metric.labels.keys().cloned().collect()));
    faults.extend(compare("metric", declared, &seen, &Names::new()));
    faults
}

/// What was declared and what was seen, both ways.
fn compare<'a>(
    what: &str,
    declared: impl Iterator<Item = (&'a str, Names)>,
    seen: &Seen,
    everywhere: &Names,
) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, keys) in declared {
        let Some(found) = seen.get(name) else {
            if !NOT_HERE.iter().any(|(absent, _)| *absent == name) {
                faults.push(format!("a {what} that was never told: {name}"));
            }
            continue;
        };
        for key in found.keys().filter(|key| !everywhere.contains(*key)) {
            // `panic.context` stands for `panic.context.left` too.
            if !keys.iter().any(|known| key == known || key.starts_with(&format!("{known}."))) {
                faults.push(format!("{what} {name} bears what is not in the catalogue: {key}"));
            }
        }
        let excused = |key: &str| NEVER_BORNE.iter().any(|(of, which, _)| *of == name && *which == key);
        for key in keys.iter().filter(|key| !everywhere.contains(*key) && !excused(key)) {
            if !found.contains_key(key) {
                faults.push(format!("{what} {name} never bore {key}"));
            }
        }
    }
    faults
}

/// The families of a scrape have the names of the catalogue.
fn prometheus(catalogue: &Catalogue, page: &str) -> BTreeSet<String> {
    let ours: Names = catalogue.metrics.values().map(|metric| metric.prometheus.clone()).collect();
    let foreign: Vec<String> = catalogue.foreign.iter().map(|prefix| prefix.replace('.', "_")).collect();
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let is_known = |family: &str| ours.contains(family) || foreign.iter().any(|prefix| family.starts_with(prefix));
    // What the service is, as each scrape has it by the conventions of Prometheus.
    let unknown = families.filter(|family| !is_known(family) && *family != "target_info");
    unknown.map(|family| format!("on /metrics, and not in the catalogue: {family}")).collect()
}

#[test]
fn a_few_are_excused_and_each_of_them_is_in_the_catalogue() {
    let catalogue = Catalogue::read();
    let is_there = |name: &str| {
        catalogue.metrics.contains_key(name)
            || catalogue.spans.contains_key(name)
            || catalogue.events.contains_key(name)
    };
    for (name, why) in NOT_HERE {
        assert!(is_there(name) && !why.is_empty(), "{name}");
    }
    for (name, key, why) in NEVER_BORNE {
        assert!(is_there(name) && !why.is_empty(), "{name} {key}");
    }
    assert!(NOT_HERE.len() + NEVER_BORNE.len() <= 12, "nothing is held any more");
}
