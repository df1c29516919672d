//! What a handler may say and answer, through the whole subsystem.

use super::*;
use crate::bus::{BusItem, MemoryBus, MemoryBusLimits};
use crate::jobs::Progress;

/// Puts its job off twice, then says how far it is until it is let go.
struct Patient(Arc<tokio::sync::Semaphore>);

impl JobHandler for Patient {
    const KIND: &'static str = "patient";
    type Payload = Value;

    async fn run(&self, _: Value, context: JobContext) -> std::result::Result<JobDone, JobError> {
        if context.job.snoozes < 2 {
            return Err(JobError::snooze(Duration::from_millis(1), "not there yet"));
        }
        for done in 0..1_000 {
            context.progress(Progress::of(done, 1_000));
        }
        self.0.acquire().await.unwrap().forget();
        context.progress(Progress::of(1_000, 1_000));
        Ok(JobDone::default())
    }
}

#[tokio::test]
async fn a_job_is_put_off_uncharged_and_tells_how_far_it_is_while_it_runs() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let house = House::new(quick(), Handlers::new().with(Patient(Arc::clone(&gate)))).await;
    let bus = MemoryBus::new(MemoryBusLimits::default());
    let mut listener = crate::bus::Bus::subscribe(&*bus);
    house.scheduler.tell(bus);
    let once = NewJob { max_attempts: 1, ..NewJob::new(tenant("demo"), "patient", json!({})) };
    let job = house.scheduler.enqueue(vec![once]).await.unwrap().remove(0);

    let BusItem::Event(event) = timeout(PATIENCE, listener.recv()).await.unwrap() else { panic!("no event") };
    assert_eq!((event.topic.as_str(), event.tenant.as_str()), (&*format!("jobs.{}", job.id), "demo"));
    let running = house.read(&job).await;
    assert_eq!((running.state, running.snoozes, running.charged()), (JobState::Running, 2, 1));
    assert_eq!((&event.data["type"], &event.data["job"]), (&json!("progress"), &json!(job.id)));
    assert_eq!(event.data["progress"]["total"], 1_000);
    assert!(running.progress.is_some(), "told before it was written");

    gate.add_permits(1);
    let done = house.until(&job, JobState::Done).await;
    assert_eq!(done.progress, Some(Progress::of(1_000, 1_000)), "the last word comes with the end");
    house.stop_cleanly().await;
}
