//! A tenant's first hour, played literally from `docs/api.md`, on ports that are free here and before a receiver of our
//! own.

use std::collections::BTreeSet;
use std::time::Duration;

use tests::binary::{app, workspace};
use tests::transcript::{self, Shell};
use tests::{Receiver, Service};

const SOON: Duration = Duration::from_secs(30);

fn page() -> String {
    std::fs::read_to_string(workspace().join("docs/api.md")).unwrap()
}

/// The HTTP statuses in some lines, at their begin or as a field: to a transcript one number is like another, but 404 is
/// not 401.
fn statuses(lines: &[String]) -> BTreeSet<&str> {
    let pieces = lines.iter().flat_map(|line| [line.as_str()].into_iter().chain(line.split("status\":").skip(1)));
    let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    pieces.filter_map(|piece| piece.get(..3)).filter(digits).collect()
}

#[tokio::test]
async fn a_tenants_first_hour_is_as_the_page_says() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    let shell = Shell::new(service.home().path())
        .replacing("cargo run --quiet --", &app().display().to_string())
        .replacing("127.0.0.1:8080", service.api().authority())
        .replacing("127.0.0.1:8081", service.admin().authority())
        .replacing("http://127.0.0.1:9000/hook", &receiver.url("/hook"));
    let blocks = transcript::blocks(&page());
    assert!(blocks.len() >= 20, "the page has {} blocks of commands", blocks.len());
    for step in blocks.iter().flatten() {
        let ended = shell.play(step, SOON).await;
        let (expected, found) = (statuses(&step.expected), statuses(&ended.stdout));
        assert!(expected.is_subset(&found), "`{}` answers {found:?}, not {expected:?}", step.command);
    }
    let said: Vec<_> = receiver.calls().iter().map(|call| call.json()["data"]["text"].clone()).collect();
    assert_eq!(said, ["A test of this channel.", "order 1 is paid"]);
}

#[tokio::test]
async fn the_page_leads_to_all_that_the_document_of_the_api_has_and_to_nothing_else() {
    let service = Service::start().await;
    let document = service.api().without_key().get("/openapi.json").await.expect(200).json();
    let collection = |path: &str| path.split([' ', '?', '/', '"']).next().unwrap_or_default().to_owned();
    let page = page();
    let commands = transcript::blocks(&page).into_iter().flatten().map(|step| step.command);
    let shown: BTreeSet<String> =
        commands.filter_map(|command| Some(collection(command.split_once("127.0.0.1:8080/v1/")?.1))).collect();
    let paths = document["paths"].as_object().unwrap().keys();
    let served: BTreeSet<String> = paths.filter_map(|path| path.strip_prefix("/v1/").map(collection)).collect();
    assert_eq!(shown, served);
}
