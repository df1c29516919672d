//! A tenant's first hour, played literally from `docs/api.md`, on ports that are free here and before a receiver of our
//! own.

use std::time::Duration;

use tests::binary::{app, workspace};
use tests::transcript::{self, Shell};
use tests::{Receiver, Service};

const SOON: Duration = Duration::from_secs(30);

fn page() -> String {
    std::fs::read_to_string(workspace().join("docs/api.md")).unwrap()
}

#[tokio::test]
async fn a_tenants_first_hour_is_as_the_page_says() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    let shell = Shell::new(service.home().path())
        .replacing("cargo run --quiet --", &app().display().to_string())
        .replacing("127.0.0.1:8080", service.api().authority())
        .replacing("http://127.0.0.1:9000/hook", &receiver.url("/hook"));
    let blocks = transcript::blocks(&page());
    assert!(blocks.len() >= 8, "the page has {} blocks of commands", blocks.len());
    for step in blocks.iter().flatten() {
        shell.play(step, SOON).await;
    }
    assert_eq!(receiver.calls().len(), 1);
}

#[tokio::test]
async fn every_path_of_the_page_is_in_the_document_of_the_api() {
    let service = Service::start().await;
    let document = service.api().without_key().get("/openapi.json").await.expect(200).json();
    let page = page();
    let commands = transcript::blocks(&page).into_iter().flatten().map(|step| step.command);
    let mut paths: Vec<String> = commands
        .filter_map(|command| Some(command.split_once("127.0.0.1:8080/v1/")?.1.to_owned()))
        .map(|rest| format!("/v1/{}", rest.split([' ', '?', '/']).next().unwrap()))
        .collect();
    paths.sort();
    paths.dedup();
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        assert!(document["paths"].get(&path).is_some(), "{path} is served by nobody");
    }
}
