//! The kind `notify`: a notification through one of the tenant's channels.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{JobContext, JobDone, JobError, JobHandler, PayloadFault, parse};
use crate::store::{Effect, NewDelivery};

/// Hands a notification to the channel manager: the delivery is written with the job's end, in one transaction.
///
/// Whether the channel exists, is the tenant's own and is enabled is looked up in that same transaction. If not, the job
/// is dead with the reason; nothing can change between the look and the write.
pub struct Notify;

/// What a job of the kind `notify` is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyPayload {
    /// One of the tenant's channels.
    pub channel: Uuid,
    /// What is sent.
    pub data: Value,
}

#[async_trait]
impl JobHandler for Notify {
    fn kind(&self) -> &'static str {
        "notify"
    }

    fn check(&self, payload: &Value) -> Result<(), PayloadFault> {
        parse::<NotifyPayload>(payload).map(drop)
    }

    async fn run(&self, context: JobContext) -> Result<JobDone, JobError> {
        let NotifyPayload { channel, data } = context.payload()?;
        let mut delivery = NewDelivery::new(context.job.tenant.clone(), channel, data);
        delivery.job = Some(context.job.id);
        let result = Some(json!({ "delivery": delivery.id }));
        Ok(JobDone { result, effects: vec![Effect::Deliver(delivery)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::testing::{context_of, job};

    #[tokio::test]
    async fn a_notification_becomes_one_delivery_of_the_jobs_tenant() {
        let channel = Uuid::now_v7();
        let job = job().payload(json!({ "channel": channel, "data": "hi" }));
        let done = Notify.run(context_of(&job)).await.unwrap();
        let [Effect::Deliver(delivery)] = &done.effects[..] else { panic!("{done:?}") };
        assert_eq!((delivery.channel, delivery.job, &delivery.tenant), (channel, Some(job.id), &job.tenant));
        assert_eq!(done.result, Some(json!({ "delivery": delivery.id })));
    }

    #[tokio::test]
    async fn a_channel_that_is_no_id_is_dead_at_once() {
        let failed = Notify.run(context_of(&job().payload(json!({ "channel": "x", "data": 1 })))).await.unwrap_err();
        assert!(failed.to_string().starts_with("payload.channel: UUID parsing failed"), "{failed}");
        assert!(matches!(failed, JobError::Dead { .. }));
    }
}
