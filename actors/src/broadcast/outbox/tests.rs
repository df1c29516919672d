//! The queue of one subscriber, with time in the test's hand.

use super::*;
use std::future::poll_fn;

const LIMITS: OutboxLimits = OutboxLimits {
    bytes_max: 100,
    frames_max: 10,
    behind_max: Duration::from_secs(5),
    ping_after: Duration::from_secs(30),
    pong_within: Duration::from_secs(10),
};

fn outbox() -> Outbox {
    Outbox::new(LIMITS)
}

fn frames(count: usize, bytes: usize) -> Vec<Frame> {
    (0..count).map(|_| Frame::from("x".repeat(bytes))).collect()
}

fn push(outbox: &Outbox, count: usize, bytes: usize) -> Pushed {
    outbox.push(&frames(count, bytes), Instant::now())
}

/// Frames and bytes.
fn waiting(outbox: &Outbox) -> (usize, usize) {
    let load = outbox.load();
    (load.frames, load.bytes)
}

async fn next(outbox: &Outbox) -> Batch {
    poll_fn(|cx| outbox.poll_next(cx)).await
}

async fn advance(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn all_that_waits_is_handed_out_in_one_batch_in_order() {
    let outbox = outbox();
    let sent = [Frame::from("a"), Frame::from("b"), Frame::from("c")];
    outbox.push(&sent[..2], Instant::now());
    outbox.push(&sent[2..], Instant::now());
    assert_eq!(next(&outbox).await, Batch::Frames(sent.to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_task_is_woken_by_a_push() {
    let outbox = outbox();
    let (batch, _) = tokio::join!(next(&outbox), async { push(&outbox, 1, 1) });
    assert_eq!(batch, Batch::Frames(frames(1, 1)));
}

#[tokio::test(start_paused = true)]
async fn too_many_bytes_or_too_many_frames_close_it_as_slow_and_free_the_queue() {
    for (count, bytes) in [(1, 41), (7, 1)] {
        let outbox = outbox();
        assert_eq!(push(&outbox, 4, 15), Pushed::Queued);
        assert_eq!(push(&outbox, count, bytes), Pushed::Overflowed { dropped: 4 + count });
        assert_eq!(waiting(&outbox), (0, 0));
        assert_eq!(push(&outbox, 1, 1), Pushed::Closed);
        assert_eq!(next(&outbox).await, Batch::Closed(CloseReason::Slow));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_being_written_counts_as_waiting_until_the_task_comes_back() {
    let outbox = outbox();
    push(&outbox, 1, 80);
    next(&outbox).await;
    assert_eq!(waiting(&outbox), (0, 80));
    assert_eq!(push(&outbox, 1, 30), Pushed::Overflowed { dropped: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_stuck_in_a_write_is_overdue_by_the_age_of_its_oldest_frame() {
    let outbox = outbox();
    push(&outbox, 1, 1);
    advance(3).await;
    next(&outbox).await;
    advance(2).await;
    assert_eq!(outbox.overdue(Instant::now()), None);
    advance(1).await;
    assert_eq!(outbox.overdue(Instant::now()), Some(CloseReason::Slow));
}

#[tokio::test(start_paused = true)]
async fn a_busy_subscriber_that_keeps_up_is_never_overdue() {
    let outbox = outbox();
    for _ in 0..60 {
        push(&outbox, 1, 10);
        advance(1).await;
        assert_eq!(outbox.overdue(Instant::now()), None);
        next(&outbox).await;
        outbox.heard();
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_seen_while_the_task_writes() {
    let outbox = outbox();
    push(&outbox, 1, 1);
    next(&outbox).await;
    let (reason, dropped) = tokio::join!(poll_fn(|cx| outbox.poll_cut(cx)), async { outbox.close(CloseReason::Slow) });
    assert_eq!((reason, dropped), (CloseReason::Slow, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn draining_hands_out_what_waits_and_then_closes() {
    let outbox = outbox();
    push(&outbox, 2, 1);
    let reason = CloseReason::Draining { after_ms: 7 };
    assert_eq!(outbox.close(reason), Some(0));
    assert_eq!(next(&outbox).await, Batch::Frames(frames(2, 1)));
    assert_eq!(next(&outbox).await, Batch::Closed(reason));
    assert_eq!(outbox.close(reason), None);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_a_stalled_client_holds_up_ends_as_slow() {
    let outbox = outbox();
    push(&outbox, 1, 1);
    next(&outbox).await;
    outbox.close(CloseReason::Draining { after_ms: 7 });
    advance(6).await;
    let overdue = outbox.overdue(Instant::now());
    assert_eq!((overdue, outbox.close(CloseReason::Slow)), (Some(CloseReason::Slow), Some(0)));
    assert_eq!(next(&outbox).await, Batch::Closed(CloseReason::Slow));
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_closed_if_it_does_not_answer() {
    let outbox = outbox();
    advance(30).await;
    assert_eq!(outbox.overdue(Instant::now()), None);
    assert_eq!(next(&outbox).await, Batch::Ping);
    advance(11).await;
    assert_eq!(outbox.overdue(Instant::now()), Some(CloseReason::Unresponsive));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_the_ping_starts_the_silence_anew() {
    let outbox = outbox();
    advance(30).await;
    outbox.overdue(Instant::now());
    next(&outbox).await;
    outbox.heard();
    advance(29).await;
    assert_eq!(outbox.overdue(Instant::now()), None);
    assert!(tokio::time::timeout(Duration::ZERO, next(&outbox)).await.is_err());
}
