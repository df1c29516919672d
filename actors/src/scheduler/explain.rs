//! Why a job does not run now: the facts of the store and of this process, as reasons in words and in codes.
//!
//! It is a pure function of what was read at one moment. Several things may stand in a job's way; all are told, what must be
//! over first comes first.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::model::Millis;
use crate::store::{AHEAD_MAX, Job, JobState, Standing};

/// One thing that is so about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Which one.
    pub code: ReasonCode,
    /// In words.
    pub detail: String,
    /// When it is over by itself, if that is known.
    pub until_ms: Option<Millis>,
}

/// The kinds of reasons. Their names are part of the HTTP surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// It has ended well.
    Done,
    /// It has ended badly.
    Dead,
    /// Its tenant has ended it.
    Cancelled,
    /// It runs.
    Running,
    /// It runs, but whoever runs it has not been heard of for a lease.
    RunnerLost,
    /// Its time has not come.
    NotDue,
    /// It failed, and waits for its next attempt.
    Backoff,
    /// Its handler has put it off.
    Snoozed,
    /// Its tenant is disabled.
    TenantDisabled,
    /// As many jobs of its tenant run as may.
    TenantAtLimit,
    /// Its tenant has started as many jobs in a second as it may.
    TenantAtRate,
    /// This process takes no jobs from its queue.
    QueueNotServed,
    /// This service has no handler for its kind.
    KindUnknown,
    /// It lost its runner so often that it runs only while no other such job does in the same process.
    Suspect,
    /// Jobs of the same tenant and queue come first.
    BehindOthers,
    /// Whoever takes jobs in this process does not run, or does not get on.
    ClaimerDown,
    /// This process could not reach the store, and has not tried again yet.
    ClaimerParked,
    /// This process holds as many jobs as it may.
    ProcessFull,
    /// Nothing stands in its way: it is taken with one of the next looks.
    NextInLine,
}

impl ReasonCode {
    /// All of them, in the order in which they would be told.
    pub const ALL: [Self; 19] = [
        Self::Done,
        Self::Dead,
        Self::Cancelled,
        Self::Running,
        Self::RunnerLost,
        Self::NotDue,
        Self::Backoff,
        Self::Snoozed,
        Self::TenantDisabled,
        Self::KindUnknown,
        Self::QueueNotServed,
        Self::TenantAtLimit,
        Self::TenantAtRate,
        Self::Suspect,
        Self::BehindOthers,
        Self::ClaimerDown,
        Self::ClaimerParked,
        Self::ProcessFull,
        Self::NextInLine,
    ];
}

/// What this process knows.
#[derive(Debug, Clone)]
pub(super) struct Here<'a> {
    /// Its name in claims.
    pub(super) owner: Uuid,
    /// The queues that it takes jobs from.
    pub(super) queues: &'a [String],
    /// Those that others take jobs from.
    pub(super) elsewhere: &'a [String],
    /// Whether it has a handler for the job's kind.
    pub(super) knows_kind: bool,
    /// How many of a tenant's jobs may run at once.
    pub(super) tenant_running_max: u32,
    /// How many more jobs it could hold.
    pub(super) room: usize,
    /// What its claimer does.
    pub(super) claimer: Claimer,
}

/// What the claimer of this process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claimer {
    /// It looks for jobs, again and again.
    Looks,
    /// It waits for the store.
    Parked,
    /// It has not looked for so long.
    Silent(Duration),
    /// It does not run.
    Absent,
}

pub(super) fn reasons(standing: &Standing, here: &Here<'_>) -> Vec<Reason> {
    let job = &standing.job;
    let why = || job.last_error.clone().unwrap_or_else(|| "no reason is kept".to_owned());
    match job.state {
        JobState::Done => vec![reason(ReasonCode::Done, format!("it is done since {}", ended(job)))],
        JobState::Dead => vec![reason(ReasonCode::Dead, format!("it is dead since {}: {}", ended(job), why()))],
        JobState::Cancelled => {
            vec![reason(ReasonCode::Cancelled, format!("it was cancelled at {}: {}", ended(job), why()))]
        }
        JobState::Running => vec![running(standing, here)],
        JobState::Scheduled | JobState::Ready | JobState::Retrying => waiting(standing, here),
    }
}

fn running(standing: &Standing, here: &Here<'_>) -> Reason {
    let job = &standing.job;
    let by = match standing.owner {
        Some(owner) if owner == here.owner => "this process".to_owned(),
        Some(owner) => format!("the process {owner}"),
        None => "nobody".to_owned(),
    };
    let since = job.claimed_at_ms.map_or_else(|| "an unknown time".to_owned(), time);
    let lease = standing.lease_until_ms.unwrap_or(standing.at_ms);
    if lease < standing.at_ms {
        let detail =
            format!("{by} has it since {since}, but was not heard of since its lease ended at {}", time(lease));
        return reason(ReasonCode::RunnerLost, format!("{detail}: the next sweep makes it ready again"));
    }
    let detail = format!("{by} runs its attempt {} since {since}, with a lease until {}", job.charged(), time(lease));
    reason(ReasonCode::Running, detail)
}

fn waiting(standing: &Standing, here: &Here<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut tell = |code, detail| reasons.push(reason(code, detail));
    let job = &standing.job;
    if let Some(since) = standing.tenant_disabled_at_ms {
        tell(ReasonCode::TenantDisabled, format!("its tenant is disabled since {}", time(since)));
    }
    if !here.knows_kind {
        let detail = format!("no handler for the kind {:?} in this process: here it would be put off", job.kind);
        tell(ReasonCode::KindUnknown, detail);
    }
    if !here.queues.contains(&job.queue) {
        let queues = here.queues.join(", ");
        let detail = match here.elsewhere.contains(&job.queue) {
            true => format!("this process leaves the queue {:?} to others, it takes jobs from: {queues}", job.queue),
            false => format!("this process takes no jobs from the queue {:?}, only from: {queues}", job.queue),
        };
        tell(ReasonCode::QueueNotServed, detail);
    }
    let (running, most) = (standing.tenant_running, standing.tenant_running_max.unwrap_or(here.tenant_running_max));
    if running >= most {
        tell(ReasonCode::TenantAtLimit, format!("{running} jobs of its tenant run, {most} may"));
    }
    if let Some(until) = standing.tenant_rate_until_ms {
        let detail = format!("its tenant has started as many jobs as it may, until {}", time(until));
        tell(ReasonCode::TenantAtRate, detail);
    }
    if standing.is_suspect {
        let detail = "it lost its runner so often that a process runs it only while it has no other such job";
        tell(ReasonCode::Suspect, detail.to_owned());
    } else if standing.ahead > 0 {
        let more = if standing.ahead >= AHEAD_MAX { "or more " } else { "" };
        let detail = format!("{} {more}jobs of its tenant and queue come first; tenants take turns", standing.ahead);
        tell(ReasonCode::BehindOthers, detail);
    }
    match here.claimer {
        Claimer::Looks => {}
        Claimer::Parked => {
            let detail = "this process could not reach the store, and has not tried again yet";
            tell(ReasonCode::ClaimerParked, detail.to_owned());
        }
        Claimer::Silent(time) => {
            let detail = format!("`scheduler.claimer` of this process has not looked for {} s", time.as_secs());
            tell(ReasonCode::ClaimerDown, detail);
        }
        Claimer::Absent => {
            let detail = "`scheduler.claimer` of this process does not run: its supervision tree says why";
            tell(ReasonCode::ClaimerDown, detail.to_owned());
        }
    }
    if here.room == 0 {
        tell(ReasonCode::ProcessFull, "this process holds as many jobs as it may".to_owned());
    }
    if let Some(wait) = wait(job, standing.at_ms) {
        reasons.insert(0, wait);
    } else if reasons.is_empty() {
        let detail = "nothing stands in its way: it is taken with one of the next looks";
        reasons.push(reason(ReasonCode::NextInLine, detail.to_owned()));
    }
    reasons
}

/// What a job that is not due waits for.
fn wait(job: &Job, now_ms: Millis) -> Option<Reason> {
    let in_ms = job.run_at_ms.saturating_sub(now_ms);
    let (code, detail) = match job.state {
        JobState::Scheduled if job.snoozes > 0 => {
            let why = job.last_error.as_deref().unwrap_or("no reason is kept");
            (ReasonCode::Snoozed, format!("it was put off {} times, now for {in_ms} ms: {why}", job.snoozes))
        }
        JobState::Scheduled => (ReasonCode::NotDue, format!("its time comes in {in_ms} ms")),
        JobState::Retrying => {
            let (failed, most) = (job.charged(), job.max_attempts);
            let why = job.last_error.as_deref().unwrap_or("no reason is kept");
            (ReasonCode::Backoff, format!("attempt {failed} of {most} failed, the next is in {in_ms} ms: {why}"))
        }
        _ => return None,
    };
    Some(Reason { code, detail, until_ms: Some(job.run_at_ms) })
}

fn reason(code: ReasonCode, detail: String) -> Reason {
    Reason { code, detail, until_ms: None }
}

fn ended(job: &Job) -> String {
    job.finished_at_ms.map_or_else(|| "an unknown time".to_owned(), time)
}

fn time(at_ms: Millis) -> String {
    Timestamp::from_millisecond(at_ms).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::testing::job;

    const OURS: Uuid = Uuid::from_u128(7);

    fn standing(state: JobState) -> Standing {
        let job = Job { state, run_at_ms: 0, finished_at_ms: Some(0), last_error: Some("away".to_owned()), ..job() };
        Standing {
            job,
            at_ms: 1_000,
            tenant_disabled_at_ms: None,
            is_suspect: false,
            owner: None,
            lease_until_ms: None,
            tenant_running: 0,
            tenant_running_max: None,
            tenant_rate_until_ms: None,
            ahead: 0,
        }
    }

    fn told(standing: &Standing, change: impl FnOnce(&mut Here<'_>)) -> Vec<(ReasonCode, String)> {
        let queues = ["default".to_owned()];
        let mut here = Here {
            owner: OURS,
            queues: &queues,
            elsewhere: &[],
            knows_kind: true,
            tenant_running_max: 16,
            room: 9,
            claimer: Claimer::Looks,
        };
        change(&mut here);
        reasons(standing, &here).into_iter().map(|reason| (reason.code, reason.detail)).collect()
    }

    fn codes(standing: &Standing) -> Vec<ReasonCode> {
        told(standing, |_| {}).into_iter().map(|(code, _)| code).collect()
    }

    #[test]
    fn a_job_that_nothing_hinders_is_next() {
        assert_eq!(codes(&standing(JobState::Ready)), [ReasonCode::NextInLine]);
    }

    #[test]
    fn a_job_that_waits_says_until_when_and_what_for() {
        let mut later = standing(JobState::Scheduled);
        later.job.run_at_ms = 1_250;
        assert_eq!(told(&later, |_| {}), [(ReasonCode::NotDue, "its time comes in 250 ms".to_owned())]);
        let snoozed = Standing { job: Job { snoozes: 2, ..later.job.clone() }, ..later };
        let detail = "it was put off 2 times, now for 250 ms: away".to_owned();
        assert_eq!(told(&snoozed, |_| {}), [(ReasonCode::Snoozed, detail)]);
        let mut failed = Standing { ahead: 3, ..standing(JobState::Retrying) };
        failed.job.run_at_ms = 1_250;
        let detail = "attempt 1 of 10 failed, the next is in 250 ms: away".to_owned();
        assert_eq!(told(&failed, |_| {})[0], (ReasonCode::Backoff, detail));
        assert_eq!(codes(&failed), [ReasonCode::Backoff, ReasonCode::BehindOthers]);
    }

    #[test]
    fn all_that_stands_in_the_way_is_told_at_once() {
        let hindered = Standing {
            tenant_disabled_at_ms: Some(0),
            tenant_running: 16,
            tenant_rate_until_ms: Some(2_000),
            ahead: 3,
            ..standing(JobState::Ready)
        };
        let all = told(&hindered, |here| {
            *here = Here { queues: &[], knows_kind: false, room: 0, claimer: Claimer::Parked, ..*here }
        });
        let expected = [
            (ReasonCode::TenantDisabled, "its tenant is disabled since 1970-01-01T00:00:00Z"),
            (ReasonCode::KindUnknown, "no handler for the kind \"test\" in this process: here it would be put off"),
            (ReasonCode::QueueNotServed, "this process takes no jobs from the queue \"default\", only from: "),
            (ReasonCode::TenantAtLimit, "16 jobs of its tenant run, 16 may"),
            (ReasonCode::TenantAtRate, "its tenant has started as many jobs as it may, until 1970-01-01T00:00:02Z"),
            (ReasonCode::BehindOthers, "3 jobs of its tenant and queue come first; tenants take turns"),
            (ReasonCode::ClaimerParked, "this process could not reach the store, and has not tried again yet"),
            (ReasonCode::ProcessFull, "this process holds as many jobs as it may"),
        ];
        assert_eq!(all, expected.map(|(code, detail)| (code, detail.to_owned())));
        let left = told(&standing(JobState::Ready), |here| (here.elsewhere, here.queues) = (here.queues, &[]));
        let detail = "this process leaves the queue \"default\" to others, it takes jobs from: ".to_owned();
        assert_eq!(left[0], (ReasonCode::QueueNotServed, detail));
        let few = Standing { tenant_running: 2, tenant_running_max: Some(2), ..standing(JobState::Ready) };
        assert_eq!(codes(&few), [ReasonCode::TenantAtLimit], "what its row says counts");
        assert_eq!(codes(&Standing { is_suspect: true, ahead: 3, ..standing(JobState::Ready) }), [ReasonCode::Suspect]);
        let many = told(&Standing { ahead: AHEAD_MAX, ..standing(JobState::Ready) }, |_| {});
        assert!(many[0].1.starts_with("10000 or more jobs"), "{many:?}");
    }

    #[test]
    fn a_running_job_says_whose_it_is_and_whether_they_were_heard_of() {
        let ours = Standing { owner: Some(OURS), lease_until_ms: Some(2_000), ..standing(JobState::Running) };
        let detail =
            "this process runs its attempt 1 since 1970-01-01T00:00:00Z, with a lease until 1970-01-01T00:00:02Z";
        assert_eq!(told(&ours, |_| {}), [(ReasonCode::Running, detail.to_owned())]);
        let lost = Standing { owner: Some(Uuid::nil()), lease_until_ms: Some(999), ..standing(JobState::Running) };
        let [(ReasonCode::RunnerLost, detail)] = &told(&lost, |_| {})[..] else { panic!("{lost:?}") };
        assert!(detail.starts_with("the process 00000000-") && detail.ends_with("makes it ready again"), "{detail}");
    }

    #[test]
    fn the_guide_says_what_to_do_about_each_reason() {
        let guide = include_str!("../../../docs/jobs.md");
        for code in ReasonCode::ALL {
            let name = serde_json::to_value(code).unwrap();
            assert!(guide.contains(&format!("`{}`", name.as_str().unwrap())), "{name} is not in docs/jobs.md");
        }
    }

    #[test]
    fn a_job_that_has_ended_says_how() {
        assert_eq!(codes(&standing(JobState::Done)), [ReasonCode::Done]);
        let dead = told(&standing(JobState::Dead), |_| {});
        assert_eq!(dead, [(ReasonCode::Dead, "it is dead since 1970-01-01T00:00:00Z: away".to_owned())]);
        assert_eq!(codes(&standing(JobState::Cancelled)), [ReasonCode::Cancelled]);
    }
}
