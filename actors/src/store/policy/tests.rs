use super::*;
use crate::jobs::Cadence;
use crate::store::NewSchedule;
use crate::store::schedule::Tally;

fn standing(is_live: bool, buffered: Option<Millis>) -> Standing {
    Standing { is_live, buffered, remaining: None }
}

/// What starts, what waits from then on, how many make nothing, whether others are cancelled.
fn met(standing: Standing, fires: &[Millis], overlap: Overlap) -> (Vec<Millis>, Option<Millis>, u64, bool) {
    let meeting = standing.meet(fires, overlap);
    (meeting.starts, meeting.buffered, meeting.overlapped, meeting.cancels)
}

#[test]
fn a_fire_that_meets_nobody_starts_under_every_policy() {
    for overlap in Overlap::ALL {
        assert_eq!(met(standing(false, None), &[5], overlap), (vec![5], None, 0, false), "{overlap:?}");
    }
}

#[test]
fn a_fire_that_meets_a_live_job_does_as_its_policy_says() {
    let live = standing(true, None);
    assert_eq!(met(live, &[5], Overlap::Skip), (vec![], None, 1, false));
    assert_eq!(met(live, &[5], Overlap::BufferOne), (vec![], Some(5), 0, false));
    assert_eq!(met(live, &[5], Overlap::Allow), (vec![5], None, 0, false));
    assert_eq!(met(live, &[5], Overlap::CancelPrevious), (vec![5], None, 0, true));
}

#[test]
fn several_fires_at_once_meet_each_other() {
    let free = standing(false, None);
    assert_eq!(met(free, &[5, 6, 7], Overlap::Skip), (vec![5], None, 2, false));
    assert_eq!(met(free, &[5, 6, 7], Overlap::BufferOne), (vec![5], Some(6), 1, false));
    assert_eq!(met(free, &[5, 6, 7], Overlap::Allow), (vec![5, 6, 7], None, 0, false));
    assert_eq!(met(free, &[5, 6, 7], Overlap::CancelPrevious), (vec![7], None, 2, false));
    assert_eq!(met(standing(true, None), &[5, 6, 7], Overlap::CancelPrevious), (vec![7], None, 2, true));
}

#[test]
fn a_waiting_fire_goes_first_when_it_need_not_wait_and_stays_the_only_one() {
    assert_eq!(met(standing(false, Some(4)), &[], Overlap::BufferOne), (vec![4], None, 0, false));
    assert_eq!(met(standing(true, Some(4)), &[], Overlap::BufferOne), (vec![], Some(4), 0, false));
    assert_eq!(met(standing(true, Some(4)), &[5, 6], Overlap::BufferOne), (vec![], Some(4), 2, false));
    assert_eq!(met(standing(false, Some(4)), &[5, 6], Overlap::BufferOne), (vec![4], Some(5), 1, false));
    assert_eq!(met(standing(false, Some(4)), &[5], Overlap::Skip), (vec![4], None, 1, false));
    assert_eq!(met(standing(false, Some(4)), &[5], Overlap::CancelPrevious), (vec![5], None, 1, false));
}

#[test]
fn what_starts_or_waits_is_one_of_those_that_remain_and_what_is_skipped_is_not() {
    let two = |is_live| Standing { remaining: Some(2), ..standing(is_live, None) };
    let meeting = two(false).meet(&[5, 6, 7], Overlap::Allow);
    assert_eq!((meeting.starts.clone(), meeting.remaining, meeting.overlapped), (vec![5, 6], Some(0), 0));
    assert_eq!((meeting.next(Some(9)), two(true).meet(&[5], Overlap::Skip).next(Some(9))), (None, Some(9)));
    assert_eq!(two(true).meet(&[5, 6], Overlap::Skip).remaining, Some(2));
    assert_eq!(two(true).meet(&[5, 6], Overlap::BufferOne).remaining, Some(1));
    let last = two(true).meet(&[5, 6, 7], Overlap::CancelPrevious);
    assert_eq!((last.starts, last.remaining), (vec![7], Some(1)));
}

#[test]
fn fires_for_which_there_is_no_room_are_missed() {
    let within = |standing: Standing, room, fires: &[Millis]| {
        let (meeting, missed) = standing.meet_within(room, fires, Overlap::Allow);
        (meeting.starts, meeting.buffered, missed)
    };
    assert_eq!(within(standing(false, None), 2, &[5, 6, 7]), (vec![5, 6], None, 1));
    assert_eq!(within(standing(false, Some(4)), 2, &[5, 6]), (vec![4, 5], None, 1));
    assert_eq!(within(standing(false, Some(4)), 0, &[5]), (vec![], None, 2));
    assert_eq!(within(standing(true, Some(4)), 0, &[5]), (vec![], Some(4), 1));
}

/// A schedule of every 10 ms (which no tenant may have) that is due at 0.
fn due(policies: Policies) -> Schedule {
    let cadence = Cadence::Every { every_ms: 10 };
    let tenant = crate::model::TenantId::new("demo").unwrap();
    let new = NewSchedule { policies, ..NewSchedule::new(tenant, cadence, "publish", serde_json::json!({})) };
    Schedule {
        id: new.id,
        tenant: new.tenant,
        cadence: new.cadence,
        policies: new.policies,
        queue: new.queue,
        kind: new.kind,
        payload: new.payload,
        jitter_ms: 0,
        max_attempts: 1,
        priority: 0,
        timeout_ms: None,
        keep_ms: None,
        next_fire_at_ms: Some(0),
        last_fire_at_ms: None,
        anchor_ms: 0,
        buffered_fire_at_ms: None,
        tally: Tally::default(),
        created_at_ms: 0,
        paused_at_ms: None,
        last_error: None,
        context: new.context,
    }
}

fn terms(now: Millis) -> Terms {
    Terms { now, catch_up_window_ms: 1_000, most: 100, rests: false }
}

#[test]
fn every_due_fire_is_either_made_or_missed_whatever_the_policy() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2_000 {
        let misfire = match random.u32(0..3) {
            0 => Misfire::Skip,
            1 => Misfire::Latest,
            _ => Misfire::All { max: random.u32(1..20) },
        };
        let window = random.bool().then(|| random.u64(0..300));
        let end = random.bool().then(|| random.i64(0..400));
        let policies = Policies { misfire, catch_up_window_ms: window, end_at_ms: end, ..Policies::default() };
        let now = random.i64(0..300);
        let mut schedule = due(policies);
        let (mut made, mut missed) = (Vec::new(), 0);
        let terms = Terms { most: random.usize(0..8), ..terms(now) };
        while schedule.next_fire_at_ms.is_some_and(|due| due <= now) {
            let plan = schedule.plan(terms);
            assert!(plan.fires.len() <= terms.most.max(1));
            made.extend(plan.fires);
            missed += plan.missed;
            schedule.next_fire_at_ms = plan.next;
        }
        let until = end.map_or(now, |end| end.min(now));
        let all: Vec<Millis> = (0..=until).step_by(10).collect();
        assert_eq!(made.len() as u64 + missed, all.len() as u64, "{schedule:?} at {now}");
        assert!(all.ends_with(&made), "{made:?} are not the latest of {all:?}");
        let most = misfire.max().unwrap_or(1);
        assert!(made.len() <= most as usize && made.iter().all(|fire| now - fire <= window.unwrap_or(1_000) as i64));
        let next = now - now % 10 + 10;
        assert_eq!(schedule.next_fire_at_ms, Some(next).filter(|next| end.is_none_or(|end| *next <= end)));
    }
}

#[test]
fn fires_of_a_disabled_tenant_are_all_missed() {
    let plan = due(Policies::default()).plan(Terms { rests: true, ..terms(95) });
    assert_eq!(plan, Plan { fires: vec![], missed: 10, next: Some(100) });
}

#[test]
fn a_schedule_that_is_not_due_plans_nothing() {
    let schedule = Schedule { next_fire_at_ms: Some(100), ..due(Policies::default()) };
    assert_eq!(schedule.plan(terms(95)), Plan { fires: vec![], missed: 0, next: Some(100) });
}

#[test]
fn a_range_with_too_many_fires_is_refused_with_their_number() {
    let schedule = due(Policies { start_at_ms: Some(0), end_at_ms: Some(20_000), ..Policies::default() });
    assert_eq!(schedule.fires_between(-500, 9_990).map(|fires| fires.len()), Ok(1_000));
    assert_eq!(schedule.fires_between(-500, 10_000), Err(1_001));
    assert_eq!(schedule.fires_between(0, i64::MAX), Err(2_001));
    assert_eq!(schedule.fires_between(i64::MIN, -1), Ok(vec![]));
    assert_eq!(schedule.fires_between(11, 19), Ok(vec![]));
}

#[test]
fn upcoming_fires_end_with_the_schedule() {
    let schedule = due(Policies { end_at_ms: Some(35), ..Policies::default() });
    assert_eq!(schedule.upcoming(0, 10), [0, 10, 20, 30]);
    let twice = due(Policies { remaining_fires: Some(2), ..Policies::default() });
    assert_eq!((twice.upcoming(0, 10), twice.upcoming(0, 1)), (vec![0, 10], vec![0]));
    let paused = Schedule { paused_at_ms: Some(1), next_fire_at_ms: None, ..due(Policies::default()) };
    assert_eq!(paused.upcoming(7, 2), [7, 17]);
}
