//! `/metrics` as Prometheus reads it: names, labels, values.

use std::collections::BTreeMap;

/// All samples of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
    text: String,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text format; a line that is none fails the test.
    pub fn parse(text: &str) -> Metrics {
        let samples = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| sample(line).unwrap_or_else(|| panic!("not a sample of Prometheus' text format: {line}")))
            .collect();
        Metrics { samples, text: text.to_owned() }
    }

    /// The sum of all samples of `name` that bear these labels, or `None` if there is none: a counter that was never
    /// born differs from one at 0.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut values = self
            .samples
            .iter()
            .filter(|sample| sample.name == name && sample.bears(labels))
            .map(|sample| sample.value)
            .peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// Every value that the label `label` has on samples of `name`.
    pub fn label_values(&self, name: &str, label: &str) -> Vec<String> {
        self.samples
            .iter()
            .filter(|sample| sample.name == name)
            .filter_map(|sample| sample.labels.get(label).cloned())
            .collect()
    }

    /// The scrape as it came.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Sample {
    fn bears(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(*name).is_some_and(|found| found == value))
    }
}

/// `name{a="b",c="d"} 1.5`, labels and a trailing time optional. The project's label values are names and bear no
/// escaped quotes.
fn sample(line: &str) -> Option<Sample> {
    let (head, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = rest.rsplit_once('}')?;
            (name, parse_labels(labels)?, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, BTreeMap::new(), rest)
        }
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: head.to_owned(), labels, value })
}

fn parse_labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text.trim_end_matches(',');
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = after.split_once('"')?;
        labels.insert(name.to_owned(), value.to_owned());
        rest = after.trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = "# HELP panics Panics.\n# TYPE panics counter\n\
        panics{component=\"scheduler\",policy=\"restart\"} 1\n\
        panics{component=\"api\",policy=\"keep_running\"} 2\n\
        up 1 1700000000000\n";

    #[test]
    fn samples_are_summed_over_the_labels_that_were_not_asked_for() {
        let metrics = Metrics::parse(SCRAPE);
        assert_eq!(metrics.value("panics", &[]), Some(3.0));
        assert_eq!(metrics.value("panics", &[("component", "scheduler")]), Some(1.0));
        assert_eq!(metrics.value("up", &[]), Some(1.0));
    }

    #[test]
    fn a_sample_that_was_never_born_is_not_a_zero() {
        let metrics = Metrics::parse(SCRAPE);
        assert_eq!(metrics.value("panics", &[("component", "bus")]), None);
        assert_eq!(metrics.value("panic", &[]), None);
    }

    #[test]
    fn the_values_of_a_label_are_listed() {
        assert_eq!(Metrics::parse(SCRAPE).label_values("panics", "component"), ["scheduler", "api"]);
    }

    #[test]
    #[should_panic(expected = "not a sample")]
    fn a_line_that_prometheus_would_refuse_fails_the_test() {
        Metrics::parse("panics{component=\"scheduler\" 1\n");
    }
}
