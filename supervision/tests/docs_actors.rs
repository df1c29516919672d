//! The children of which the examples on the front page are made pass the battery, as every actor should.
#![allow(dead_code, reason = "the examples use the other messages")]

use supervision::battery::{self, Check, Report, Subject};

include!("../docs/examples/counter.rs");
include!("../docs/examples/sweeper.rs");

fn skipped(report: &Report) -> Vec<Check> {
    report.skipped().map(|check| check.check).collect()
}

fn subject(address: Address<Message>) -> Subject {
    Subject::new(counter("counter", &address)).message(&address, || Message::Add(0)).call(&address, Message::Total)
}

#[tokio::test(start_paused = true)]
async fn the_counter_of_the_examples_passes_the_battery() {
    let report = battery::run(|| subject(Address::with_capacity("counter", 64))).await;
    assert_eq!(skipped(&report), [Check::PanicInTask]);
}

#[tokio::test(start_paused = true)]
async fn it_passes_with_a_kept_mailbox_too() {
    let report = battery::run(|| subject(Address::with_capacity("counter", 64).keep_mailbox())).await;
    assert_eq!(skipped(&report), [Check::PanicInTask]);
}

#[tokio::test(start_paused = true)]
async fn the_sweeper_of_the_examples_passes_the_battery() {
    let report = battery::run(|| sweeper("sweeper")).await;
    assert!(report.checks.len() - report.skipped().count() > 8, "{report}");
}
