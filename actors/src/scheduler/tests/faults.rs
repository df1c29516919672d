//! What goes wrong around the jobs: actors that panic, leases that are lost, clocks that jump, a store that is away.

use super::house::*;
use super::*;

#[tokio::test]
async fn a_panic_of_any_of_its_actors_loses_no_job() {
    let work = Work::new(Manner::Quick);
    let house = House::new(quick(), Handlers::new().with(work.clone())).await;
    let mut jobs = Vec::new();
    for actor in ["claimer", "runners", "settler", "reporter", "firer", "sweeper"] {
        jobs.extend(house.enqueue("demo", "work", json!({}), 100).await);
        house.tree.inject_panic(format!("{ID}.{actor}").as_str()).await.unwrap();
    }
    house.until_all_done(&jobs).await;
    let restarted = eventually("all to be back", async || {
        let nodes = house.incarnations();
        nodes.iter().filter(|(path, _)| path != ID).all(|(_, incarnation)| *incarnation == 2).then_some(nodes)
    });
    assert_eq!(restarted.await.len(), 7);
    house.stop_cleanly().await;
}

#[tokio::test]
async fn a_lost_lease_cancels_the_job_and_its_late_answer_changes_nothing() {
    let work = Work::new(Manner::UntilCancelled);
    // A sweep of its own would only be faster than the one here.
    let settings = Settings { sweep_interval_ms: 60_000, ..quick() };
    let clock = Clock::manual(START_MS);
    let house = House::with_clock(settings, Handlers::new().with(work.clone()), clock).await;
    let job = house.enqueue("demo", "work", json!({}), 1).await.remove(0);
    work.until_runs(1).await;
    // The other process finds the lease over and takes the job, between two heartbeats of this one.
    let other = Uuid::now_v7();
    let claim = ClaimJobs { queue: "default", owner: other, lease_ms: 90_000, limit: 1, tenant_running_max: 9 };
    let stolen = eventually("the lease to run out", async || {
        house.clock.advance(30_001);
        house.store.sweep(9, 10).await.unwrap();
        house.store.claim(claim).await.unwrap().jobs.pop()
    })
    .await;
    assert_eq!((stolen.id, stolen.attempt > 1), (job.id, true));
    work.until_cancelled().await;
    eventually("the late answer", async || (house.scheduler.0.flight.unwritten() == 0).then_some(())).await;
    let now = house.read(&job).await;
    assert_eq!((now.state, now.attempt), (JobState::Running, stolen.attempt));
    assert_eq!(house.scheduler.0.flight.held(), []);
}

#[tokio::test]
async fn a_clock_that_jumps_does_not_take_our_own_jobs_from_us() {
    let work = Work::new(Manner::Gated);
    // No heartbeat of its own comes to help between two sweeps.
    let settings = Settings { heartbeat_ms: 15_000, poll_interval_ms: 50, ..quick() };
    let house = House::with_clock(settings, Handlers::new().with(work.clone()), Clock::manual(START_MS)).await;
    let job = house.enqueue("demo", "work", json!({}), 1).await.remove(0);
    work.until_runs(1).await;
    for jump_ms in [7_200_000, 7_200_000, -7_200_000, -7_200_000, 7_200_000] {
        house.clock.advance(jump_ms);
        house.until_swept().await;
    }
    work.open(3);
    let done = house.until(&job, JobState::Done).await;
    assert_eq!((work.runs(), done.attempt, done.crashes), (1, 1, 0));
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_takes_jobs_from_no_process_that_lives_and_later_from_one_that_is_lost() {
    let settings = Settings { lease_ms: 2_000, ..quick() };
    let house =
        House::with_clock(settings, Handlers::new().with(Work::new(Manner::Quick)), Clock::manual(START_MS)).await;
    // The claimer here is not told.
    let job = house.store.enqueue(vec![NewJob::new(tenant("demo"), "work", json!({}))]).await.unwrap().remove(0);
    let (owner, lease_ms) = (Uuid::now_v7(), 30_000);
    let claim = ClaimJobs { queue: "default", owner, lease_ms, limit: 1, tenant_running_max: 9 };
    let held = [house.store.claim(claim).await.unwrap().jobs.remove(0).fence()];
    house.clock.advance(7_200_000);
    house.until_swept().await;
    let extend = async || house.store.heartbeat(owner, lease_ms, &held).await.unwrap();
    assert_eq!(extend().await, [], "it was alive when this process came, and has lost its job");
    // Leases are judged by now.
    let other = house.store.enqueue(vec![NewJob::new(tenant("demo"), "work", json!({}))]).await.unwrap().remove(0);
    house.store.claim(ClaimJobs { lease_ms: 1, ..claim }).await.unwrap();
    house.clock.advance(2);
    eventually("a lease to be over", async || (house.read(&other).await.crashes == 1).then_some(())).await;
    house.clock.advance(7_200_000);
    house.until_swept().await;
    assert_eq!(extend().await, [], "it was alive, and has lost its job");
    house.clock.advance(7_200_000);
    eventually("the job to be lost", async || (house.read(&job).await.crashes == 1).then_some(())).await;
}

#[tokio::test]
async fn a_store_that_is_away_parks_the_loops_and_ends_none() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Clock::system(), 100).await;
    let handlers = Handlers::new().with(Work::new(Manner::Quick));
    let busy = Settings { poll_interval_ms: 20, sweep_interval_ms: 20, ..quick() };
    let house = House::on(store, busy, handlers, Clock::system(), directory).await;
    let before = house.enqueue("demo", "work", json!({}), 1).await;
    house.until_all_done(&before).await;
    let file = format!("sqlite://{}/store.db", house.directory.path().display());
    let mut thief = <sqlx::SqliteConnection as sqlx::Connection>::connect(&file).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut thief).await.unwrap();
    let refused = house.scheduler.enqueue(vec![NewJob::new(tenant("demo"), "work", json!({}))]).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    // Whoever ticks now has met the lock: a call ends after 100 ms at the latest.
    let met_by_ms = crate::model::now_ms() + 200;
    eventually("the claimer and the sweeper to meet the lock", async || {
        let beats = house.tree.heartbeats().snapshot();
        let ticked = |name| beats.iter().any(|beat| beat.loop_name == name && beat.last_tick_at_ms > Some(met_by_ms));
        (ticked(claimer::ID) && ticked(sweeper::ID)).then_some(())
    })
    .await;
    sqlx::query("ROLLBACK").execute(&mut thief).await.unwrap();
    let after = eventually("the store", async || {
        house.scheduler.enqueue(vec![NewJob::new(tenant("demo"), "work", json!({}))]).await.ok()
    })
    .await;
    house.until_all_done(&after).await;
    assert!(house.incarnations().iter().all(|(_, incarnation)| *incarnation == 1), "{:?}", house.incarnations());
}

#[tokio::test]
async fn an_end_that_cannot_be_written_holds_up_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Clock::system(), 20_000).await;
    let channel = new_channel(&*store, "demo").await;
    let handlers = Handlers::new().with(Work::new(Manner::Impossible(channel))).with(Notify);
    let house = House::on(store, quick(), handlers, Clock::system(), directory).await;
    let impossible = house.enqueue("demo", "work", json!({}), 3).await;
    let possible = house.enqueue("demo", "notify", json!({ "channel": channel, "data": 1 }), 3).await;
    house.until_all_done(&possible).await;
    for job in &impossible {
        let dead = house.until(job, JobState::Dead).await;
        let reason = dead.last_error.unwrap();
        assert!(reason.starts_with("its end could not be written: settle: UNIQUE constraint failed"), "{reason}");
    }
    assert_eq!(house.store.list_deliveries(&tenant("demo"), channel, None, Before::newest(10)).await.unwrap().len(), 3);
}
