//! What a run of the tests came to: counts, times, skips. Read from nextest's JUnit report, or from what cargo's own
//! runner prints.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// A test that says this was not carried out: it lacked something that the full command must provide.
const SKIPPED: &str = "skipped: ";

/// The sum of one or more runs.
#[derive(Debug, Default, PartialEq)]
pub struct Report {
    /// Tests that held.
    pub passed: usize,
    /// Tests that did not.
    pub failed: usize,
    /// Tests that said `skipped: ...`, with their reason. They are among the passed ones.
    pub skipped: Vec<String>,
    /// Name and seconds of each test, or of each test binary where the runner tells no more.
    pub times: Vec<(String, f64)>,
}

impl Report {
    /// Reads nextest's JUnit report.
    pub fn from_junit(xml: &str) -> Result<Report, String> {
        let mut report = Report::default();
        let mut reader = Reader::from_str(xml);
        let (mut test, mut text) = (String::new(), String::new());
        loop {
            match reader.read_event().map_err(|error| format!("read the JUnit report: {error}"))? {
                Event::Start(tag) | Event::Empty(tag) => match tag.name().as_ref() {
                    "testcase" => test = report.testcase(&tag)?,
                    "failure" | "error" => report.fail_last(),
                    _ => {}
                },
                Event::Text(part) => text.push_str(&part),
                Event::CData(part) => text.push_str(&part),
                Event::GeneralRef(_) => text.push('&'),
                Event::End(tag) => {
                    if tag.name().as_ref() == "system-out" {
                        report.printed(&test, &text);
                    }
                    text.clear();
                }
                Event::Eof => return Ok(report),
                _ => {}
            }
        }
    }

    /// Reads one more line of cargo's own runner.
    pub fn libtest_line(&mut self, line: &str) {
        if let Some(summary) = line.strip_prefix("test result: ") {
            let count = |word: &str| summary.split(';').find_map(|part| part.trim().strip_suffix(word)).and_then(last);
            self.passed += count(" passed").unwrap_or(0);
            self.failed += count(" failed").unwrap_or(0);
            let seconds =
                summary.rsplit("finished in ").next().and_then(|time| time.trim_end_matches('s').parse().ok());
            if let (Some(current), Some(seconds)) = (self.times.last_mut(), seconds) {
                current.1 = seconds;
            }
        } else if let Some(binary) = line.trim_start().strip_prefix("Running ") {
            let name = binary.split(" (").next().unwrap_or(binary);
            self.times.push((format!("all of {name}"), 0.0));
        } else if let Some(package) = line.trim_start().strip_prefix("Doc-tests ") {
            self.times.push((format!("the documentation of {package}"), 0.0));
        } else {
            self.printed("a test", line);
        }
    }

    /// Adds another run.
    pub fn add(&mut self, other: Report) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.times.extend(other.times);
    }

    /// The `count` slowest, the slowest first.
    pub fn slowest(&self, count: usize) -> Vec<&(String, f64)> {
        let mut times: Vec<_> = self.times.iter().collect();
        times.sort_by(|a, b| b.1.total_cmp(&a.1));
        times.truncate(count);
        times
    }

    fn testcase(&mut self, tag: &BytesStart) -> Result<String, String> {
        let name = format!("{} {}", attribute(tag, "classname")?, attribute(tag, "name")?);
        self.passed += 1;
        self.times.push((name.clone(), attribute(tag, "time")?.parse().unwrap_or(0.0)));
        Ok(name)
    }

    fn fail_last(&mut self) {
        self.passed -= 1;
        self.failed += 1;
    }

    fn printed(&mut self, test: &str, text: &str) {
        let reasons = text.lines().filter_map(|line| line.strip_prefix(SKIPPED));
        self.skipped.extend(reasons.map(|reason| format!("{test}: {reason}")));
    }
}

fn attribute(tag: &BytesStart, name: &str) -> Result<String, String> {
    let found = tag.try_get_attribute(name).map_err(|error| format!("read the JUnit report: {error}"))?;
    Ok(found.map_or_else(String::new, |attribute| attribute.value.into_owned()))
}

fn last(words: &str) -> Option<usize> {
    words.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUNIT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="full" tests="3" failures="1" errors="0" time="1.5">
          <testsuite name="tests::boot" tests="3" disabled="0" errors="0" failures="1">
            <testcase name="it_boots" classname="tests::boot" time="0.250"/>
            <testcase name="it_uses_redis" classname="tests::boot" time="0.010">
              <system-out>running &quot;1&quot; test &gt;skipped: in the middle
skipped: no redis-server on this machine
test it_uses_redis ... ok</system-out>
            </testcase>
            <testcase name="it_stops" classname="tests::boot" time="1.200">
              <failure type="test failure">panicked at skipped: not this</failure>
            </testcase>
          </testsuite>
        </testsuites>"#;

    #[test]
    fn the_junit_report_gives_counts_times_and_skips() {
        let report = Report::from_junit(JUNIT).unwrap();
        assert_eq!((report.passed, report.failed), (2, 1));
        assert_eq!(report.skipped, ["tests::boot it_uses_redis: no redis-server on this machine"]);
        assert_eq!(*report.slowest(1)[0], ("tests::boot it_stops".to_owned(), 1.2));
    }

    #[test]
    fn the_lines_of_cargos_own_runner_are_summed() {
        let mut report = Report::default();
        report.libtest_line("     Running tests/boot.rs (target/debug/deps/boot-0123456789abcdef)");
        report.libtest_line("test it_boots ... ok");
        report.libtest_line("skipped: no redis-server");
        report.libtest_line(
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s",
        );
        assert_eq!((report.passed, report.failed), (5, 2));
        assert_eq!(report.skipped, ["a test: no redis-server"]);
        assert_eq!(report.times, [("all of tests/boot.rs".to_owned(), 1.5)]);
    }

    #[test]
    fn two_runs_add_up() {
        let mut all = Report::from_junit(JUNIT).unwrap();
        all.add(Report { passed: 1, ..Report::default() });
        assert_eq!((all.passed, all.failed, all.skipped.len()), (3, 1, 1));
    }

    #[test]
    fn a_report_that_is_no_xml_is_an_error_and_not_a_zero() {
        assert!(Report::from_junit("<testsuite><oops").is_err());
    }
}
