//! Each of the six through the battery, on one store: whatever happens to one of them, the store stays sound.

use supervision::battery;

use super::*;

/// The parts of a scheduler that has work to do, without its actors.
async fn shared() -> (Arc<Shared>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Clock::system(), 20_000).await;
    let handlers = Handlers::new().with(Work::new(Manner::Quick));
    let scheduler = Scheduler::new(quick(), store, handlers, Poke::new()).unwrap();
    let jobs = (0..20).map(|_| NewJob::new(tenant("demo"), "work", json!({}))).collect();
    scheduler.enqueue(jobs).await.unwrap();
    (scheduler.0, directory)
}

async fn behaves(child: fn(Arc<Shared>) -> ChildSpec) {
    let (shared, _directory) = shared().await;
    let report = battery::run(|| child(Arc::clone(&shared))).await;
    assert_eq!(report.skipped().count(), 2, "all but the flood and what is for tasks: {report}");
}

#[tokio::test]
async fn the_sweeper_passes_the_battery() {
    behaves(sweeper::child).await;
}

#[tokio::test]
async fn the_firer_passes_the_battery() {
    behaves(firer::child).await;
}

#[tokio::test]
async fn the_reporter_passes_the_battery() {
    behaves(reporter::child).await;
}

#[tokio::test]
async fn the_settler_passes_the_battery() {
    behaves(settler::child).await;
}

#[tokio::test]
async fn the_runners_pass_the_battery() {
    behaves(runners::child).await;
}

#[tokio::test]
async fn the_claimer_passes_the_battery() {
    behaves(claimer::child).await;
}
