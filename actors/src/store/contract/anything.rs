//! Somebody who does anything at all with a store, so that what a backend keeps beside its rows can be held against them
//! after each step. `ANYTHING_SEED` repeats what it did.

use fastrand::Rng;

use super::channels::webhook;
use super::*;
use crate::jobs::Cadence;
use crate::store::{
    Effect, Fault, FireDue, JobFilter, KeyHash, NewDelivery, NewSchedule, Overlap, Policies, PruneJobs, Quotas,
    StoreError, Unique,
};

const TENANTS: [&str; 4] = ["one", "two", "three", "four"];
const QUEUES: [&str; 2] = ["default", "slow"];

/// See the page of this module.
pub(crate) struct Anything {
    store: SharedStore,
    clock: Clock,
    rng: Rng,
    held: Vec<Job>,
    ids: Vec<(TenantId, Uuid)>,
    schedules: Vec<(TenantId, Uuid)>,
    channel: Uuid,
}

/// What is refused with good reason.
fn word<T>(answer: Result<T, StoreError>, done: &'static str, refused: &'static str) -> &'static str {
    match answer {
        Ok(_) => done,
        Err(error) if ["limit", "conflict", "not_found"].contains(&error.kind()) => refused,
        Err(error) => panic!("{done}: {error}"),
    }
}

impl Anything {
    /// One of them, in a store with a few tenants and a schedule of each.
    pub(crate) async fn begin(fixture: &Fixture) -> Self {
        let told = std::env::var("ANYTHING_SEED").ok().and_then(|seed| seed.parse().ok());
        let rng = Rng::with_seed(told.unwrap_or_else(|| fastrand::u64(..)));
        println!("seed {}", rng.get_seed());
        let store = fixture.store.clone();
        let mut schedules = Vec::new();
        // Who cancels is not the first one by name: locks are taken in that order.
        for (name, overlap) in TENANTS.into_iter().zip(Overlap::ALL.into_iter().cycle().skip(1)) {
            store.create_tenant(&tenant(name), &KeyHash::of(name)).await.unwrap();
            let policies = Policies { overlap, ..Policies::default() };
            let every = Cadence::every(5_000).unwrap();
            let new = NewSchedule { policies, ..NewSchedule::new(tenant(name), every, "publish", json!({})) };
            schedules.push((tenant(name), store.create_schedule(new).await.unwrap().id));
        }
        let channel = webhook(fixture, TENANTS[0]).await.id;
        let clock = fixture.clock.clone();
        Self { store, clock, rng, held: Vec::new(), ids: Vec::new(), schedules, channel }
    }

    /// Another one in the same store, who comes at the same time.
    pub(crate) fn beside(&mut self) -> Self {
        let (store, clock, rng) = (self.store.clone(), self.clock.clone(), self.rng.fork());
        let (schedules, channel) = (self.schedules.clone(), self.channel);
        Self { store, clock, rng, held: Vec::new(), ids: Vec::new(), schedules, channel }
    }

    /// How many jobs it has enqueued.
    pub(crate) fn enqueued(&self) -> usize {
        self.ids.len()
    }

    /// Does something, and says what.
    pub(crate) async fn step(&mut self) -> &'static str {
        match self.rng.u32(..16) {
            0..3 => self.enqueue().await,
            3..6 => self.claim().await,
            6..9 => self.settle().await,
            9 => self.release().await,
            10 => {
                self.clock.advance(self.rng.i64(0..40_000));
                let sweep = self.store.sweep(self.rng.u32(1..4), self.rng.u32(1..9)).await;
                word(sweep, "sweep", "")
            }
            11 => {
                let (done_ms, dead_ms, cancelled_ms) = (10_000, 10_000, 10_000);
                let tenant_max = self.rng.u64(..30);
                let prune = PruneJobs { done_ms, dead_ms, cancelled_ms, tenant_max, after: None, limit: 20 };
                word(self.store.prune(prune).await, "prune", "")
            }
            12 => {
                let Some((tenant, id)) = self.rng.choice(&self.ids).cloned() else { return "nothing" };
                word(self.store.cancel_job(&tenant, id, "cancelled").await, "cancel", "")
            }
            13 => {
                let Some((tenant, id)) = self.rng.choice(&self.ids).cloned() else { return "nothing" };
                word(self.store.redrive_job(&tenant, id).await, "redrive one", "refused redrive of one")
            }
            14 => {
                let (tenant, limit) = (self.tenant(), self.rng.u32(1..5));
                let redriven = self.store.redrive_jobs(&tenant, &JobFilter::default(), None, limit).await;
                word(redriven, "redrive", "refused redrive")
            }
            _ => self.change().await,
        }
    }

    fn tenant(&mut self) -> TenantId {
        tenant(self.rng.choice(TENANTS).unwrap())
    }

    async fn enqueue(&mut self) -> &'static str {
        let mut jobs = Vec::new();
        for _ in 0..self.rng.u32(1..9) {
            let mut job = new_job(self.rng.choice(TENANTS).unwrap());
            job.queue = (*self.rng.choice(&QUEUES).unwrap()).to_owned();
            job.run_at_ms = self.rng.bool().then(|| self.clock.now_ms() + self.rng.i64(0..20_000));
            job.unique = (self.rng.u32(..4) == 0).then(|| Unique::new(format!("key-{}", self.rng.u32(..9)), None));
            jobs.push(job);
        }
        let kept = self.store.enqueue(jobs).await;
        let of_each = kept.iter().flatten().map(|job| (job.tenant.clone(), job.id));
        self.ids.extend(of_each);
        word(kept, "enqueue", "refused enqueue")
    }

    async fn claim(&mut self) -> &'static str {
        let request = ClaimJobs {
            queue: self.rng.choice(&QUEUES).unwrap(),
            owner: Uuid::now_v7(),
            lease_ms: LEASE_MS,
            limit: self.rng.u32(..20),
            tenant_running_max: self.rng.u32(1..9),
        };
        self.held.extend(self.store.claim(request).await.unwrap().jobs);
        "claim"
    }

    fn some_held(&mut self) -> Vec<Job> {
        let (mut some, most) = (Vec::new(), self.rng.usize(1..9));
        while some.len() < most && !self.held.is_empty() {
            some.push(self.held.swap_remove(self.rng.usize(..self.held.len())));
        }
        some
    }

    /// Also of claims that were lost long ago, and sometimes twice.
    async fn settle(&mut self) -> &'static str {
        let mut batch = Vec::new();
        for job in self.some_held() {
            let error = "no".to_owned();
            let outcome = match self.rng.u32(..6) {
                0 | 1 => Outcome::Done { result: None },
                2 => Outcome::Retry { after_ms: self.rng.u64(..9_000), error, fault: Fault::Crash },
                3 => Outcome::Dead { reason: error, fault: Fault::Failure },
                4 => Outcome::Snooze { after_ms: self.rng.u64(..9_000), reason: error },
                _ => Outcome::Release,
            };
            let mut settlement = Settlement::new(job.fence(), outcome);
            if self.rng.u32(..4) == 0 {
                // To a channel that only one of the tenants has: the others are refused.
                settlement.effects = vec![Effect::Deliver(NewDelivery::new(job.tenant, self.channel, json!(1)))];
            }
            if self.rng.u32(..8) == 0 {
                batch.push(Settlement::new(settlement.fence, Outcome::Release));
            }
            batch.push(settlement);
        }
        word(self.store.settle(batch).await, "settle", "")
    }

    async fn release(&mut self) -> &'static str {
        let fences: Vec<Fence> = self.some_held().iter().map(Job::fence).collect();
        word(self.store.release(&fences).await, "release", "")
    }

    async fn change(&mut self) -> &'static str {
        let id = self.tenant();
        match self.rng.u32(..5) {
            0 => word(self.store.disable_tenant(&id).await, "disable", ""),
            1 => word(self.store.enable_tenant(&id).await, "enable", ""),
            2 => {
                let jobs_queued = (self.rng.u32(..4) == 0).then(|| self.rng.u32(..80));
                let job_starts_per_s = self.rng.bool().then(|| self.rng.u32(1..40));
                let quotas = Quotas { jobs_queued, job_starts_per_s, ..Quotas::default() };
                word(self.store.set_tenant_quotas(&id, quotas).await, "change", "")
            }
            3 => {
                let (id, schedule) = self.rng.choice(&self.schedules).cloned().unwrap();
                let fired = self.store.trigger_schedule(&id, schedule, Uuid::now_v7(), None).await;
                word(fired, "trigger", "refused trigger")
            }
            _ => {
                let fire = FireDue { limit: 9, catch_up_window_ms: u64::MAX };
                word(self.store.fire_due(fire).await, "fire", "")
            }
        }
    }
}
