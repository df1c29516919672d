//! The end of an attempt to deliver: its row, its place in the log, and what follows for the channel.

use sqlx::Row;
use uuid::Uuid;

use super::{Inner, SqliteStore, Write, channels, rows};
use crate::model::Millis;
use crate::store::ending::{Attempted, KEPT_MAX, failed_enough};
use crate::store::{
    ChannelNews, DeliveryOutcome, DeliverySettled, DeliverySettlement, DisableRules, Failing, Fence, LoggedAttempt,
    NewAttempt, Settled,
};

// What has arrived is sent, even if its channel was disabled meanwhile and it was buried with all others.
const SETTLE: &str = "
    UPDATE deliveries SET state = ?3, due_at_ms = ?4, finished_at_ms = ?5, owner = NULL,
                          last_status = coalesce(?6, last_status), last_error = ?7, provider_id = ?8
    WHERE id = ?1 AND attempt = ?2 AND (state = 'sending' OR (state = 'dead' AND ?3 = 'sent')) RETURNING channel_id";

const RELEASE: &str = "
    UPDATE deliveries SET state = 'pending', due_at_ms = ?3, refunds = refunds + 1, owner = NULL
    WHERE id = ?1 AND attempt = ?2 AND state = 'sending' RETURNING channel_id";

const LOG: &str = "
    INSERT INTO attempts (delivery_id, attempt, at_ms, took_ms, outcome, class, status, error, answer)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

const WORKS: &str = "
    UPDATE channels SET failing_since_ms = NULL, refusals = 0
    WHERE id = ?1 AND (failing_since_ms IS NOT NULL OR refusals > 0)";

// Answers of one moment may overtake each other: the longest wait counts.
const HOLD: &str = "UPDATE channels SET not_before_ms = max(coalesce(not_before_ms, 0), ?2) WHERE id = ?1";

const FAILS: &str = "
    UPDATE channels SET failing_since_ms = coalesce(failing_since_ms, ?2),
                        refusals = CASE WHEN ?3 THEN refusals + 1 ELSE 0 END
    WHERE id = ?1 RETURNING failing_since_ms, refusals";

pub(super) async fn settle(store: &SqliteStore, settlement: DeliverySettlement) -> Inner<DeliverySettled> {
    let now = store.now();
    let mut write = store.write().await?;
    let settled = settle_within(&mut write, settlement, now).await;
    write.end(settled).await
}

async fn settle_within(write: &mut Write, settlement: DeliverySettlement, now: Millis) -> Inner<DeliverySettled> {
    let DeliverySettlement { fence, outcome, log, news } = settlement;
    let Some(channel) = end(write, fence, outcome, now).await? else {
        return Ok(DeliverySettled { settled: Settled::Late, disabled: None });
    };
    if let Some(attempt) = log {
        keep(write, fence, attempt, now).await?;
    }
    let disabled = tell(write, &channel, news, now).await?;
    Ok(DeliverySettled { settled: Settled::Applied, disabled })
}

/// Writes the delivery's own row. Answers its channel, or `None` if the claim was lost.
async fn end(write: &mut Write, fence: Fence, outcome: DeliveryOutcome, now: Millis) -> Inner<Option<String>> {
    let id = fence.id.to_string();
    let update = match outcome {
        DeliveryOutcome::Release { after_ms } => {
            let due = now.saturating_add(rows::signed(after_ms));
            sqlx::query_scalar(RELEASE).bind(id).bind(fence.attempt).bind(due)
        }
        ended => {
            let end = Attempted::by(ended, now);
            sqlx::query_scalar(SETTLE)
                .bind(id)
                .bind(fence.attempt)
                .bind(end.state)
                .bind(end.due_at)
                .bind(end.finished_at)
                .bind(end.status)
                .bind(end.error)
                .bind(end.provider_id)
        }
    };
    Ok(update.fetch_optional(&mut **write).await?)
}

async fn keep(write: &mut Write, fence: Fence, attempt: NewAttempt, now: Millis) -> Inner<()> {
    let id = fence.id.to_string();
    sqlx::query(LOG)
        .bind(&id)
        .bind(fence.attempt)
        .bind(now)
        .bind(rows::signed(attempt.took_ms))
        .bind(attempt.outcome)
        .bind(attempt.class)
        .bind(attempt.status)
        .bind(attempt.error)
        .bind(attempt.answer)
        .execute(&mut **write)
        .await?;
    let forget = "DELETE FROM attempts WHERE delivery_id = ?1 AND attempt + ?3 <= ?2";
    sqlx::query(forget).bind(&id).bind(fence.attempt).bind(KEPT_MAX).execute(&mut **write).await?;
    Ok(())
}

/// Writes what the attempt says about its channel. Answers why it is disabled from now on.
async fn tell(write: &mut Write, channel: &str, news: ChannelNews, now: Millis) -> Inner<Option<String>> {
    let why = match news {
        ChannelNews::None => None,
        ChannelNews::Works => {
            sqlx::query(WORKS).bind(channel).execute(&mut **write).await?;
            None
        }
        ChannelNews::Hold { for_ms, rules, reason } => {
            let until = now.saturating_add(rows::signed(for_ms));
            sqlx::query(HOLD).bind(channel).bind(until).execute(&mut **write).await?;
            fails(write, channel, Failing::Away, rules, &reason, now).await?
        }
        ChannelNews::Fails { how, rules, reason } => fails(write, channel, how, rules, &reason, now).await?,
        ChannelNews::Gone { reason } => Some(reason),
    };
    let Some(why) = why else { return Ok(None) };
    Ok(channels::stop_within(write, channel, &why, now).await?.then_some(why))
}

/// Counts a failure. Answers why it is enough.
async fn fails(
    write: &mut Write,
    channel: &str,
    how: Failing,
    rules: DisableRules,
    reason: &str,
    now: Millis,
) -> Inner<Option<String>> {
    let refused = how == Failing::Refuses;
    let row = sqlx::query(FAILS).bind(channel).bind(now).bind(refused).fetch_one(&mut **write).await?;
    let since: Millis = row.try_get("failing_since_ms")?;
    Ok(failed_enough(row.try_get("refusals")?, now.saturating_sub(since), rules, reason))
}

pub(super) async fn list(store: &SqliteStore, delivery: Uuid) -> Inner<Vec<LoggedAttempt>> {
    let select = sqlx::query("SELECT * FROM attempts WHERE delivery_id = ?1 ORDER BY attempt");
    let found = select.bind(delivery.to_string()).fetch_all(&store.readers()?).await?;
    found.iter().map(rows::attempt).collect()
}
