use std::sync::Mutex;

use async_trait::async_trait;
use uuid::Uuid;

use super::super::board::Board;
use super::super::test_support::Kept;
use super::*;
use crate::model::Clock;
use crate::outbound::OutboundError;
use crate::outbound::breaker::BreakerSettings;
use crate::store::{ClaimDeliveries, DeliveryState};

const LEASE_MS: u64 = 30_000;

/// What a scripted adapter does with its one message.
enum Act {
    Answer(Outcome),
    Panic,
    Hang,
    /// Fails with what is left of its time, in whole milliseconds.
    Tell,
}

struct Scripted(Act, Mutex<Vec<Message>>);

#[async_trait]
impl Channel for Scripted {
    async fn send(&self, message: &Message, _deadline: Instant) -> Report {
        self.1.lock().unwrap().push(message.clone());
        match &self.0 {
            Act::Answer(outcome) => outcome.clone().into(),
            Act::Panic => panic!("the adapter is broken"),
            Act::Hang => std::future::pending().await,
            Act::Tell => {
                let left = telemetry::context::remaining().map(|left| left.as_millis());
                Outcome::Dead { status: None, reason: format!("{left:?}") }.into()
            }
        }
    }
}

/// A store with one claimed delivery.
struct Desktop {
    kept: Kept,
    channel: Arc<store::Channel>,
    delivery: Delivery,
    board: Board,
    cut: CancellationToken,
    clock: Clock,
}

impl Desktop {
    async fn open() -> Self {
        let clock = Clock::manual(now_ms());
        let kept = Kept::by(clock.clone()).await;
        let channel = Arc::new(kept.channel("webhook", "http://127.0.0.1/").await);
        kept.deliver(&channel).await;
        let board = Board::new(BreakerSettings { failures_max: 1, ..BreakerSettings::default() });
        let delivery = claim(&kept, channel.id).await;
        Self { kept, channel, delivery, board, cut: CancellationToken::new(), clock }
    }

    fn attempt(&self, act: Act, retries: usize) -> Attempt {
        let schedule = RetrySchedule { delays: vec![Duration::from_secs(60); retries], ..RetrySchedule::default() };
        let desk = Desk {
            store: Arc::clone(&self.kept.store),
            schedule,
            disable: DisableRules { refusals_max: 2, refused_for_ms: 0, failing_for_ms: 60_000 },
            request_timeout: Duration::from_millis(10),
            site: ("channel_manager", "channel_manager.channels.channel"),
        };
        Attempt {
            desk: Arc::new(desk),
            channel: Arc::clone(&self.channel),
            adapter: Ok(Arc::new(Scripted(act, Mutex::default()))),
            entry: self.board.entry(&self.channel.tenant, self.channel.id),
            delivery: self.delivery.clone(),
            lease_until: Instant::now() + Duration::from_millis(LEASE_MS),
            cut: self.cut.clone(),
        }
    }

    async fn row(&self) -> Delivery {
        self.kept.delivery(self.delivery.id).await
    }

    fn lose_lease(&self) {
        self.clock.advance(LEASE_MS as i64 + 1);
    }

    fn failing(&self) -> bool {
        self.board.entry(&self.channel.tenant, self.channel.id).is_open()
    }
}

impl Attempt {
    fn ends_in(self, left: Duration) -> Self {
        Self { lease_until: Instant::now() + left, ..self }
    }
}

async fn claim(kept: &Kept, channel: Uuid) -> Delivery {
    let claim = ClaimDeliveries { channel, owner: Uuid::new_v4(), lease_ms: LEASE_MS, limit: 1 };
    kept.store.claim_deliveries(claim).await.unwrap().deliveries.remove(0)
}

fn ok() -> Act {
    Act::Answer(Outcome::Delivered { status: Some(200), provider_id: Some("p-1".to_owned()) })
}

#[tokio::test]
async fn a_delivery_is_sent_only_after_the_receivers_ok() {
    let desktop = Desktop::open().await;
    assert_eq!(desktop.row().await.state, DeliveryState::Sending);
    desktop.attempt(ok(), 1).run().await;
    let row = desktop.row().await;
    assert_eq!((row.state, row.last_status, row.provider_id.as_deref()), (DeliveryState::Sent, Some(200), Some("p-1")));
    assert!(!desktop.failing());
}

#[tokio::test]
async fn an_adapter_sees_the_attempts_time_as_its_deadline() {
    let desktop = Desktop::open().await;
    desktop.attempt(Act::Tell, 1).run().await;
    let told = desktop.row().await.last_error.unwrap_or_default();
    let left: Option<u64> = told.strip_prefix("Some(").and_then(|rest| rest.strip_suffix(')')?.parse().ok());
    assert!(left.is_some_and(|ms| ms <= 10), "{told}");
}

#[tokio::test]
async fn a_failure_is_kept_with_its_reason_until_the_next_attempt() {
    let desktop = Desktop::open().await;
    let refused = Outcome::Retry { class: "status", status: Some(500), after: None, detail: "sorry".to_owned() };
    desktop.attempt(Act::Answer(refused), 1).run().await;
    let row = desktop.row().await;
    assert_eq!((row.state, row.last_status), (DeliveryState::Pending, Some(500)));
    assert_eq!(row.last_error.as_deref(), Some("sorry"));
    assert!(row.next_at_ms >= now_ms() + 50_000);
    assert!(desktop.failing());
}

#[tokio::test]
async fn a_request_that_had_no_place_costs_no_attempt_and_says_nothing_about_the_receiver() {
    for error in [
        OutboundError::Busy { host: "https://example.com".to_owned() },
        OutboundError::NotBegun { host: "https://example.com".to_owned(), source: telemetry::context::OutOfTime },
    ] {
        let desktop = Desktop::open().await;
        desktop.attempt(Act::Answer(error.into()), 0).run().await;
        let channel = desktop.kept.store.get_channel(&desktop.channel.tenant, desktop.channel.id).await.unwrap();
        let row = desktop.row().await;
        assert_eq!((row.state, row.charged()), (DeliveryState::Pending, 0));
        let waits = row.next_at_ms - desktop.clock.now_ms();
        assert!((1_000..=2_000).contains(&waits), "{waits} ms");
        assert_eq!((desktop.failing(), channel.unwrap().failing_since_ms), (false, None));
    }
}

#[tokio::test]
async fn the_last_failure_kills_the_delivery_and_says_so() {
    let desktop = Desktop::open().await;
    desktop.attempt(Act::Answer(Outcome::Ambiguous { detail: "no answer".to_owned() }), 0).run().await;
    let row = desktop.row().await;
    assert_eq!(row.state, DeliveryState::Dead);
    assert_eq!(row.last_error.as_deref(), Some("given up after 1 attempts: no answer"));
}

#[tokio::test]
async fn a_panic_of_the_adapter_costs_one_attempt() {
    let desktop = Desktop::open().await;
    desktop.attempt(Act::Panic, 1).run().await;
    let row = desktop.row().await;
    assert_eq!((row.state, row.charged()), (DeliveryState::Pending, 1));
    assert!(row.last_error.unwrap().starts_with("the adapter panicked (incident "));
    assert!(desktop.failing());
}

#[tokio::test]
async fn an_adapter_that_overruns_its_deadline_is_given_up_on() {
    let desktop = Desktop::open().await;
    desktop.attempt(Act::Hang, 1).run().await;
    let row = desktop.row().await;
    assert_eq!(row.state, DeliveryState::Pending);
    assert_eq!(row.last_error.as_deref(), Some("the adapter overran its deadline"));
}

#[tokio::test]
async fn what_the_stop_cuts_is_given_back_and_not_charged() {
    let desktop = Desktop::open().await;
    let run = desktop.attempt(Act::Hang, 1).run();
    let cut = async { desktop.cut.cancel() };
    tokio::join!(run, cut);
    let row = desktop.row().await;
    assert_eq!((row.state, row.charged()), (DeliveryState::Pending, 0));
    assert!(!desktop.failing(), "a stop of ours says nothing about the receiver");
}

#[tokio::test]
async fn an_answer_after_the_lease_was_lost_changes_nothing() {
    let desktop = Desktop::open().await;
    let attempt = desktop.attempt(ok(), 1);
    desktop.lose_lease();
    let second = claim(&desktop.kept, desktop.channel.id).await;
    assert_eq!(second.attempt, 2);
    attempt.run().await;
    assert_eq!(desktop.row().await.state, DeliveryState::Sending);
}

#[tokio::test]
async fn a_claim_that_has_too_little_left_for_a_request_is_given_back_unsent() {
    let desktop = Desktop::open().await;
    desktop.attempt(ok(), 1).ends_in(OVERRUN).run().await;
    let row = desktop.row().await;
    assert_eq!((row.state, row.charged()), (DeliveryState::Pending, 0));
}

#[tokio::test]
async fn a_request_ends_before_its_claim_does() {
    let desktop = Desktop::open().await;
    let mut attempt = desktop.attempt(Act::Hang, 1).ends_in(OVERRUN + Duration::from_millis(200));
    Arc::get_mut(&mut attempt.desk).unwrap().request_timeout = Duration::from_secs(60);
    let lease_until = attempt.lease_until;
    let ended = tokio::time::timeout(Duration::from_secs(10), attempt.run()).await;
    assert!(ended.is_ok() && Instant::now() < lease_until + Duration::from_secs(5));
    assert_eq!(desktop.row().await.last_error.as_deref(), Some("the adapter overran its deadline"));
}

#[tokio::test]
async fn a_delivery_whose_last_attempt_was_lost_is_dead_without_another_request() {
    let mut desktop = Desktop::open().await;
    desktop.lose_lease();
    desktop.delivery = claim(&desktop.kept, desktop.channel.id).await;
    desktop.attempt(ok(), 0).run().await;
    let row = desktop.row().await;
    assert_eq!(row.state, DeliveryState::Dead);
    assert_eq!(row.last_error.as_deref(), Some("given up after 1 attempts, the last one was lost"));
}

#[tokio::test]
async fn a_channel_that_cannot_be_opened_kills_its_deliveries_with_the_reason() {
    let desktop = Desktop::open().await;
    let attempt = Attempt { adapter: Err("the channel's URL is refused".to_owned()), ..desktop.attempt(ok(), 1) };
    attempt.run().await;
    let row = desktop.row().await;
    assert_eq!(row.state, DeliveryState::Dead);
    assert_eq!(row.last_error.as_deref(), Some("the channel's URL is refused"));
}

#[tokio::test]
async fn a_wait_that_the_receiver_asks_for_holds_the_whole_channel_within_the_limit() {
    let desktop = Desktop::open().await;
    let after = Some(Duration::from_secs(1_000_000));
    let asked = Outcome::Retry { class: "throttled", status: Some(429), after, detail: "slow down".to_owned() };
    desktop.attempt(Act::Answer(asked), 1).run().await;
    let channel = desktop.kept.store.get_channel(&desktop.kept.tenant, desktop.channel.id).await.unwrap().unwrap();
    assert_eq!(channel.not_before_ms, Some(desktop.clock.now_ms() + 3_600_000));
}

#[tokio::test]
async fn a_receiver_that_only_ever_asks_for_time_is_disabled_in_the_end() {
    let mut desktop = Desktop::open().await;
    let asked = || {
        let (status, after) = (Some(503), Some(Duration::ZERO));
        Act::Answer(Outcome::Retry { class: "throttled", status, after, detail: "later".to_owned() })
    };
    desktop.attempt(asked(), 5).run().await;
    desktop.clock.advance(100_000);
    desktop.delivery = claim(&desktop.kept, desktop.channel.id).await;
    desktop.attempt(asked(), 5).run().await;
    let channel = desktop.kept.store.get_channel(&desktop.kept.tenant, desktop.channel.id).await.unwrap().unwrap();
    assert_eq!(channel.disabled.as_deref(), Some("nothing has arrived for 0 h, at last: later"));
}

#[tokio::test]
async fn a_row_of_refusals_disables_the_channel_and_buries_the_delivery_with_the_reason() {
    let mut desktop = Desktop::open().await;
    let refused = || Act::Answer(Outcome::Refused { status: Some(403), detail: "blocked".to_owned() });
    desktop.attempt(refused(), 5).run().await;
    assert_eq!(desktop.row().await.state, DeliveryState::Pending);
    desktop.clock.advance(100_000);
    desktop.delivery = claim(&desktop.kept, desktop.channel.id).await;
    desktop.attempt(refused(), 5).run().await;
    let reason = "refused 2 times in a row, at last: blocked";
    let channel = desktop.kept.store.get_channel(&desktop.kept.tenant, desktop.channel.id).await.unwrap().unwrap();
    assert_eq!(channel.disabled.as_deref(), Some(reason));
    assert_eq!(desktop.row().await.last_error, Some(format!("the channel is disabled: {reason}")));
}

#[tokio::test]
async fn a_message_that_the_receiver_cannot_take_is_dead_and_says_nothing_about_the_channel() {
    let desktop = Desktop::open().await;
    let bad = Outcome::Dead { status: Some(400), reason: "invalid_payload".to_owned() };
    desktop.attempt(Act::Answer(bad), 5).run().await;
    let row = desktop.row().await;
    assert_eq!((row.state, row.last_status), (DeliveryState::Dead, Some(400)));
    assert!(!desktop.failing());
    let log = desktop.kept.store.list_attempts(row.id).await.unwrap();
    assert_eq!((log[0].kept.outcome.as_str(), log[0].kept.status), ("dead", Some(400)));
    assert_eq!(log[0].kept.error.as_deref(), Some("invalid_payload"));
}

#[tokio::test]
async fn a_delivery_with_a_limit_of_its_own_is_tried_no_more_often() {
    let mut desktop = Desktop::open().await;
    desktop.delivery.attempts_max = Some(1);
    desktop.attempt(Act::Answer(Outcome::Ambiguous { detail: "no answer".to_owned() }), 5).run().await;
    let row = desktop.row().await;
    assert_eq!(row.last_error.as_deref(), Some("given up after 1 attempts: no answer"));
}
