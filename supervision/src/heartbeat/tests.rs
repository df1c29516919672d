//! Beats that come, fail to come, and come too late.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn state_of(beats: &Heartbeats) -> BeatState {
    beats.snapshot()[0].state
}

#[tokio::test(start_paused = true)]
async fn a_loop_is_stale_after_two_intervals_without_a_tick() {
    let beats = Heartbeats::new();
    let beat = beats.register(&Path::from("scheduler.claimer"), "claimer", SECOND);
    assert_eq!(state_of(&beats), BeatState::Starting);
    beat.beat();
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(state_of(&beats), BeatState::Beating);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(state_of(&beats), BeatState::Stale);
    assert!(!beats.is_healthy(&["scheduler"], 2 * SECOND));
    beat.beat();
    assert!(beats.is_healthy(&["scheduler"], 2 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_protected_zone_is_not_stale_until_its_limit() {
    let beats = Heartbeats::new();
    let beat = beats.register(&Path::from("a"), "loop", SECOND);
    let zone = beat.protect(10 * SECOND);
    tokio::time::advance(9 * SECOND).await;
    assert_eq!(state_of(&beats), BeatState::Protected);
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(state_of(&beats), BeatState::Stale);
    drop(zone);
    assert_eq!(state_of(&beats), BeatState::Stale);
}

#[tokio::test(start_paused = true)]
async fn handled_messages_do_not_count_as_beats() {
    let beats = Heartbeats::new();
    let path = Path::from("a");
    let _beat = beats.register(&path, "loop", SECOND);
    let activity = beats.activity(&path, "Msg", None);
    tokio::time::advance(3 * SECOND).await;
    activity.leave(activity.enter());
    let snapshot = &beats.snapshot()[0];
    assert_eq!(snapshot.state, BeatState::Stale);
    assert!(snapshot.last_message_at_ms.is_some());
    activity.enter();
    tokio::time::advance(SECOND).await;
    assert_eq!(beats.snapshot()[0].busy, Some(Busy { message_type: "Msg", for_ms: 1000 }));
}

#[tokio::test(start_paused = true)]
async fn a_dead_incarnation_waits_and_a_forgotten_child_vanishes() {
    let beats = Heartbeats::new();
    let path = Path::from("a");
    beats.register(&path, "loop", SECOND).beat();
    beats.incarnation_ended(&path);
    assert_eq!(state_of(&beats), BeatState::Waiting);
    beats.forget(&path);
    assert!(beats.snapshot().is_empty());
}
