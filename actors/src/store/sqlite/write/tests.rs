//! Transactions that several share.

use futures_util::TryFutureExt;
use serde_json::json;
use uuid::Uuid;

use super::super::SqliteStore;
use super::*;
use crate::jobs::Cadence;
use crate::store::contract::requests::{answer, request};
use crate::store::contract::{new_job, tenant};
use crate::store::sqlite::tests::open_in;
use crate::store::{
    BegunRequest, DeliveryOutcome, DeliverySettlement, Fence, FireDue, KeyHash, NewSchedule, Overlap, RequestEnd, Store,
};

async fn insert(write: &mut Write, topic: i64) {
    let insert = sqlx::query("INSERT INTO queues (queue, vtime) VALUES (?1, 0)").bind(topic.to_string());
    insert.execute(&mut **write).await.unwrap();
}

/// What others see.
async fn kept(store: &SqliteStore) -> Vec<String> {
    let kept = sqlx::query_scalar("SELECT queue FROM queues ORDER BY queue");
    kept.fetch_all(&store.readers().unwrap()).await.unwrap()
}

/// One who has written and waits for the one behind it, and that one.
async fn two(store: &SqliteStore) -> (impl Future<Output = Inner<()>>, Write) {
    let mut first = store.write().await.unwrap();
    insert(&mut first, 1).await;
    let mut second = Box::pin(store.write());
    assert!((&mut second).now_or_never().is_none(), "one at a time");
    let mut first = Box::pin(first.commit());
    let mut second = tokio::select! {
        biased;
        _ = &mut first => panic!("it has not left the transaction open"),
        second = second => second.unwrap(),
    };
    insert(&mut second, 2).await;
    assert!(kept(store).await.is_empty(), "nothing is committed");
    (first, second)
}

#[tokio::test]
async fn two_that_come_together_are_committed_together() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(&directory).await;
    let (mut first, second) = two(&store).await;
    assert!((&mut first).now_or_never().is_none(), "answered before the commit");
    second.commit().await.unwrap();
    assert_eq!(kept(&store).await, ["1", "2"]);
    assert!(matches!(first.now_or_never(), Some(Ok(()))), "it was to be told");
}

#[tokio::test]
async fn one_that_gives_up_undoes_its_own_part_only() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(&directory).await;
    let (first, second) = two(&store).await;
    drop(second);
    first.await.unwrap();
    assert_eq!(kept(&store).await, ["1"]);
}

#[tokio::test]
async fn a_caller_that_gives_up_waiting_takes_the_commit_from_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(&directory).await;
    let (first, second) = two(&store).await;
    let mut second = Box::pin(second.commit());
    assert!((&mut second).now_or_never().is_none(), "it is under way");
    drop(second);
    first.await.unwrap();
    assert_eq!(kept(&store).await, ["1", "2"]);
}

#[tokio::test]
async fn who_wants_to_be_alone_and_gives_up_takes_the_commit_from_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(&directory).await;
    let mut first = store.write().await.unwrap();
    insert(&mut first, 1).await;
    let mut second = Box::pin(store.write());
    let mut alone = Box::pin(store.write_alone());
    assert!((&mut second).now_or_never().is_none() && (&mut alone).now_or_never().is_none());
    let mut first = Box::pin(first.commit());
    assert!((&mut first).now_or_never().is_none());
    drop(second);
    // It commits for the first one.
    assert!((&mut alone).now_or_never().is_none());
    drop(alone);
    first.await.unwrap();
    assert_eq!(kept(&store).await, ["1"]);
}

#[tokio::test]
async fn a_transaction_ends_though_all_who_shared_it_have_gone() {
    let directory = tempfile::tempdir().unwrap();
    let ((store, _), (other, _)) = (open_in(&directory).await, open_in(&directory).await);
    let (first, second) = two(&store).await;
    drop((first, second));
    other.write().await.unwrap().commit().await.unwrap();
    assert_eq!(kept(&store).await, ["1"]);
}

#[tokio::test]
async fn one_that_leaves_the_line_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(&directory).await;
    let mut first = store.write().await.unwrap();
    insert(&mut first, 1).await;
    let mut second = Box::pin(store.write());
    assert!((&mut second).now_or_never().is_none());
    let mut first = Box::pin(first.commit());
    assert!((&mut first).now_or_never().is_none(), "it waits for the one behind it");
    drop(second);
    first.await.unwrap();
    assert_eq!(kept(&store).await, ["1"]);
}

#[tokio::test]
async fn nobody_waits_for_what_takes_long() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(&directory).await;
    let (mut first, second) = two(&store).await;
    let mut long = Box::pin(store.write_alone());
    assert!((&mut long).now_or_never().is_none());
    second.commit().await.unwrap();
    assert_eq!(kept(&store).await, ["1", "2"]);
    assert!(matches!((&mut first).now_or_never(), Some(Ok(()))));
    let mut long = long.await.unwrap();
    insert(&mut long, 3).await;
    let mut next = Box::pin(store.write());
    assert!((&mut next).now_or_never().is_none());
    long.commit().await.unwrap();
    assert_eq!(kept(&store).await, ["1", "2", "3"], "it does not wait for others either");
}

#[tokio::test]
async fn all_are_told_of_a_transaction_that_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(&directory).await;
    let (first, mut second) = two(&store).await;
    // As SQLite does by itself when the disk is full.
    sqlx::query("ROLLBACK").execute(&mut *second).await.unwrap();
    assert!(second.commit().await.is_err());
    assert!(first.await.is_err());
    assert!(kept(&store).await.is_empty());
    let mut third = store.write().await.unwrap();
    insert(&mut third, 3).await;
    third.commit().await.unwrap();
    assert_eq!(kept(&store).await, ["3"]);
}

#[tokio::test]
async fn what_is_given_up_is_undone_though_nobody_comes_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let ((store, _), (other, _)) = (open_in(&directory).await, open_in(&directory).await);
    let mut write = store.write().await.unwrap();
    insert(&mut write, 1).await;
    drop(write);
    other.write().await.unwrap().commit().await.unwrap();
    assert!(kept(&store).await.is_empty());
}

#[tokio::test]
async fn of_many_at_once_each_is_kept_that_was_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(&directory).await;
    let one = async |n: i64| {
        let mut write = store.write().await.unwrap();
        insert(&mut write, n).await;
        match n % 3 {
            0 => drop(write),
            _ => write.commit().await.unwrap(),
        }
    };
    futures_util::future::join_all((100..200).map(one)).await;
    let told: Vec<String> = (100..200).filter(|n| n % 3 != 0).map(|n| n.to_string()).collect();
    assert_eq!(kept(&store).await, told);
}

#[tokio::test]
async fn who_has_written_nothing_tells_of_nothing_that_may_yet_be_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(&directory).await;
    let (demo, key, nobody) = (tenant("demo"), KeyHash::of("demo"), Uuid::now_v7());
    store.create_tenant(&demo, &key).await.unwrap();
    let cadence = Cadence::every(10_000).unwrap();
    let schedule = NewSchedule::new(demo.clone(), cadence.clone(), "publish", json!({}));
    let schedule = store.create_schedule(schedule).await.unwrap().id;
    store.fire_due(FireDue { limit: 9, catch_up_window_ms: 1 }).await.unwrap();
    let cancelled = store.enqueue(vec![new_job("demo")]).await.unwrap().remove(0).id;
    store.cancel_job(&demo, cancelled, "by hand").await.unwrap();
    let mut tickets = Vec::new();
    for key in ["answered", "pending", "third"] {
        let BegunRequest::First(ticket) = store.begin_request(request("demo", key, "")).await.unwrap() else {
            panic!()
        };
        tickets.push(ticket);
    }
    store.end_request(&tickets[0], RequestEnd::Answered(answer())).await.unwrap();
    let unknown = NewSchedule { id: nobody, ..NewSchedule::new(demo.clone(), cadence, "publish", json!({})) };
    let release = DeliverySettlement::new(Fence { id: nobody, attempt: 1 }, DeliveryOutcome::Release { after_ms: 0 });

    let verbs = [
        ("a tenant that is there", store.create_tenant(&demo, &key).map_ok(drop).boxed()),
        ("no schedule to change", store.update_schedule(unknown).map_ok(drop).boxed()),
        ("no schedule to resume", store.resume_schedule(&demo, nobody).map_ok(drop).boxed()),
        ("one that is not paused", store.resume_schedule(&demo, schedule).map_ok(drop).boxed()),
        ("no schedule to fire", store.trigger_schedule(&demo, nobody, nobody, None).map_ok(drop).boxed()),
        ("its job", store.trigger_schedule(&demo, schedule, nobody, Some(Overlap::Skip)).map_ok(drop).boxed()),
        ("no job to cancel", store.cancel_job(&demo, nobody, "").map_ok(drop).boxed()),
        ("one that has ended", store.cancel_job(&demo, cancelled, "").map_ok(drop).boxed()),
        ("no delivery", store.settle_delivery(release).map_ok(drop).boxed()),
        ("an answer", store.begin_request(request("demo", "answered", "")).map_ok(drop).boxed()),
        ("another request", store.begin_request(request("demo", "answered", "other")).map_ok(drop).boxed()),
        ("one under way", store.begin_request(request("demo", "pending", "")).map_ok(drop).boxed()),
        ("no place", store.begin_request(request("demo", "fourth", "")).map_ok(drop).boxed()),
        ("one that was answered", store.end_request(&tickets[0], RequestEnd::Undone).map_ok(drop).boxed()),
    ];
    for (n, (what, mut verb)) in verbs.into_iter().enumerate() {
        let n = n as i64;
        let mut first = store.write().await.unwrap();
        insert(&mut first, n).await;
        assert!((&mut verb).now_or_never().is_none(), "{what}: one at a time");
        let mut first = Box::pin(first.commit());
        assert!((&mut first).now_or_never().is_none(), "{what}: it waits for the one behind it");
        verb.await.unwrap();
        assert!(kept(&store).await.contains(&n.to_string()), "{what}: answered before the commit");
        first.await.unwrap();
    }
}
