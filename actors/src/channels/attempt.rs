//! One claimed delivery, from its claim to its settled row.
//!
//! The attempt is a trace of its own, linked to the span that caused the delivery. It is guarded: an adapter that panics
//! costs this attempt and nothing else. It is settled by a fenced update, so an answer that comes after the lease was
//! lost changes nothing.

use std::sync::Arc;
use std::time::Duration;

use supervision::{Errand, GuardSite, Panicked, guard};
use telemetry::context::with_deadline;
use telemetry::panic::Policy;
use telemetry::spans::{Shown, shown};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;
use uuid::Uuid;

use super::board::Entry;
use super::schedule::RetrySchedule;
use super::{Channel, Message, Outcome, Report, Word};
use crate::model::now_ms;
use crate::seam::seam;
use crate::store::{
    self, ChannelNews, Delivery, DeliveryOutcome, DeliverySettled, DeliverySettlement, DisableRules, Failing,
    NewAttempt, Settled, SharedStore,
};

telemetry::declare_spans! {
    /// One attempt to deliver, from its claim to its settled row.
    struct AttemptSpan<'a> = ("channel.deliver", client, follower) {
        #[name = "delivery.id"]
        delivery: Shown<'a, Uuid>,
        #[name = "delivery.attempt"]
        attempt: i64,
        #[name = "channel.id"]
        channel: Shown<'a, Uuid>,
        #[name = "channel.kind"]
        kind: &'a str,
        tenant: &'a str,
    } later {
        outcome: &str,
        #[name = "http.response.status_code"]
        status: i64,
        #[name = "error.type"]
        error: &str,
        #[name = "otel.status_code"]
        end: &str,
    }
}

telemetry::labels! {
    /// Channels of one kind.
    pub struct OfKind<'a> { kind: &'a str }
    /// An attempt, by the kind of its channel and by how it ended.
    pub struct Attempted<'a> { kind: &'a str, outcome: Word }
}

telemetry::declare_metrics! {
    /// Attempts to deliver, by the kind of channel and by how they ended.
    pub static ATTEMPTS: Counter<Attempted> = ("channel.delivery.attempts", "{attempt}");
    /// Time one attempt took, without its settling.
    pub static DURATION: Histogram<OfKind> = ("channel.delivery.duration", "s", [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
    /// Time from the moment a delivery was accepted until the receiver said OK.
    pub static LATENCY: Histogram = ("channel.delivery.latency", "s", [0.05, 0.1, 0.5, 1.0, 5.0, 60.0, 600.0, 3600.0, 86400.0]);
    /// Channels that were disabled because of what their receivers answered.
    pub static DISABLED: Counter<OfKind> = ("channel.disabled", "{channel}");
    /// Attempts whose end could not be written down: the lease was lost, or the store stayed away.
    pub static UNSETTLED: Counter = ("channel.delivery.unsettled", "{attempt}");
}

/// The first pause before settling is tried again, and its longest.
const SETTLE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What a delivery waits that met a limit of our own, and at most as much again: places are held for a request's time.
const OWN_LIMIT_PAUSE: Duration = Duration::from_secs(1);

/// How far past its deadline an adapter is waited for.
const OVERRUN: Duration = Duration::from_secs(1);

/// What all attempts share.
pub struct Desk {
    /// Where deliveries live.
    pub store: SharedStore,
    /// When a failed one is tried again.
    pub schedule: RetrySchedule,
    /// When a channel that only fails is disabled.
    pub disable: DisableRules,
    /// What one request may take.
    pub request_timeout: Duration,
    /// Where panics of adapters are recorded: the direct child of the root, and the actor below it.
    pub site: (&'static str, &'static str),
}

/// What one attempt works on.
pub struct Attempt {
    /// What all attempts share.
    pub desk: Arc<Desk>,
    /// The channel's row.
    pub channel: Arc<store::Channel>,
    /// The channel's adapter, or why it cannot be opened.
    pub adapter: Result<Arc<dyn Channel>, String>,
    /// The channel's place on the board.
    pub entry: Entry,
    /// The claimed delivery.
    pub delivery: Delivery,
    /// When the claim ends.
    pub lease_until: Instant,
    /// Fires when the stop budget is used up: what is still under way then is given back.
    pub cut: CancellationToken,
}

impl Attempt {
    /// Sends and settles. Never panics because of the adapter, never takes longer than the lease.
    pub async fn run(self) {
        let span = AttemptSpan {
            delivery: shown(&self.delivery.id),
            attempt: self.delivery.charged().into(),
            channel: shown(&self.channel.id),
            kind: &self.channel.kind,
            tenant: self.delivery.tenant.as_str(),
        };
        let (span, context) = (span.open(), self.delivery.context.clone());
        telemetry::context::as_follower(span, &context, self.send_and_settle()).await;
    }

    async fn send_and_settle(self) {
        let started = Instant::now();
        let Some(report) = self.send().await else {
            // If it was cut by the stop, the receiver may have it; its id makes a repetition harmless.
            return self.give_back(Duration::ZERO).await;
        };
        if report.outcome.is_our_own() {
            let (delivery, fault) = (self.delivery.id, report.outcome.fault());
            tracing::info!(delivery.id = %delivery, fault, "a limit of our own, nothing was sent");
            return self.give_back(OWN_LIMIT_PAUSE.mul_f64(1.0 + fastrand::f64())).await;
        }
        seam!("after_send");
        let took = started.elapsed();
        DURATION.record(took.as_secs_f64(), OfKind { kind: &self.channel.kind });
        self.report(&report.outcome);
        let settlement = DeliverySettlement {
            fence: self.delivery.fence(),
            log: Some(logged(&report, took)),
            news: self.news(&report.outcome),
            outcome: self.verdict(report.outcome),
        };
        self.settle(settlement).await;
    }

    /// `None` if it was cut, or came too late to be sent.
    async fn send(&self) -> Option<Report> {
        if self.cut.is_cancelled() {
            return None;
        }
        let limit = self.attempts_max();
        if self.delivery.charged() > limit {
            // Its last attempt never reported back, and all are used up.
            let reason = format!("given up after {limit} attempts, the last one was lost");
            return Some(Outcome::Dead { status: None, reason }.into());
        }
        let adapter = match &self.adapter {
            Ok(adapter) => adapter,
            Err(reason) => return Some(Outcome::Dead { status: None, reason: reason.clone() }.into()),
        };
        let message = self.message();
        let Some(deadline) = self.deadline() else {
            // The claim took so long that somebody else could have the delivery before an answer came.
            tracing::warn!(delivery.id = %self.delivery.id, "too little is left of the lease, nothing is sent");
            return None;
        };
        let sending = async {
            seam!("inside_send");
            adapter.send(&message, deadline).await
        };
        tokio::select! {
            biased;
            sent = guard(self.site(), with_deadline(deadline, sending)) => Some(sent.unwrap_or_else(panicked)),
            // Adapters keep their deadline themselves; this is for one that does not.
            () = tokio::time::sleep_until(deadline + OVERRUN) => {
                Some(Outcome::Ambiguous { detail: "the adapter overran its deadline".to_owned() }.into())
            }
            () = self.cut.cancelled() => None,
        }
    }

    /// When the request ends: in time for its lease, even if the adapter overruns. `None` if there is no such time.
    fn deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let latest = self.lease_until.checked_sub(OVERRUN).filter(|latest| *latest > now)?;
        Some(latest.min(now + self.desk.request_timeout))
    }

    fn message(&self) -> Message {
        Message {
            id: self.delivery.id,
            attempt: self.delivery.charged(),
            created_at_ms: self.delivery.created_at_ms,
            text: self.delivery.text.clone(),
            data: self.delivery.data.clone(),
        }
    }

    fn attempts_max(&self) -> u32 {
        self.delivery.attempts_max.unwrap_or_else(|| self.desk.schedule.attempts_max())
    }

    fn site(&self) -> GuardSite<'_> {
        GuardSite {
            component: self.desk.site.0,
            actor: self.desk.site.1,
            policy: Policy::KeepRunning,
            phase: "deliver",
            tenant: Some(self.delivery.tenant.as_str()),
            detail: self.told(),
        }
    }

    /// For the record of a panic that is not the adapter's.
    pub fn errand(&self) -> Errand {
        Errand {
            tenant: Some(self.delivery.tenant.to_string()),
            detail: self.told(),
            if_it_panics: Some("nothing is written down, the delivery is made again when its lease ends"),
        }
    }

    fn told(&self) -> Vec<(String, String)> {
        let ids = [("delivery", self.delivery.id), ("channel", self.channel.id)];
        ids.map(|(key, id)| (key.to_owned(), id.to_string())).to_vec()
    }

    /// Tells the breaker, the metrics, the span and the log.
    fn report(&self, outcome: &Outcome) {
        ATTEMPTS.add(1, Attempted { kind: &self.channel.kind, outcome: outcome.word() });
        let span = Span::current();
        AttemptSpan::outcome(&span, outcome.word().as_str());
        if let Some(status) = outcome.status() {
            AttemptSpan::status(&span, status.into());
        }
        let Some(fault) = outcome.fault() else {
            self.entry.succeeded();
            let waited_ms = now_ms().saturating_sub(self.delivery.created_at_ms).max(0).unsigned_abs();
            return LATENCY.record(Duration::from_millis(waited_ms).as_secs_f64(), ());
        };
        // A message that the receiver cannot take says nothing about the receiver.
        if !matches!(outcome, Outcome::Dead { .. }) {
            self.entry.failed();
        }
        AttemptSpan::end(&span, "ERROR");
        AttemptSpan::error(&span, outcome.class());
        let (tenant, attempt) = (self.delivery.tenant.as_str(), i64::from(self.delivery.charged()));
        tracing::warn!(delivery.id = %self.delivery.id, channel.id = %self.channel.id, tenant, delivery.attempt = attempt,
            error.r#type = outcome.class(), fault, "delivery failed");
    }

    /// What is written into the row.
    fn verdict(&self, outcome: Outcome) -> DeliveryOutcome {
        let status = outcome.status();
        match outcome {
            Outcome::Delivered { status, provider_id } => DeliveryOutcome::Sent { status, provider_id },
            Outcome::Dead { reason, .. } | Outcome::Gone { reason, .. } => DeliveryOutcome::Dead { status, reason },
            Outcome::Retry { after, detail, .. } => self.again(after, status, detail),
            Outcome::Refused { detail, .. } | Outcome::Ambiguous { detail } => self.again(None, status, detail),
        }
    }

    /// What it says about the channel. A wait that the receiver asks for holds all of its deliveries, not this one only.
    fn news(&self, outcome: &Outcome) -> ChannelNews {
        let fails = |how, reason: &str| ChannelNews::Fails { how, rules: self.desk.disable, reason: reason.to_owned() };
        match outcome {
            Outcome::Delivered { .. } => ChannelNews::Works,
            Outcome::Retry { after: Some(after), detail, .. } => {
                let wait = (*after).min(self.desk.schedule.retry_after_max);
                let for_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                ChannelNews::Hold { for_ms, rules: self.desk.disable, reason: detail.clone() }
            }
            Outcome::Retry { class: "panic", .. } | Outcome::Dead { .. } => ChannelNews::None,
            Outcome::Retry { detail, .. } | Outcome::Ambiguous { detail } => fails(Failing::Away, detail),
            Outcome::Refused { detail, .. } => fails(Failing::Refuses, detail),
            Outcome::Gone { reason, .. } => ChannelNews::Gone { reason: reason.clone() },
        }
    }

    fn again(&self, asked: Option<Duration>, status: Option<u16>, error: String) -> DeliveryOutcome {
        let attempt = self.delivery.charged();
        let delay = self.desk.schedule.delay_after(attempt, asked).filter(|_| attempt < self.attempts_max());
        match delay {
            Some(delay) => {
                let after_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                DeliveryOutcome::Retry { after_ms, status, error }
            }
            None => DeliveryOutcome::Dead { status, reason: format!("given up after {attempt} attempts: {error}") },
        }
    }

    /// The delivery is due again after `wait`, and the attempt is not charged.
    async fn give_back(&self, wait: Duration) {
        let after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.settle(DeliverySettlement::new(self.delivery.fence(), DeliveryOutcome::Release { after_ms })).await;
    }

    /// Tries until the lease ends: an answer that is not written down would be sent once more.
    async fn settle(&self, settlement: DeliverySettlement) {
        let mut pause = SETTLE_PAUSES.0;
        loop {
            let fault = match self.desk.store.settle_delivery(settlement.clone()).await {
                Ok(DeliverySettled { settled: Settled::Late, .. }) => "the lease was lost".to_owned(),
                Ok(DeliverySettled { disabled, .. }) => return self.tell(disabled.as_deref()),
                Err(error) if error.is_retryable() && Instant::now() + pause < self.lease_until => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(SETTLE_PAUSES.1);
                    continue;
                }
                Err(error) => error.to_string(),
            };
            UNSETTLED.add(1, ());
            tracing::warn!(delivery.id = %self.delivery.id, fault, "the end of a delivery could not be written down");
            return;
        }
    }

    fn tell(&self, disabled: Option<&str>) {
        if let Some(reason) = disabled {
            DISABLED.add(1, OfKind { kind: &self.channel.kind });
            tracing::warn!(channel.id = %self.channel.id, tenant = %self.channel.tenant, reason, "channel disabled");
        }
    }
}

/// What is kept about an attempt.
fn logged(report: &Report, took: Duration) -> NewAttempt {
    let outcome = &report.outcome;
    let failed = outcome.fault().is_some();
    NewAttempt {
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        outcome: outcome.word().as_str().to_owned(),
        class: failed.then(|| outcome.class().to_owned()),
        status: outcome.status(),
        error: outcome.fault().map(str::to_owned),
        answer: report.answer.clone(),
    }
}

fn panicked(panicked: Panicked) -> Report {
    panicked.outcome("the delivery failed, and is tried again if it has attempts left");
    let detail = format!("the adapter panicked (incident {})", panicked.incident);
    Outcome::Retry { class: "panic", status: None, after: None, detail }.into()
}

#[cfg(test)]
mod tests;
