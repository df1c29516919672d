//! The end of an attempt to deliver: its row, its place in the log, and what follows for the channel.

use uuid::Uuid;

use super::{PostgresStore, Run, Write, channels, clean};
use crate::model::Millis;
use crate::store::ending::{Attempted, KEPT_MAX, failed_enough};
use crate::store::error::Inner;
use crate::store::rows::{self, Columns};
use crate::store::{
    ChannelNews, DeliveryOutcome, DeliverySettled, DeliverySettlement, DisableRules, Failing, Fence, LoggedAttempt,
    NewAttempt, Settled,
};

// What has arrived is sent, even if its channel was disabled meanwhile and it was buried with all others.
const SETTLE: &str = "
    UPDATE deliveries SET state = $3, due_at_ms = $4, finished_at_ms = $5, owner = NULL,
                          last_status = coalesce($6, last_status), last_error = $7, provider_id = $8
    WHERE id = $1 AND attempt = $2 AND (state = 'sending' OR (state = 'dead' AND $3 = 'sent'))";

const RELEASE: &str = "
    UPDATE deliveries SET state = 'pending', due_at_ms = $3, refunds = refunds + 1, owner = NULL
    WHERE id = $1 AND attempt = $2 AND state = 'sending'";

const LOG: &str = "
    WITH forgotten AS (DELETE FROM attempts WHERE delivery_id = $1 AND attempt <= $2 - $10)
    INSERT INTO attempts (delivery_id, attempt, at_ms, took_ms, outcome, class, status, error, answer)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const WORKS: &str = "
    UPDATE channels SET failing_since_ms = NULL, refusals = 0
    WHERE id = $1 AND (failing_since_ms IS NOT NULL OR refusals > 0)";

// Answers of one moment may overtake each other: the longest wait counts.
const HOLD: &str = "UPDATE channels SET not_before_ms = greatest(not_before_ms, $2) WHERE id = $1";

const FAILS: &str = "
    UPDATE channels SET failing_since_ms = coalesce(failing_since_ms, $2),
                        refusals = CASE WHEN $3 THEN refusals + 1 ELSE 0 END
    WHERE id = $1 RETURNING failing_since_ms, refusals";

/// What `plans` looks at.
#[cfg(test)]
pub(super) const HOT: &[&str] = &[SETTLE, RELEASE];

pub(super) async fn settle(store: &PostgresStore, settlement: DeliverySettlement) -> Inner<DeliverySettled> {
    let late = DeliverySettled { settled: Settled::Late, disabled: None };
    let DeliverySettlement { fence, outcome, log, news } = settlement;
    let mut session = store.session().await?;
    let mut write = session.begin().await?;
    let select = sqlx::query("SELECT channel_id, now_ms() AS now_ms FROM deliveries WHERE id = $1").bind(fence.id);
    let Some(row) = write.optional(select).await? else { return write.end(Ok(late)).await };
    let (channel, now) = (row.id("channel_id")?, row.number("now_ms")?);
    if news != ChannelNews::None {
        // The channel before its delivery, as everywhere.
        write.execute(sqlx::query("SELECT 1 FROM channels WHERE id = $1 FOR NO KEY UPDATE").bind(channel)).await?;
    }
    if !end(&mut write, fence, outcome, now).await? {
        return write.end(Ok(late)).await;
    }
    if let Some(attempt) = log {
        keep(&mut write, fence, attempt, now).await?;
    }
    let disabled = tell(&mut write, channel, news, now).await?;
    write.commit().await?;
    Ok(DeliverySettled { settled: Settled::Applied, disabled })
}

/// Writes the delivery's own row. Answers whether the claim was still held.
async fn end(write: &mut Write<'_>, fence: Fence, outcome: DeliveryOutcome, now: Millis) -> Inner<bool> {
    let statement = match outcome {
        DeliveryOutcome::Release { after_ms } => {
            let due = now.saturating_add(rows::signed(after_ms));
            sqlx::query(RELEASE).bind(fence.id).bind(i64::from(fence.attempt)).bind(due)
        }
        ended => {
            let ended = Attempted::by(ended, now);
            sqlx::query(SETTLE)
                .bind(fence.id)
                .bind(i64::from(fence.attempt))
                .bind(ended.state)
                .bind(ended.due_at)
                .bind(ended.finished_at)
                .bind(ended.status.map(i64::from))
                .bind(ended.error.map(clean))
                .bind(ended.provider_id.map(clean))
        }
    };
    Ok(write.execute(statement).await? > 0)
}

async fn keep(write: &mut Write<'_>, fence: Fence, attempt: NewAttempt, now: Millis) -> Inner<()> {
    let log = sqlx::query(LOG)
        .bind(fence.id)
        .bind(i64::from(fence.attempt))
        .bind(now)
        .bind(rows::signed(attempt.took_ms))
        .bind(clean(attempt.outcome))
        .bind(attempt.class.map(clean))
        .bind(attempt.status.map(i64::from))
        .bind(attempt.error.map(clean))
        .bind(attempt.answer.map(clean))
        .bind(i64::from(KEPT_MAX));
    write.execute(log).await.map(drop)
}

/// Writes what the attempt says about its channel. Answers why it is disabled from now on.
async fn tell(write: &mut Write<'_>, channel: Uuid, news: ChannelNews, now: Millis) -> Inner<Option<String>> {
    let why = match news {
        ChannelNews::None => None,
        ChannelNews::Works => {
            write.execute(sqlx::query(WORKS).bind(channel)).await?;
            None
        }
        ChannelNews::Hold { for_ms, rules, reason } => {
            let until = now.saturating_add(rows::signed(for_ms));
            write.execute(sqlx::query(HOLD).bind(channel).bind(until)).await?;
            fails(write, channel, Failing::Away, rules, &reason, now).await?
        }
        ChannelNews::Fails { how, rules, reason } => fails(write, channel, how, rules, &reason, now).await?,
        ChannelNews::Gone { reason } => Some(reason),
    };
    let Some(why) = why else { return Ok(None) };
    Ok(channels::stop(write, channel, &why).await?.then_some(why))
}

/// Counts a failure. Answers why it is enough.
async fn fails(
    write: &mut Write<'_>,
    channel: Uuid,
    how: Failing,
    rules: DisableRules,
    reason: &str,
    now: Millis,
) -> Inner<Option<String>> {
    let fails = sqlx::query(FAILS).bind(channel).bind(now).bind(how == Failing::Refuses);
    let row = write.one(fails).await?;
    let since: Millis = row.number("failing_since_ms")?;
    Ok(failed_enough(row.number("refusals")?, now.saturating_sub(since), rules, reason))
}

pub(super) async fn list(store: &PostgresStore, delivery: Uuid) -> Inner<Vec<LoggedAttempt>> {
    let select = "SELECT attempt, at_ms, took_ms, outcome, class, status, error, answer FROM attempts
                  WHERE delivery_id = $1 ORDER BY attempt";
    let select = sqlx::query(select).bind(delivery);
    store.session().await?.all(select).await?.iter().map(rows::attempt).collect()
}
