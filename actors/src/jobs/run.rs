//! Runs one claimed job: its own trace, its time limit, its panics, its cancellation.

mod span;

use std::sync::Arc;
use std::time::Duration;

use supervision::{GuardSite, Panicked, guard};
use telemetry::context::{TraceContext, as_follower_with, link, with_deadline};
use telemetry::panic::Policy;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::span::{RunSpan, lost_run, run_ids, run_span};
use super::handlers::AnyHandler;
use super::{Ending, Handlers, JobContext, JobDone, JobError, ProgressSlot, RetryPolicy};
use crate::seam::seam;
use crate::store::{Effect, Job, Outcome, Settlement};

/// Runs jobs, one at a time for each call. It knows no store and no queue: a job goes in, how it ended comes out.
#[derive(Debug, Clone)]
pub struct RunOne {
    /// Who can run what.
    pub handlers: Handlers,
    /// What follows from an end.
    pub retry: RetryPolicy,
    /// How long an attempt may take if the job does not say.
    pub timeout_ms: u64,
    /// How long a cancelled handler may take to end by itself before it is dropped.
    pub cancel_grace_ms: u64,
}

/// Under whose name a panic is recorded.
#[derive(Debug, Clone)]
pub struct RunSite {
    /// The direct child of the root.
    pub component: String,
    /// The path of the actor.
    pub actor: String,
}

/// How those who hold a job reach its run, and it them.
#[derive(Debug, Clone)]
pub struct Reins {
    /// Stops it from outside: it is then given back.
    pub cancelled: CancellationToken,
    /// Where it says how far it is.
    pub progress: ProgressSlot,
}

impl RunOne {
    /// Runs one attempt to its end, whatever that is.
    pub async fn run(&self, site: &RunSite, job: Job, reins: Reins) -> Settlement {
        let span = run_span(&job);
        link(&span, &job.last_run);
        if let Some(lost) = lost_run(&job) {
            link(&span, &lost);
        }
        let (origin, ids) = (job.context.clone(), run_ids(job.id, job.attempt));
        as_follower_with(span.clone(), ids, &origin, self.attempt(site, job, reins, span)).await
    }

    async fn attempt(&self, site: &RunSite, job: Job, reins: Reins, span: tracing::Span) -> Settlement {
        let job = Arc::new(job);
        let handler = self.handlers.get(&job.kind);
        let mut panicked = None;
        let (ending, effects) = match handler {
            Some(handler) => self.guarded(site, handler.as_ref(), &job, &reins, &mut panicked).await,
            None => (Ending::Unknown, Vec::new()),
        };
        seam!("after_handler");
        let retry = self.retry.with(handler.and_then(|handler| handler.retry()));
        let outcome = retry.decide(&job, ending);
        RunSpan::outcome(&span, outcome.as_str());
        if let Some(panicked) = panicked {
            panicked.outcome(told(&outcome));
        }
        if let Outcome::Retry { error: why, .. } | Outcome::Dead { reason: why, .. } = &outcome {
            RunSpan::end(&span, "ERROR");
            RunSpan::reason(&span, why);
        }
        Settlement {
            fence: job.fence(),
            outcome,
            effects,
            run: TraceContext::current(),
            progress: reins.progress.last(),
        }
    }

    async fn guarded(
        &self,
        site: &RunSite,
        handler: &dyn AnyHandler,
        job: &Arc<Job>,
        Reins { cancelled, progress }: &Reins,
        panic: &mut Option<Panicked>,
    ) -> (Ending, Vec<Effect>) {
        let (job, attempt) = (Arc::clone(job), job.charged());
        let context =
            JobContext { job: Arc::clone(&job), attempt, cancelled: cancelled.clone(), slot: progress.clone() };
        let timeout_ms = job.timeout_ms.or(handler.timeout_ms()).unwrap_or(self.timeout_ms);
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        // The deadline of the request ended with the request: this attempt has one of its own.
        let mut work = Box::pin(guard(guard_site(site, &job), with_deadline(deadline, handler.run(context))));
        let stopped = tokio::select! {
            biased;
            ended = &mut work => {
                return ending(ended, cancelled.is_cancelled().then_some(Ending::Interrupted), panic);
            }
            () = tokio::time::sleep_until(deadline) => Ending::TimedOut { timeout_ms },
            () = cancelled.cancelled() => Ending::Interrupted,
        };
        // Whoever listens ends by itself.
        cancelled.cancel();
        if let Ok(ended) = timeout(Duration::from_millis(self.cancel_grace_ms), &mut work).await {
            return ending(ended, Some(stopped), panic);
        }
        // What is dropped half-way is still the handler's own code.
        match guard(guard_site(site, &job), async move { drop(work) }).await {
            Ok(()) => (stopped, Vec::new()),
            Err(panicked) => (panicked_ending(panic, panicked), Vec::new()),
        }
    }
}

/// How a handler ended that was not dropped. One that gives up when it is stopped has ended as it was `stopped`.
fn ending(
    ended: Result<Result<JobDone, JobError>, Panicked>,
    stopped: Option<Ending>,
    panic: &mut Option<Panicked>,
) -> (Ending, Vec<Effect>) {
    match (ended, stopped) {
        (Ok(Ok(JobDone { result, effects })), _) => (Ending::Done { result }, effects),
        (Ok(Err(JobError::Retry { .. })), Some(stopped)) => (stopped, Vec::new()),
        (Ok(Err(error)), _) => (Ending::Failed(error), Vec::new()),
        (Err(panicked), _) => (panicked_ending(panic, panicked), Vec::new()),
    }
}

fn panicked_ending(kept: &mut Option<Panicked>, panicked: Panicked) -> Ending {
    let message = panicked.to_string();
    *kept = Some(panicked);
    Ending::Panicked { message }
}

/// What becomes of a job that has panicked, for its incident.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Retry { after_ms, .. } => format!("the job is tried again in {after_ms} ms"),
        Outcome::Dead { reason, .. } => format!("the job is dead: {reason}"),
        other => format!("the job: {}", other.as_str()),
    }
}

fn guard_site<'a>(site: &'a RunSite, job: &'a Job) -> GuardSite<'a> {
    GuardSite {
        component: &site.component,
        actor: &site.actor,
        policy: Policy::KeepRunning,
        phase: "job",
        tenant: Some(job.tenant.as_str()),
        detail: told_of(job),
    }
}

/// What an incident says of the job in which it happened.
pub(crate) fn told_of(job: &Job) -> Vec<(String, String)> {
    vec![
        ("job.id".to_owned(), job.id.to_string()),
        ("job.kind".to_owned(), job.kind.clone()),
        ("job.attempt".to_owned(), job.charged().to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};
    use telemetry::context::RequestId;

    use super::*;
    use crate::jobs::testing::job;
    use crate::jobs::{JobHandler, Panic, RetrySchedule};
    use crate::model::Poke;
    use crate::store::Fault;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    /// Does what the payload says, and notes the origin of the trace that it runs in.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Option<String>>>);

    /// Panics when it is dropped.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    impl JobHandler for Told {
        const KIND: &'static str = "test";
        type Payload = String;

        async fn run(&self, payload: String, context: JobContext) -> Result<JobDone, JobError> {
            *self.0.lock().unwrap() = TraceContext::current().origin();
            match payload.as_str() {
                "end when cancelled" => {
                    context.cancelled.cancelled().await;
                    Err(JobError::retry("cancelled"))
                }
                "finish though cancelled" => {
                    context.cancelled.cancelled().await;
                    Ok(JobDone::default())
                }
                "panic when dropped" => {
                    let _bomb = Bomb;
                    std::future::pending().await
                }
                "hang" => std::future::pending().await,
                _ => Ok(JobDone { result: Some(json!(7)), effects: Vec::new() }),
            }
        }
    }

    fn run_one() -> RunOne {
        RunOne {
            handlers: Handlers::new().with(Told::default()).with(Panic),
            retry: RetryPolicy::default(),
            timeout_ms: 60_000,
            cancel_grace_ms: 500,
        }
    }

    fn reins(cancelled: &CancellationToken) -> Reins {
        Reins { cancelled: cancelled.clone(), progress: ProgressSlot::new(Poke::new()) }
    }

    async fn outcome_of(job: Job, cancelled: &CancellationToken) -> Outcome {
        let site = RunSite { component: "scheduler".to_owned(), actor: "scheduler.runners".to_owned() };
        run_one().run(&site, job, reins(cancelled)).await.outcome
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_ends_well_is_done_with_its_result() {
        let outcome = outcome_of(job().payload(json!("go")), &CancellationToken::new()).await;
        assert_eq!(outcome, Outcome::Done { result: Some(json!(7)) });
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_costs_one_attempt_and_is_told() {
        let outcome = outcome_of(job().kind("panic"), &CancellationToken::new()).await;
        let Outcome::Retry { error, fault: Fault::Crash, .. } = outcome else { panic!("{outcome:?}") };
        assert!(error.contains("did as it was told, attempt 1"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_cancelled_at_its_own_time_limit_and_dropped_after_the_grace() {
        for (payload, took_ms) in [("end when cancelled", 1_500), ("hang", 2_000)] {
            let began = Instant::now();
            let outcome = outcome_of(job().payload(json!(payload)).timeout_ms(1_500), &CancellationToken::new()).await;
            assert_eq!(began.elapsed(), Duration::from_millis(took_ms), "{payload}");
            let Outcome::Retry { error, fault: Fault::Failure, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!(error, "timed out after 1500 ms", "{payload}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_panics_when_it_is_dropped_has_crashed() {
        let job = job().payload(json!("panic when dropped")).timeout_ms(1_500);
        let outcome = outcome_of(job, &CancellationToken::new()).await;
        let Outcome::Retry { error, fault: Fault::Crash, .. } = outcome else { panic!("{outcome:?}") };
        assert!(error.contains("dropped"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_job_is_given_back_whether_it_listens_or_not() {
        for (payload, after_ms) in [("end when cancelled", 0), ("hang", 500)] {
            let cancelled = CancellationToken::new();
            cancelled.cancel();
            let began = tokio::time::Instant::now();
            assert_eq!(outcome_of(job().payload(json!(payload)), &cancelled).await, Outcome::Release);
            assert_eq!(began.elapsed(), Duration::from_millis(after_ms), "{payload}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_finishes_within_the_grace_is_done_all_the_same() {
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        let outcome = outcome_of(job().payload(json!("finish though cancelled")), &cancelled).await;
        assert_eq!(outcome, Outcome::Done { result: None });
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_nobody_knows_is_put_off_and_charged_nothing() {
        let last = job().kind("from a newer version").max_attempts(1);
        let outcome = outcome_of(last, &CancellationToken::new()).await;
        let Outcome::Snooze { reason, after_ms } = outcome else { panic!("{outcome:?}") };
        assert_eq!((reason.as_str(), after_ms), ("no handler for the kind \"from a newer version\"", 1_000));
    }

    /// Notes what is left of its time, and for which request it runs.
    #[derive(Clone, Default)]
    struct Asked(Arc<Mutex<Option<(Duration, String)>>>);

    impl JobHandler for Asked {
        const KIND: &'static str = "test";
        type Payload = Value;

        fn timeout_ms(&self) -> Option<u64> {
            Some(2_500)
        }

        fn retry(&self) -> Option<RetrySchedule> {
            Some(RetrySchedule { base_ms: 7, cap_ms: 7 })
        }

        async fn run(&self, payload: Value, _: JobContext) -> Result<JobDone, JobError> {
            if payload == json!("fail") {
                return Err(JobError::Retry { error: "no".to_owned(), after_ms: Some(1_000) });
            }
            if payload == json!("fail anyhow") {
                return Err(JobError::retry("no"));
            }
            let id = TraceContext::current().request_id().map(ToString::to_string).unwrap_or_default();
            *self.0.lock().unwrap() = telemetry::context::remaining().map(|left| (left, id));
            Ok(JobDone::default())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_has_its_own_time_as_its_deadline_and_the_request_it_runs_for() {
        let asked = Asked::default();
        let run = RunOne { handlers: Handlers::new().with(asked.clone()), ..run_one() };
        let site = RunSite { component: "scheduler".to_owned(), actor: "scheduler.runners".to_owned() };
        let sent = with_deadline(Instant::now() + Duration::from_millis(5), async { TraceContext::current() }).await;
        let job = Job { context: sent.with_request_id(RequestId::parse("order-7")), ..job().timeout_ms(1_500) };
        run.run(&site, job, reins(&CancellationToken::new())).await;
        let seen = asked.0.lock().unwrap().take();
        assert_eq!(seen, Some((Duration::from_millis(1_500), "order-7".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_has_its_own_time_limit_and_waits_unless_a_job_says_otherwise() {
        let asked = Asked::default();
        let run = RunOne { handlers: Handlers::new().with(asked.clone()), ..run_one() };
        let site = RunSite { component: "scheduler".to_owned(), actor: "scheduler.runners".to_owned() };
        run.run(&site, job(), reins(&CancellationToken::new())).await;
        let left = asked.0.lock().unwrap().take().map(|(left, _)| left);
        assert_eq!(left, Some(Duration::from_millis(2_500)));
        let settlement = run.run(&site, job().payload(json!("fail")), reins(&CancellationToken::new())).await;
        let Outcome::Retry { after_ms, .. } = settlement.outcome else { panic!("{settlement:?}") };
        assert_eq!(after_ms, 1_000, "as the attempt says");
        let settlement = run.run(&site, job().payload(json!("fail anyhow")), reins(&CancellationToken::new())).await;
        let Outcome::Retry { after_ms, .. } = settlement.outcome else { panic!("{settlement:?}") };
        assert!(after_ms <= 7, "{after_ms} ms, and not as its kind says");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_bears_the_origin_of_the_request_that_asked_for_it() {
        let told = Told::default();
        let run = RunOne { handlers: Handlers::new().with(told.clone()), ..run_one() };
        let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
        let asked = Job { context: TraceContext::from_parts(Some(&traceparent), None), ..job().payload(json!("go")) };
        let site = RunSite { component: "scheduler".to_owned(), actor: "scheduler.runners".to_owned() };
        run.run(&site, asked, reins(&CancellationToken::new())).await;
        assert_eq!(told.0.lock().unwrap().as_deref(), Some(TRACE));
    }
}
