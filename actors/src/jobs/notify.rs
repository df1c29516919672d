//! The kind `notify`: a notification through some of the tenant's channels.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{JobContext, JobDone, JobError, JobHandler, PayloadFault};
use crate::model::TenantId;
use crate::store::{Effect, NewDelivery};

/// Channels of one notification at most: each gets a copy.
pub const CHANNELS_MAX: usize = 20;

/// The longest text, in characters: what Slack takes. A provider that takes less gets it cut.
pub const TEXT_MAX_CHARS: usize = 40_000;

/// Hands a notification to the channel manager: the deliveries are written with the job's end, in one transaction.
///
/// Whether the channels exist, are the tenant's own and are enabled is looked up in that same transaction. If not, the job
/// is dead with the reason; nothing can change between the look and the write.
pub struct Notify;

/// A notification, as a job of the kind `notify` and the HTTP surface are told it.
///
/// A webhook gets `data`; without any, `{"text": text}`. A chat is told `text`; without one, see
/// [`channels::words`](crate::channels::words).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyPayload {
    /// One of the tenant's channels; or else
    pub channel: Option<Uuid>,
    /// several of them.
    pub channels: Option<Vec<Uuid>>,
    /// What is said in words.
    pub text: Option<String>,
    /// What is sent. `null` is something, too.
    #[serde(default, deserialize_with = "given")]
    pub data: Option<Value>,
}

fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

impl NotifyPayload {
    /// Every field that makes no sense, with the reason.
    #[must_use]
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut refuse = |field, reason: String| faults.push((field, reason));
        match (&self.channel, &self.channels) {
            (None, None) => refuse("channel", "is needed, or else channels".to_owned()),
            (Some(_), Some(_)) => refuse("channels", "cannot be given beside channel".to_owned()),
            (None, Some(all)) if !(1..=CHANNELS_MAX).contains(&all.len()) => {
                refuse("channels", format!("must have from 1 to {CHANNELS_MAX} items"));
            }
            (None, Some(all)) if (1..all.len()).any(|n| all[..n].contains(&all[n])) => {
                refuse("channels", "names a channel twice".to_owned());
            }
            _ => {}
        }
        match &self.text {
            None if self.data.is_none() => refuse("text", "is needed, or else data".to_owned()),
            Some(text) if text.trim().is_empty() => refuse("text", "must not be empty".to_owned()),
            Some(text) if text.chars().count() > TEXT_MAX_CHARS => {
                refuse("text", format!("may have {TEXT_MAX_CHARS} characters at most"));
            }
            _ => {}
        }
        faults
    }

    /// The channels it goes to.
    #[must_use]
    pub fn targets(&self) -> &[Uuid] {
        self.channels.as_deref().unwrap_or(self.channel.as_slice())
    }

    /// One delivery for each channel, caused by the current span.
    #[must_use]
    pub fn deliveries(&self, tenant: &TenantId) -> Vec<NewDelivery> {
        let data = self.data();
        let to = |channel: &Uuid| NewDelivery {
            text: self.text.clone(),
            ..NewDelivery::new(tenant.clone(), *channel, data.clone())
        };
        self.targets().iter().map(to).collect()
    }

    /// What a webhook gets.
    #[must_use]
    pub fn data(&self) -> Value {
        self.data.clone().unwrap_or_else(|| json!({ "text": self.text }))
    }
}

impl JobHandler for Notify {
    const KIND: &'static str = "notify";
    type Payload = NotifyPayload;

    fn check(&self, payload: &NotifyPayload) -> Result<(), PayloadFault> {
        match payload.faults().into_iter().next() {
            Some((field, reason)) => Err(PayloadFault::at(field, reason)),
            None => Ok(()),
        }
    }

    async fn run(&self, payload: NotifyPayload, context: JobContext) -> Result<JobDone, JobError> {
        let mut deliveries = payload.deliveries(&context.job.tenant);
        for delivery in &mut deliveries {
            delivery.job = Some(context.job.id);
        }
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.id).collect();
        let result = Some(match (payload.channels, ids.as_slice()) {
            (None, [id]) => json!({ "delivery": id }),
            (_, ids) => json!({ "deliveries": ids }),
        });
        Ok(JobDone { result, effects: deliveries.into_iter().map(Effect::Deliver).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::Handlers;
    use crate::jobs::handler::parse;
    use crate::jobs::testing::{job, run};

    fn handlers() -> Handlers {
        Handlers::new().with(Notify)
    }

    #[tokio::test]
    async fn a_notification_becomes_one_delivery_of_the_jobs_tenant() {
        let channel = Uuid::now_v7();
        let job = job().kind("notify").payload(json!({ "channel": channel, "data": "hi" }));
        let done = run(&handlers(), &job).await.unwrap();
        let [Effect::Deliver(delivery)] = &done.effects[..] else { panic!("{done:?}") };
        assert_eq!((delivery.channel, delivery.job, &delivery.tenant), (channel, Some(job.id), &job.tenant));
        assert_eq!(done.result, Some(json!({ "delivery": delivery.id })));
    }

    #[tokio::test]
    async fn a_notification_for_several_channels_becomes_one_delivery_for_each() {
        let channels = [Uuid::now_v7(), Uuid::now_v7()];
        let job = job().kind("notify").payload(json!({ "channels": channels, "text": "hi" }));
        let done = run(&handlers(), &job).await.unwrap();
        let [Effect::Deliver(one), Effect::Deliver(two)] = &done.effects[..] else { panic!("{done:?}") };
        assert_eq!([one.channel, two.channel], channels);
        assert_eq!((two.text.as_deref(), &two.data), (Some("hi"), &json!({ "text": "hi" })));
        assert_eq!(done.result, Some(json!({ "deliveries": [one.id, two.id] })));
    }

    #[tokio::test]
    async fn a_channel_that_is_no_id_is_dead_at_once() {
        let failed =
            run(&handlers(), &job().kind("notify").payload(json!({ "channel": "x", "data": 1 }))).await.unwrap_err();
        assert!(failed.to_string().starts_with("payload.channel: UUID parsing failed"), "{failed}");
        assert!(matches!(failed, JobError::Dead { .. }));
    }

    #[test]
    fn every_combination_that_makes_no_sense_names_its_field() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let many: Vec<_> = (0..21).map(Uuid::from_u128).collect();
        for (payload, fields) in [
            (json!({}), vec!["channel", "text"]),
            (json!({ "channel": a, "channels": [b], "data": 1 }), vec!["channels"]),
            (json!({ "channels": [], "data": 1 }), vec!["channels"]),
            (json!({ "channels": [a, b, a], "data": 1 }), vec!["channels"]),
            (json!({ "channels": many, "data": 1 }), vec!["channels"]),
            (json!({ "channel": a, "text": " " }), vec!["text"]),
            (json!({ "channel": a, "text": "x".repeat(TEXT_MAX_CHARS + 1) }), vec!["text"]),
            (json!({ "channel": a, "data": null }), vec![]),
            (json!({ "channels": [a, b], "text": "hi", "data": {} }), vec![]),
        ] {
            let read = parse::<NotifyPayload>(&payload).unwrap();
            assert_eq!(read.faults().iter().map(|(field, _)| *field).collect::<Vec<_>>(), fields, "{payload}");
            assert_eq!(Notify.check(&read).is_ok(), fields.is_empty());
        }
    }
}
