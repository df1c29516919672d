//! Requests with keys of their own.

use super::{Fixture, tenant};
use crate::model::new_id;
use crate::store::{BeginRequest, BegunRequest, Fingerprint, KeptAnswer, RequestEnd, RequestTicket, Settled};

const LEASE_MS: u64 = 60_000;
const KEEP_MS: u64 = 86_400_000;

pub(crate) fn request(of: &str, key: &str, body: &str) -> BeginRequest {
    BeginRequest {
        tenant: tenant(of),
        key: Fingerprint::of(&[key.as_bytes()]),
        fingerprint: Fingerprint::of(&[body.as_bytes()]),
        effect: new_id(),
        lease_ms: LEASE_MS,
        keep_ms: KEEP_MS,
        held_max: 3,
    }
}

pub(crate) fn answer() -> KeptAnswer {
    KeptAnswer { status: 201, headers: vec![("location".into(), "/v1/jobs/1".into())], body: b"{\"n\":1}\xff".into() }
}

async fn begin(fixture: &Fixture, begin: BeginRequest) -> BegunRequest {
    fixture.store.begin_request(begin).await.unwrap()
}

async fn first(fixture: &Fixture, key: &str) -> RequestTicket {
    match begin(fixture, request("demo", key, "body")).await {
        BegunRequest::First(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

async fn end(fixture: &Fixture, ticket: &RequestTicket, end: RequestEnd) -> Settled {
    fixture.store.end_request(ticket, end).await.unwrap()
}

pub(crate) async fn a_request_that_comes_again_is_pending_and_then_answered_the_same(fixture: &Fixture) {
    let ticket = first(fixture, "k").await;
    assert_eq!(begin(fixture, request("demo", "k", "body")).await, BegunRequest::Pending);
    assert_eq!(end(fixture, &ticket, RequestEnd::Answered(answer())).await, Settled::Applied);
    for _ in 0..2 {
        assert_eq!(begin(fixture, request("demo", "k", "body")).await, BegunRequest::Answered(answer()));
    }
}

pub(crate) async fn another_request_under_the_same_key_is_refused_but_for_another_tenants(fixture: &Fixture) {
    let ticket = first(fixture, "k").await;
    assert_eq!(begin(fixture, request("demo", "k", "other")).await, BegunRequest::Differs);
    end(fixture, &ticket, RequestEnd::Answered(answer())).await;
    assert_eq!(begin(fixture, request("demo", "k", "other")).await, BegunRequest::Differs);
    let other = begin(fixture, request("other", "k", "other")).await;
    assert!(matches!(other, BegunRequest::First(_)), "{other:?}");
}

pub(crate) async fn a_request_whose_runner_was_lost_may_be_tried_again_with_the_same_effect(fixture: &Fixture) {
    let lost = first(fixture, "k").await;
    fixture.advance(LEASE_MS);
    let BegunRequest::Again(again) = begin(fixture, request("demo", "k", "body")).await else { panic!("not again") };
    assert_eq!((again.effect, again.attempt), (lost.effect, 2));
    for late in [RequestEnd::Answered(answer()), RequestEnd::Open, RequestEnd::Undone] {
        assert_eq!(end(fixture, &lost, late).await, Settled::Late);
    }
    assert_eq!(begin(fixture, request("demo", "k", "body")).await, BegunRequest::Pending);
    assert_eq!(end(fixture, &again, RequestEnd::Answered(answer())).await, Settled::Applied);
}

pub(crate) async fn an_open_request_may_come_again_at_once_and_an_undone_key_is_free(fixture: &Fixture) {
    let ticket = first(fixture, "k").await;
    end(fixture, &ticket, RequestEnd::Open).await;
    assert_eq!(begin(fixture, request("demo", "k", "other")).await, BegunRequest::Differs);
    let BegunRequest::Again(again) = begin(fixture, request("demo", "k", "body")).await else { panic!("not again") };
    assert_eq!(again.effect, ticket.effect);
    end(fixture, &again, RequestEnd::Undone).await;
    let free = begin(fixture, request("demo", "k", "other")).await;
    assert!(matches!(free, BegunRequest::First(_)), "{free:?}");
}

pub(crate) async fn requests_are_forgotten_when_their_time_is_over(fixture: &Fixture) {
    let ticket = first(fixture, "k").await;
    end(fixture, &ticket, RequestEnd::Answered(answer())).await;
    fixture.advance(KEEP_MS - 1);
    assert_eq!(fixture.store.forget_requests(10).await.unwrap(), 0);
    assert_eq!(begin(fixture, request("demo", "k", "body")).await, BegunRequest::Answered(answer()));
    fixture.advance(1);
    // Also by itself, before anyone has swept.
    let new = first(fixture, "k").await;
    assert_ne!(new.effect, ticket.effect);
    fixture.advance(KEEP_MS);
    assert_eq!(fixture.store.forget_requests(10).await.unwrap(), 1);
    assert_eq!(fixture.store.forget_requests(10).await.unwrap(), 0);
}

pub(crate) async fn a_tenant_has_so_many_requests_and_room_again_when_some_are_gone(fixture: &Fixture) {
    let tickets = [first(fixture, "a").await, first(fixture, "b").await, first(fixture, "c").await];
    assert_eq!(begin(fixture, request("demo", "d", "body")).await, BegunRequest::Full);
    let other = begin(fixture, request("other", "d", "body")).await;
    assert!(matches!(other, BegunRequest::First(_)), "{other:?}");
    end(fixture, &tickets[0], RequestEnd::Undone).await;
    first(fixture, "d").await;
    assert_eq!(begin(fixture, request("demo", "e", "body")).await, BegunRequest::Full);
    fixture.advance(KEEP_MS);
    assert_eq!(fixture.store.forget_requests(3).await.unwrap(), 3);
    assert_eq!(fixture.store.forget_requests(3).await.unwrap(), 1);
    for key in ["a", "b", "c"] {
        first(fixture, key).await;
    }
}
