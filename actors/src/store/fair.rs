//! Who is served next, and with how much: start-time fair queueing over the tenants that wait in one queue.
//!
//! Every tenant has a virtual time, which each job that is taken moves on by 1/weight. The tenant with the least is served
//! next. One that comes back after a rest is served at the queue's time, not at its own old one: nobody saves up turns.
//! (Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996; with jobs of length 1.)
//!
//! It decides only, over a few rows that a backend has read, so that all backends decide alike.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use super::Job;
use crate::model::Millis;

/// Virtual time of one job of a tenant with weight 1. All weights up to 1000 divide it well enough.
const JOB: i64 = 1_000_000;
/// A tenant with a rate may start the jobs of so much time at once after a rest.
const BURST_US: i64 = 1_000_000;
/// A tenant that waits for its rate waits at least so long: with a high rate several jobs come due meanwhile.
const PACE_MIN_MS: Millis = 20;

/// What a held share waits for if no time is known: that something of its tenant changes.
pub(super) const HELD: Millis = Millis::MAX;
/// The limit of queued jobs, in errors and metrics.
pub(super) const JOBS_QUEUED: &str = "tenant_jobs_queued";
/// Weight of a tenant that has none of its own.
pub const JOB_WEIGHT_DEFAULT: u32 = 1;

/// A tenant that waits in a queue, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) tenant: String,
    pub(super) vtime: i64,
    /// Its jobs in this queue that may be claimed.
    pub(super) ready: u32,
    /// Its jobs that run, of all queues.
    pub(super) running: u32,
    /// When all its starts are paid for, if it has a rate.
    pub(super) paid_until_us: i64,
    pub(super) rests: bool,
    pub(super) weight: Option<u32>,
    pub(super) running_max: Option<u32>,
    pub(super) starts_per_s: Option<u32>,
}

/// Whether jobs of a tenant may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chance {
    /// So many, at least one.
    Room(u32),
    /// None before this time; [`HELD`] if it is not a matter of time.
    Held(Millis),
}

impl Waiting {
    /// By its limits, with `running_max` for a tenant that has none of its own.
    pub(super) fn chance(&self, running_max: u32, now: Millis) -> Chance {
        let room = self.running_max.unwrap_or(running_max).saturating_sub(self.running);
        if self.rests || room == 0 {
            return Chance::Held(HELD);
        }
        let Some(each_us) = self.start_us() else { return Chance::Room(room) };
        let ahead_us = self.ahead_us(now);
        match (BURST_US - ahead_us) / each_us {
            ..=0 => {
                let wait_us = ahead_us + each_us - BURST_US;
                let wait_ms = wait_us / 1_000 + i64::from(wait_us % 1_000 > 0);
                Chance::Held(now.saturating_add(wait_ms.max(PACE_MIN_MS)))
            }
            paid => Chance::Room(room.min(u32::try_from(paid).unwrap_or(u32::MAX))),
        }
    }

    /// Its virtual time after one job more.
    fn step(&self) -> i64 {
        JOB / i64::from(self.weight.unwrap_or(JOB_WEIGHT_DEFAULT).max(1))
    }

    /// How long one start pays for.
    fn start_us(&self) -> Option<i64> {
        self.starts_per_s.map(|rate| (1_000_000 / i64::from(rate.max(1))).max(1))
    }

    /// How far its starts are paid for beyond now. Nobody is ahead by more than a burst, unless the clock has gone back:
    /// then it begins anew.
    fn ahead_us(&self, now: Millis) -> i64 {
        let ahead_us = self.paid_until_us.saturating_sub(micros(now));
        if (0..=BURST_US).contains(&ahead_us) { ahead_us } else { 0 }
    }

    /// When its starts are paid for after `count` more.
    fn paid_after(&self, count: u32, now: Millis) -> i64 {
        let each_us = self.start_us().unwrap_or(0);
        micros(now).saturating_add(self.ahead_us(now)).saturating_add(each_us.saturating_mul(count.into()))
    }
}

fn micros(at: Millis) -> i64 {
    at.saturating_mul(1_000)
}

/// What one tenant gets of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Portion {
    pub(super) tenant: String,
    /// So many of its most urgent jobs.
    pub(super) count: u32,
    /// Its virtual time after them.
    pub(super) vtime: i64,
    /// When its starts are paid for after them; `None` if it has no rate.
    pub(super) paid_until_us: Option<i64>,
}

/// How a claim is shared out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Each tenant that gets something.
    pub(super) portions: Vec<Portion>,
    /// For each job in the order of service: which of the portions it belongs to.
    pub(super) order: Vec<usize>,
    /// The queue's virtual time after it.
    pub(super) vtime: i64,
}

impl Plan {
    /// Jobs that were taken by it, in the order of service, and the most urgent one of each tenant first: an update answers
    /// in no order.
    pub(super) fn in_order(&self, mut jobs: Vec<Job>) -> Vec<Job> {
        jobs.sort_by_key(|job| (job.priority, job.run_at_ms, job.id));
        let mut of_each: Vec<VecDeque<Job>> = self.portions.iter().map(|_| VecDeque::new()).collect();
        let place: BTreeMap<&str, usize> =
            self.portions.iter().enumerate().map(|(place, portion)| (portion.tenant.as_str(), place)).collect();
        for job in jobs {
            if let Some(place) = place.get(job.tenant.as_str()) {
                of_each[*place].push_back(job);
            }
        }
        self.order.iter().filter_map(|of| of_each[*of].pop_front()).collect()
    }
}

/// Shares out `limit` jobs among tenants, each with how many of its jobs may start. With at least `limit` tenants, those
/// with the least virtual time, or all there are, the outcome is the same as if each job were taken by itself.
pub(super) fn share_out(waiting: Vec<(Waiting, u32)>, queue_vtime: i64, limit: u32, now: Millis) -> Plan {
    let starts: Vec<i64> = waiting.iter().map(|(waiting, _)| waiting.vtime.max(queue_vtime)).collect();
    let mut taken = vec![0_u32; waiting.len()];
    let mut order = Vec::new();
    let mut vtime = queue_vtime;
    // Of those who come back at the same time, the one with the older time of its own has waited longer.
    let mut next: BinaryHeap<_> = (0..waiting.len()).map(|of| Reverse((starts[of], waiting[of].0.vtime, of))).collect();
    while let Some(Reverse((start, own, of))) = next.pop() {
        let (tenant, room) = &waiting[of];
        if order.len() >= limit as usize {
            break;
        }
        if taken[of] >= tenant.ready.min(*room) {
            continue;
        }
        taken[of] += 1;
        order.push(of);
        vtime = start;
        next.push(Reverse((start.saturating_add(tenant.step()), own, of)));
    }
    let mut place = vec![usize::MAX; waiting.len()];
    let mut portions = Vec::new();
    for (of, (tenant, _)) in waiting.into_iter().enumerate().filter(|(of, _)| taken[*of] > 0) {
        place[of] = portions.len();
        portions.push(Portion {
            count: taken[of],
            vtime: starts[of].saturating_add(tenant.step().saturating_mul(taken[of].into())),
            paid_until_us: tenant.starts_per_s.map(|_| tenant.paid_after(taken[of], now)),
            tenant: tenant.tenant,
        });
    }
    if order.len() < limit as usize {
        // Nobody is left: the next to come are all alike.
        vtime = portions.iter().map(|portion| portion.vtime).max().unwrap_or(vtime);
    }
    order.iter_mut().for_each(|of| *of = place[*of]);
    Plan { portions, order, vtime }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_000_000;

    fn waiting(tenant: &str, ready: u32) -> Waiting {
        let tenant = tenant.to_owned();
        let (weight, running_max, starts_per_s) = (None, None, None);
        Waiting {
            tenant,
            vtime: 0,
            ready,
            running: 0,
            paid_until_us: 0,
            rests: false,
            weight,
            running_max,
            starts_per_s,
        }
    }

    /// All may start as many as they like.
    fn counts(waiting: Vec<Waiting>, vtime: i64, limit: u32) -> (Vec<(String, u32)>, i64) {
        let plan = share_out(waiting.into_iter().map(|one| (one, u32::MAX)).collect(), vtime, limit, NOW);
        assert_eq!(plan.order.len() as u32, plan.portions.iter().map(|portion| portion.count).sum::<u32>());
        (plan.portions.into_iter().map(|portion| (portion.tenant, portion.count)).collect(), plan.vtime)
    }

    #[test]
    fn jobs_are_shared_by_weight() {
        let heavy = Waiting { weight: Some(3), ..waiting("heavy", 100) };
        let (counts, _) = counts(vec![heavy, waiting("light", 100)], 0, 40);
        assert_eq!(counts, [("heavy".to_owned(), 30), ("light".to_owned(), 10)]);
    }

    #[test]
    fn what_one_does_not_need_goes_to_the_others() {
        let (counts, _) = counts(vec![waiting("a", 1), waiting("b", 100)], 0, 10);
        assert_eq!(counts, [("a".to_owned(), 1), ("b".to_owned(), 9)]);
    }

    #[test]
    fn whoever_comes_back_after_a_rest_has_saved_up_nothing() {
        let busy = Waiting { vtime: 50 * JOB, ..waiting("busy", 100) };
        let (counts, vtime) = counts(vec![waiting("back", 100), busy], 50 * JOB, 10);
        assert_eq!(counts, [("back".to_owned(), 5), ("busy".to_owned(), 5)]);
        assert_eq!(vtime, 54 * JOB, "that of the last one served");
    }

    #[test]
    fn when_nobody_is_left_the_queues_time_is_that_of_the_foremost() {
        let (_, vtime) = counts(vec![waiting("a", 3), waiting("b", 1)], 7 * JOB, 10);
        assert_eq!(vtime, 10 * JOB);
    }

    #[test]
    fn jobs_of_the_tenants_alternate() {
        let plan = share_out(vec![(waiting("a", 9), 9), (waiting("b", 9), 1), (waiting("c", 9), 9)], 0, 6, NOW);
        assert_eq!(plan.order, [0, 1, 2, 0, 2, 0]);
        assert_eq!(plan.portions.iter().map(|portion| portion.vtime / JOB).collect::<Vec<_>>(), [3, 1, 2]);
    }

    #[test]
    fn one_claim_is_the_same_as_many_small_ones() {
        let mut tenants: Vec<Waiting> = (0..7).map(|n| waiting(&format!("t{n}"), 100)).collect();
        tenants[3].weight = Some(5);
        let at_once = counts(tenants.clone(), 0, 60).0;
        let mut vtime = 0;
        for _ in 0..60 {
            let all = tenants.iter().map(|one| (one.clone(), u32::MAX)).collect();
            let plan = share_out(all, vtime, 1, NOW);
            assert!(plan.vtime >= vtime, "the queue's time went back");
            vtime = plan.vtime;
            let served = tenants.iter_mut().find(|one| one.tenant == plan.portions[0].tenant).unwrap();
            (served.vtime, served.ready) = (plan.portions[0].vtime, served.ready - 1);
        }
        let one_by_one: Vec<(String, u32)> = tenants.iter().map(|one| (one.tenant.clone(), 100 - one.ready)).collect();
        assert_eq!(at_once, one_by_one);
    }

    #[test]
    fn a_tenant_at_its_limit_or_at_rest_waits_for_a_change() {
        let full = Waiting { running: 4, ..waiting("full", 9) };
        assert_eq!(full.chance(4, NOW), Chance::Held(HELD));
        assert_eq!(full.chance(6, NOW), Chance::Room(2));
        let own = Waiting { running_max: Some(5), ..full };
        assert_eq!(own.chance(4, NOW), Chance::Room(1), "its own limit lies over the default");
        assert_eq!(Waiting { rests: true, ..own }.chance(4, NOW), Chance::Held(HELD));
    }

    #[test]
    fn a_rate_allows_a_second_of_starts_and_then_its_pace() {
        let mut paced = Waiting { starts_per_s: Some(10), ..waiting("paced", 99) };
        assert_eq!(paced.chance(99, NOW), Chance::Room(10));
        paced.paid_until_us = share_out(vec![(paced.clone(), 10)], 0, 99, NOW).portions[0].paid_until_us.unwrap();
        assert_eq!(paced.chance(99, NOW), Chance::Held(NOW + 100));
        assert_eq!(paced.chance(99, NOW + 100), Chance::Room(1));
        assert_eq!(paced.chance(99, NOW + 60_000), Chance::Room(10), "no more than a second's worth is saved up");
        let quick = Waiting { starts_per_s: Some(1_000), paid_until_us: micros(NOW + 1_000), ..paced };
        assert_eq!(quick.chance(99, NOW), Chance::Held(NOW + PACE_MIN_MS));
    }
}
