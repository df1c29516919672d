//! Holds the table in `CONFORMANCE.md` and the tests that it names together.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

use std::collections::{BTreeMap, BTreeSet};

/// The cases of OTP's suite.
const CASES: usize = 91;
/// Those that have no meaning here.
const NOT_APPLICABLE: [usize; 13] = [8, 31, 69, 70, 71, 72, 73, 74, 75, 86, 87, 88, 89];

struct Row {
    number: usize,
    case: String,
    behaviour: String,
    test: String,
}

fn read(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of each row of a table whose first cell begins with this.
fn table(prefix: &str) -> Vec<Vec<String>> {
    let document = read("CONFORMANCE.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = rows.map(|row| row.split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    cells.filter(|cells| cells[0].strip_prefix(prefix).is_some_and(|number| number.parse::<usize>().is_ok())).collect()
}

fn rows() -> Vec<Row> {
    let row = |cells: Vec<String>| {
        let [number, case, behaviour, test]: [String; 4] = cells.try_into().expect("four cells");
        Row { number: number.parse().unwrap(), case, behaviour, test: test.trim_matches('`').to_owned() }
    };
    table("").into_iter().map(row).collect()
}

/// The names of the tests in a file, which are the functions behind a line that makes them one.
fn tests_in(file: &str) -> BTreeSet<String> {
    let (text, mut names, mut is_test) = (read(&format!("tests/{file}")), BTreeSet::new(), false);
    for line in text.lines() {
        if line.starts_with("#[tokio::test") || line == "#[test]" {
            is_test = true;
        } else if let Some(name) = line.trim_start_matches("async ").strip_prefix("fn ").filter(|_| is_test) {
            names.insert(name.split('(').next().unwrap_or_default().to_owned());
            is_test = false;
        }
    }
    names
}

#[test]
fn every_case_of_otps_suite_is_in_the_table_once_and_in_order() {
    let rows = rows();
    assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), (1..=CASES).collect::<Vec<_>>());
    assert_eq!(rows.iter().map(|row| &row.case).collect::<BTreeSet<_>>().len(), CASES);
    assert!(rows.iter().all(|row| row.behaviour.len() > 5));
}

#[test]
fn every_case_has_a_test_that_exists_or_a_reason_for_having_none() {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows() {
        if NOT_APPLICABLE.contains(&row.number) {
            assert!(row.test == "-" && row.behaviour.starts_with("none: "), "row {} has a reason", row.number);
            continue;
        }
        let (file, name) = row.test.split_once("::").unwrap_or_else(|| panic!("row {} names a test", row.number));
        let tests = known.entry(file.to_owned()).or_insert_with(|| tests_in(file));
        assert!(tests.contains(name), "row {}: there is no test {name} in {file}", row.number);
    }
}

#[test]
fn no_test_serves_two_cases() {
    let mut served = BTreeMap::new();
    for row in rows().into_iter().filter(|row| row.test != "-") {
        let before = served.insert(row.test.clone(), row.number);
        assert_eq!(before, None, "rows {before:?} and {} name {}", row.number, row.test);
    }
    assert_eq!(served.len(), CASES - NOT_APPLICABLE.len());
}

#[test]
fn every_deliberate_deviation_says_what_why_and_how_to_have_otps_behaviour() {
    let deviations = table("C");
    let numbers: Vec<&str> = deviations.iter().map(|cells| cells[0].as_str()).collect();
    assert_eq!(numbers, (1..=12).map(|number| format!("C{number}")).collect::<Vec<_>>());
    for cells in &deviations {
        assert_eq!(cells.len(), 5, "{}", cells[0]);
        assert!(cells.iter().skip(1).all(|cell| cell.len() > 10), "{}", cells[0]);
    }
}
