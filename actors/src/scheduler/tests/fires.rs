//! Schedules whose jobs meet each other, under a running scheduler.

use super::*;
use crate::jobs::Sleep;
use crate::store::{NewSchedule, Overlap, Policies, Schedule, Triggered};

const HOUR: u64 = 3_600_000;

/// Nothing but a poke can make the firer look a second time: its interval is half a minute, and the clock stands.
async fn house(overlap: Overlap) -> (House, Schedule) {
    let house = House::with_clock(quick(), Handlers::new().with(Sleep), Clock::manual(START_MS)).await;
    let policies = Policies { overlap, ..Policies::default() };
    let every = Cadence::every(HOUR).unwrap();
    let new = NewSchedule { policies, ..NewSchedule::new(tenant("demo"), every, "sleep", json!({ "ms": HOUR })) };
    let schedule = house.scheduler.create_schedule(new).await.unwrap();
    (house, schedule)
}

async fn fired(house: &House, schedule: &Schedule, fires: u64) -> Schedule {
    eventually("fires", async || {
        let now = house.store.get_schedule(&schedule.tenant, schedule.id).await.unwrap().unwrap();
        (now.tally.fires == fires).then_some(now)
    })
    .await
}

async fn only_job(house: &House) -> Job {
    let filter = crate::store::JobFilter { states: vec![JobState::Running], ..Default::default() };
    eventually("one running job", async || {
        let mut jobs = house.store.list_jobs(&tenant("demo"), &filter, None, 9).await.unwrap();
        (jobs.len() == 1).then(|| jobs.remove(0))
    })
    .await
}

#[tokio::test]
async fn a_waiting_fire_starts_as_soon_as_the_job_before_is_cancelled_or_done() {
    let (house, schedule) = house(Overlap::BufferOne).await;
    fired(&house, &schedule, 1).await;
    let first = only_job(&house).await;
    house.clock.advance(1_000);
    let waits = house.scheduler.trigger_schedule(&schedule.tenant, schedule.id, new_id(), None).await.unwrap();
    assert!(matches!(waits, Some(Triggered::Buffered { .. })), "{waits:?}");
    house.scheduler.cancel(&first.tenant, first.id, "enough").await.unwrap();
    fired(&house, &schedule, 2).await;
    // The end that a runner reports does it, too.
    let second = only_job(&house).await;
    house.clock.advance(1_000);
    let waits = house.scheduler.trigger_schedule(&schedule.tenant, schedule.id, new_id(), None).await.unwrap();
    assert!(matches!(waits, Some(Triggered::Buffered { .. })), "{waits:?}");
    let dead = crate::store::Outcome::Dead { reason: "enough".to_owned(), fault: crate::store::Fault::Failure };
    house.scheduler.0.flight.ended(crate::store::Settlement::new(second.fence(), dead));
    house.scheduler.0.settler.poke();
    fired(&house, &schedule, 3).await;
}

#[tokio::test]
async fn the_job_of_an_earlier_fire_is_told_at_once_that_it_is_cancelled() {
    let (house, schedule) = house(Overlap::CancelPrevious).await;
    fired(&house, &schedule, 1).await;
    let first = only_job(&house).await;
    house.clock.advance(HOUR as i64);
    house.scheduler.0.firer.poke();
    fired(&house, &schedule, 2).await;
    house.until(&first, JobState::Cancelled).await;
    let second = only_job(&house).await;
    assert_ne!(first.id, second.id);
    eventually("the first handler to end", async || (house.scheduler.0.flight.running() == 1).then_some(())).await;
    assert_eq!(house.scheduler.0.flight.held(), [second.fence()]);
}
