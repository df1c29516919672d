//! The guide to jobs, played literally from `docs/jobs.md`, and what it says of progress.

use std::time::Duration;

use serde_json::json;
use tests::binary::workspace;
use tests::receiver::Reply;
use tests::stream::EventStream;
use tests::transcript::{self, Shell};
use tests::{Receiver, Service};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_guide_to_jobs_is_as_the_service_does() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    let shell = Shell::new(service.home().path())
        .replacing("127.0.0.1:8080", service.api().authority())
        .replacing("http://127.0.0.1:9000/hook", &receiver.url("/hook"));
    let page = std::fs::read_to_string(workspace().join("docs/jobs.md")).unwrap();
    let blocks = transcript::blocks(&page);
    assert!(blocks.len() >= 7, "the page has {} blocks of commands", blocks.len());
    for step in blocks.iter().flatten() {
        shell.play(step, SOON).await;
    }
}

#[tokio::test]
async fn progress_of_a_running_job_is_read_and_heard_while_it_runs() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    receiver.script((0..3).map(|_| Reply::Late(Duration::from_millis(1_500), 200)));
    let urls: Vec<String> = (0..3).map(|n| receiver.url(&format!("/{n}"))).collect();
    let later = json!({"kind": "check_links", "payload": {"urls": urls}});
    let id = service.api().post("/v1/jobs", &later).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    let mut stream = EventStream::open(service.api(), &[&format!("jobs.{id}")]).await;
    let heard = loop {
        let event = stream.message().await.data;
        if event["type"] == "event" {
            break event["data"].clone();
        }
    };
    assert_eq!(
        (&heard["type"], &heard["job"], &heard["progress"]["total"]),
        (&json!("progress"), &json!(id), &json!(3))
    );
    let read = service.job(&id).await;
    assert_eq!(read["state"], "running");
    assert!(read["progress"]["done"].as_u64() >= heard["progress"]["done"].as_u64(), "{read}");
    let done = service.job_in(&id, "done").await;
    assert_eq!((&done["progress"]["done"], &done["result"]), (&json!(3), &json!({"checked": 3, "broken": []})));
}
