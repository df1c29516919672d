//! The kind `publish`: an event to all who listen to a topic now.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{JobContext, JobDone, JobError, JobHandler};
use crate::broadcast::Topic;
use crate::bus::Bus;
use crate::model::{Event, TraceContext, now_ms};

/// Publishes an event. The event's id is the job's: whoever sees it twice can tell.
pub struct Publish(Arc<dyn Bus>);

/// What a job of the kind `publish` is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishPayload {
    /// Whom it is for.
    pub topic: Topic,
    /// What happened.
    pub data: Value,
}

impl Publish {
    /// Publishes to this bus.
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        Self(bus)
    }
}

impl JobHandler for Publish {
    const KIND: &'static str = "publish";
    type Payload = PublishPayload;

    async fn run(&self, payload: PublishPayload, context: JobContext) -> Result<JobDone, JobError> {
        let PublishPayload { topic, data } = payload;
        let event = Event {
            id: context.idempotency_key(),
            tenant: context.job.tenant.clone(),
            topic: topic.to_string(),
            data,
            context: TraceContext::current(),
            at_ms: now_ms(),
        };
        self.0.publish(event).await.map_err(|error| match error.is_retryable() {
            true => JobError::retry(error),
            false => JobError::dead(error),
        })?;
        Ok(JobDone::with(&json!({ "event": context.job.id })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{BusItem, MemoryBus, MemoryBusLimits};
    use crate::jobs::Handlers;
    use crate::jobs::testing::{context_of, job, run};

    #[tokio::test]
    async fn an_event_reaches_the_bus_with_the_jobs_id_and_tenant() {
        let bus = MemoryBus::new(MemoryBusLimits::default());
        let mut listener = bus.subscribe();
        let (job, payload) = (job(), PublishPayload { topic: "hello".parse().unwrap(), data: json!({ "n": 1 }) });
        let done = Publish::new(bus).run(payload, context_of(&job)).await.unwrap();
        let BusItem::Event(event) = listener.recv().await else { panic!("no event") };
        assert_eq!((event.id, &event.tenant, event.topic.as_str()), (job.id, &job.tenant, "hello"));
        assert_eq!(event.data, json!({ "n": 1 }));
        assert_eq!(done.result, Some(json!({ "event": job.id })));
    }

    #[tokio::test]
    async fn a_payload_that_does_not_parse_is_dead_at_once_with_the_place() {
        let handlers = Handlers::new().with(Publish::new(MemoryBus::new(MemoryBusLimits::default())));
        let cases = [
            (json!({ "data": 1 }), "payload: missing field `topic`"),
            (json!({ "topic": 7, "data": 1 }), "payload.topic: invalid type: integer `7`, expected a string"),
            (json!({ "topic": "a" }), "payload: missing field `data`"),
            (json!({ "topic": "a", "data": 1, "extra": 1 }), "payload.extra: unknown field `extra`"),
            (json!({ "topic": "", "data": 1 }), "payload.topic: not a topic: expected 1 to 128 of"),
            (json!({ "topic": "a\nb", "data": 1 }), "payload.topic: not a topic: expected 1 to 128 of"),
            (json!(null), "payload: invalid type: null"),
        ];
        for (payload, expected) in cases {
            let refused = handlers.check("publish", &payload).unwrap_err().to_string();
            assert!(refused.starts_with(expected), "{refused}");
            let failed = run(&handlers, &job().kind("publish").payload(payload)).await.unwrap_err();
            assert!(matches!(failed, JobError::Dead { .. }) && failed.to_string() == refused, "{failed}");
        }
    }
}
