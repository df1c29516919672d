//! A tenant cancels its jobs while they wait and while they run.

use super::*;
use crate::jobs::Sleep;
use crate::store::Cancelled;

const HOUR: u64 = 3_600_000;

async fn house() -> House {
    let settings = Settings { concurrency: 1, ..quick() };
    House::new(settings, Handlers::new().with(Sleep)).await
}

async fn cancel(house: &House, job: &Job) -> Job {
    match house.scheduler.cancel(&job.tenant, job.id, "cancelled").await.unwrap() {
        Some(Cancelled::Now(job)) => *job,
        other => panic!("not cancelled: {other:?}"),
    }
}

async fn until_running(house: &House, count: usize) {
    let running = || async { (house.scheduler.0.flight.running() == count).then_some(()) };
    eventually("jobs to run", running).await;
}

#[tokio::test]
async fn a_running_job_is_stopped_at_once_and_the_next_one_takes_its_place() {
    let house = house().await;
    let long = house.enqueue("demo", "sleep", json!({ "ms": HOUR }), 1).await.remove(0);
    house.until(&long, JobState::Running).await;
    let waiting = house.enqueue("demo", "sleep", json!({ "ms": HOUR }), 1).await.remove(0);
    let next = house.enqueue("demo", "sleep", json!({ "ms": 1 }), 1).await.remove(0);
    assert_eq!(cancel(&house, &waiting).await.state, JobState::Cancelled);
    let cancelled = cancel(&house, &long).await;
    assert_eq!((cancelled.state, cancelled.attempt), (JobState::Cancelled, 1));
    house.until(&next, JobState::Done).await;
    for job in [&long, &waiting] {
        assert_eq!(house.read(job).await.state, JobState::Cancelled);
    }
    assert_eq!(house.scheduler.0.flight.held(), []);
    house.stop_cleanly().await;
}

#[tokio::test]
async fn a_job_that_another_process_cancelled_is_stopped_by_the_next_heartbeat() {
    let house = house().await;
    let job = house.enqueue("demo", "sleep", json!({ "ms": HOUR }), 1).await.remove(0);
    house.until(&job, JobState::Running).await;
    until_running(&house, 1).await;
    house.store.cancel_job(&job.tenant, job.id, "cancelled elsewhere").await.unwrap();
    until_running(&house, 0).await;
    assert_eq!(house.read(&job).await.last_error.as_deref(), Some("cancelled elsewhere"));
    house.stop_cleanly().await;
}
