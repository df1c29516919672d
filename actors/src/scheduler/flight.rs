//! The jobs that this process holds, from the claim to the answer of the store.
//!
//! It is made before the tree and outlives its actors, so that a restart of one of them loses nothing: what was claimed
//! waits for the next runners, what has ended for the next settler. A job is held until the store has its end, and the
//! number of held jobs is limited: that bounds every queue in here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::jobs::{Progress, ProgressSlot, Reins};
use crate::model::{Poke, TenantId, TraceContext};
use crate::store::{Fence, Job, Outcome, Settlement};

/// Of the jobs that have not begun, only so many are held as begin within this time.
const AHEAD: Duration = Duration::from_millis(100);

/// See the page of this module.
#[derive(Debug)]
pub(super) struct Flight {
    /// Jobs that may run at a time.
    concurrency: usize,
    /// Jobs that may wait beside them, to begin or for their end to be written.
    batch: usize,
    table: Mutex<Table>,
    idle: Notify,
    /// Running jobs have said how far they are.
    reports: Poke,
}

#[derive(Debug, Default)]
struct Table {
    held: HashMap<Fence, Held>,
    /// Claimed, not begun.
    waiting: VecDeque<Job>,
    /// Runs that have not reported, also of jobs that are no longer held.
    running: usize,
    /// Ended, not written.
    ended: VecDeque<Settlement>,
    pace: Pace,
}

/// How many runs end in a span of [`AHEAD`].
#[derive(Debug, Default)]
struct Pace {
    began: Option<Instant>,
    ended: usize,
    ended_before: usize,
}

#[derive(Debug)]
struct Held {
    cancelled: CancellationToken,
    /// When the lease is over, by this process's own monotonic clock.
    lease_until: Instant,
    /// Whether a schedule made it: a fire may wait for its end.
    is_fired: bool,
    progress: ProgressSlot,
    tenant: TenantId,
    context: TraceContext,
}

/// How far a running job is.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) fence: Fence,
    pub(super) progress: Progress,
    pub(super) tenant: TenantId,
    /// Of whoever asked for the job.
    pub(super) context: TraceContext,
    /// Where it comes from.
    pub(super) slot: ProgressSlot,
}

/// A job to run, and what stops it.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) job: Job,
    pub(super) reins: Reins,
}

impl Flight {
    pub(super) fn new(concurrency: u32, batch: u32) -> Self {
        let (concurrency, batch) = (concurrency as usize, batch as usize);
        Self { concurrency, batch, table: Mutex::default(), idle: Notify::new(), reports: Poke::new() }
    }

    /// How many more jobs may be claimed: those that begin at once, and those that begin as soon as others end, by the pace
    /// of late. What waits here for longer could have begun in another process, or have let a more urgent job pass.
    pub(super) fn room(&self) -> usize {
        let mut table = self.table();
        let soon = self.concurrency + table.pace.of_late(Instant::now()).min(self.batch);
        let to_begin = soon.saturating_sub(table.running + table.waiting.len());
        to_begin.min((self.concurrency + self.batch).saturating_sub(table.held.len()))
    }

    /// Takes in claimed jobs, whose leases end at `lease_until`.
    pub(super) fn take_in(&self, jobs: Vec<Job>, lease_until: Instant) {
        let mut table = self.table();
        for job in jobs {
            let held = Held {
                cancelled: CancellationToken::new(),
                lease_until,
                is_fired: job.fired.is_some(),
                progress: ProgressSlot::new(self.reports.clone()),
                tenant: job.tenant.clone(),
                context: job.context.clone(),
            };
            table.held.insert(job.fence(), held);
            table.waiting.push_back(job);
        }
    }

    /// The next job to run, if fewer than `concurrency` do. Each must be reported by [`Flight::ended`].
    pub(super) fn depart(&self, concurrency: usize) -> Option<Departure> {
        let mut table = self.table();
        while table.running < concurrency {
            let job = table.waiting.pop_front()?;
            // One that was lost while it waited is not held any more.
            if let Some(held) = table.held.get(&job.fence()) {
                let reins = Reins { cancelled: held.cancelled.clone(), progress: held.progress.clone() };
                table.running += 1;
                return Some(Departure { job, reins });
            }
        }
        None
    }

    /// A run has ended like this.
    pub(super) fn ended(&self, settlement: Settlement) {
        let mut table = self.table();
        table.running = table.running.saturating_sub(1);
        table.pace.ended(Instant::now());
        table.ended.push_back(settlement);
        if table.running == 0 {
            self.idle.notify_waiters();
        }
    }

    /// Is poked when running jobs have said how far they are.
    pub(super) fn reports(&self) -> &Poke {
        &self.reports
    }

    /// What running jobs have said since it was asked last. One that has ended tells it with its end.
    pub(super) fn collect(&self) -> Vec<Report> {
        let table = self.table();
        let said = table.held.iter().filter(|(fence, _)| !table.is_ended(fence)).filter_map(|(fence, held)| {
            held.progress.collect().map(|progress| Report {
                fence: *fence,
                progress,
                tenant: held.tenant.clone(),
                context: held.context.clone(),
                slot: held.progress.clone(),
            })
        });
        said.collect()
    }

    /// Gives back all that has not begun.
    pub(super) fn give_back_waiting(&self) -> usize {
        let mut table = self.table();
        let back: Vec<Job> = table.waiting.drain(..).collect();
        table.ended.extend(back.iter().map(|job| Settlement::new(job.fence(), Outcome::Release)));
        back.len()
    }

    /// The ends that wait longest. They stay until [`Flight::written`] says that the store has them.
    pub(super) fn oldest_ends(&self, most: usize) -> Vec<Settlement> {
        self.table().ended.iter().take(most).cloned().collect()
    }

    /// The store has answered for the first `count` ends. Answers whether a job of a schedule was among them.
    pub(super) fn written(&self, count: usize) -> bool {
        let mut table = self.table();
        let count = count.min(table.ended.len());
        let written: Vec<Fence> = table.ended.drain(..count).map(|ended| ended.fence).collect();
        let held = written.iter().filter_map(|fence| table.held.remove(fence));
        held.fold(false, |is_fired, held| is_fired | held.is_fired)
    }

    /// All that is held, and with it the time that a heartbeat for them counts from.
    pub(super) fn held(&self) -> Vec<Fence> {
        self.table().held.keys().copied().collect()
    }

    /// A heartbeat for `held` has succeeded, but for those that were `lost`: these are cancelled and held no more. Ends
    /// that wait to be written were lost to their own settlement, and stay.
    pub(super) fn extend(&self, held: &[Fence], lost: &[Fence], lease_until: Instant) -> usize {
        let mut table = self.table();
        for fence in held {
            if let Some(held) = table.held.get_mut(fence) {
                held.lease_until = lease_until;
            }
        }
        let lost: Vec<Fence> = lost.iter().filter(|fence| !table.is_ended(fence)).copied().collect();
        lost.iter().filter(|fence| table.lose(fence)).count()
    }

    /// When the first lease ends, by our own clock.
    pub(super) fn earliest_lease(&self) -> Option<Instant> {
        self.table().held.values().map(|held| held.lease_until).min()
    }

    /// Cancels those whose lease is over by our own clock, because no heartbeat reached the store.
    pub(super) fn expire(&self, now: Instant) -> usize {
        let mut table = self.table();
        let over = |(fence, held): &(&Fence, &Held)| held.lease_until <= now && !table.is_ended(fence);
        let expired: Vec<Fence> = table.held.iter().filter(over).map(|(fence, _)| *fence).collect();
        expired.iter().filter(|fence| table.lose(fence)).count()
    }

    /// One job is no longer ours: it is cancelled, and held no more. An end of it that waits to be written stays, and will
    /// be late. Answers whether it was here.
    pub(super) fn lose(&self, fence: &Fence) -> bool {
        let mut table = self.table();
        !table.is_ended(fence) && table.lose(fence)
    }

    /// Cancels all that runs.
    pub(super) fn cancel_all(&self) {
        for held in self.table().held.values() {
            held.cancelled.cancel();
        }
    }

    /// Waits until nothing runs.
    pub(super) async fn until_idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.running() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Jobs that run now.
    pub(super) fn running(&self) -> usize {
        self.table().running
    }

    /// Ends that wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.table().ended.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Stops a job that another process may have by now.
    fn lose(&mut self, fence: &Fence) -> bool {
        let lost = self.held.remove(fence);
        lost.inspect(|held| held.cancelled.cancel()).is_some()
    }

    fn is_ended(&self, fence: &Fence) -> bool {
        self.ended.iter().any(|ended| ended.fence == *fence)
    }
}

impl Pace {
    fn ended(&mut self, now: Instant) {
        self.turn(now);
        self.ended += 1;
    }

    /// In the last whole span, or already in this one.
    fn of_late(&mut self, now: Instant) -> usize {
        self.turn(now);
        self.ended.max(self.ended_before)
    }

    fn turn(&mut self, now: Instant) {
        let age = self.began.map_or(Duration::MAX, |began| now - began);
        if age >= AHEAD {
            self.ended_before = if age < 2 * AHEAD { self.ended } else { 0 };
            (self.began, self.ended) = (Some(now), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::testing::job;

    const LEASE: Duration = Duration::from_secs(30);

    fn flight_of(count: usize) -> (Flight, Vec<Fence>) {
        let flight = Flight::new(8, 2);
        let jobs: Vec<Job> = (0..count).map(|_| job()).collect();
        let fences = jobs.iter().map(Job::fence).collect();
        flight.take_in(jobs, Instant::now() + LEASE);
        (flight, fences)
    }

    fn done(fence: Fence) -> Settlement {
        Settlement::new(fence, Outcome::Done { result: None })
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_takes_room_until_the_store_has_its_end() {
        let (flight, fences) = flight_of(8);
        assert_eq!(flight.room(), 0, "all places to run are taken");
        for fence in &fences {
            flight.depart(8).unwrap();
            flight.ended(done(*fence));
        }
        assert_eq!((flight.room(), flight.running(), flight.unwritten()), (2, 0, 8));
        assert_eq!(flight.oldest_ends(5).len(), 5);
        flight.written(5);
        assert_eq!((flight.room(), flight.unwritten()), (7, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_jobs_wait_here_than_begin_in_a_moment() {
        let (flight, fences) = flight_of(8);
        let running = std::iter::from_fn(|| flight.depart(8)).count();
        assert_eq!((running, flight.room()), (8, 0));
        tokio::time::advance(LEASE / 2).await;
        flight.ended(done(fences[0]));
        flight.written(1);
        assert_eq!(flight.room(), 2, "the free place, and one more as long as runs end that quickly");
        tokio::time::advance(3 * AHEAD).await;
        assert_eq!(flight.room(), 1, "they do not");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_run_than_may_at_a_time() {
        let (flight, fences) = flight_of(5);
        assert_eq!(std::iter::from_fn(|| flight.depart(2)).count(), 2);
        flight.ended(done(fences[0]));
        assert_eq!(flight.depart(2).unwrap().job.fence(), fences[2]);
        assert!(flight.depart(2).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_job_is_cancelled_and_does_not_begin() {
        let (flight, fences) = flight_of(3);
        let running = flight.depart(1).unwrap();
        assert_eq!(flight.extend(&fences, &fences[..2], Instant::now() + LEASE), 2);
        assert!(running.reins.cancelled.is_cancelled());
        assert_eq!(flight.depart(9).unwrap().job.fence(), fences[2]);
        assert_eq!(flight.held(), [fences[2]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_its_tenant_cancels_is_lost_unless_it_has_ended() {
        let (flight, fences) = flight_of(3);
        let running = flight.depart(1).unwrap();
        assert!(flight.lose(&fences[0]) && flight.lose(&fences[1]));
        assert!(running.reins.cancelled.is_cancelled());
        assert_eq!(flight.held(), [fences[2]]);
        flight.depart(9).unwrap();
        flight.ended(done(fences[2]));
        assert!(!flight.lose(&fences[2]) && !flight.lose(&Fence { attempt: 7, ..fences[0] }));
        assert_eq!(flight.oldest_ends(9), [done(fences[2])]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_was_just_written_is_not_counted_as_lost() {
        let (flight, fences) = flight_of(1);
        flight.depart(1).unwrap();
        flight.ended(done(fences[0]));
        assert_eq!(flight.extend(&fences, &fences, Instant::now() + LEASE), 0);
        assert_eq!(flight.expire(Instant::now() + 2 * LEASE), 0);
        assert_eq!(flight.unwritten(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_heartbeat_the_lease_ends_by_our_own_clock() {
        let (flight, fences) = flight_of(2);
        let running = flight.depart(1).unwrap();
        tokio::time::advance(LEASE / 2).await;
        flight.extend(&fences[1..], &[], Instant::now() + LEASE);
        tokio::time::advance(LEASE / 2).await;
        assert_eq!(flight.expire(Instant::now()), 1);
        assert!(running.reins.cancelled.is_cancelled());
        assert_eq!(flight.held(), fences[1..]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_running_jobs_say_is_collected_until_they_have_ended() {
        let (flight, fences) = flight_of(2);
        let (one, two) = (flight.depart(9).unwrap(), flight.depart(9).unwrap());
        one.reins.progress.report(Progress::of(1, 2));
        two.reins.progress.report(Progress::of(2, 2));
        flight.reports().wait().await;
        flight.ended(done(fences[1]));
        let said: Vec<_> = flight.collect().into_iter().map(|report| (report.fence, report.progress)).collect();
        assert_eq!(said, [(fences[0], Progress::of(1, 2))]);
        assert!(flight.collect().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_not_begun_is_given_back() {
        let (flight, fences) = flight_of(3);
        flight.depart(1).unwrap();
        assert_eq!(flight.give_back_waiting(), 2);
        let back: Vec<Settlement> = fences[1..].iter().map(|fence| Settlement::new(*fence, Outcome::Release)).collect();
        assert_eq!(flight.oldest_ends(10), back);
        assert!(flight.depart(9).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_is_when_the_last_run_has_reported() {
        let (flight, fences) = flight_of(1);
        flight.until_idle().await;
        flight.depart(1).unwrap();
        let waited = tokio::time::timeout(LEASE, flight.until_idle()).await;
        assert!(waited.is_err());
        let (_, ()) = tokio::join!(flight.until_idle(), async { flight.ended(done(fences[0])) });
    }
}
