//! The service under test: the real binary, in a directory of its own, on free ports, with nothing of the caller's
//! environment but the search path.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::process::{Ended, Process};
use crate::{Client, DEMO_KEY, Home, Metrics, Setup, eventually};

/// For what the service does at once, on the same machine.
const SOON: Duration = Duration::from_secs(30);

/// The five subsystems, by their names in the tree.
pub const SUBSYSTEMS: [&str; 5] = ["health_sweep", "liveness_monitor", "broadcaster", "channel_manager", "scheduler"];

/// The service, ready. Dropping it kills it.
pub struct Service {
    process: Process,
    api: Client,
    admin: Client,
    home: Home,
}

impl Service {
    /// The development profile on free ports in an empty directory, draining without delay.
    pub fn setup() -> Setup {
        let setup = Setup::bare().set("api.listen", "127.0.0.1:0").set("admin.listen", "127.0.0.1:0");
        setup.set("shutdown.drain_delay_ms", 0)
    }

    /// A process that has said that it is ready, and where.
    pub(crate) fn ready(process: Process, home: Home) -> Service {
        let banner = process.stdout();
        let api = Client::new(&address(&banner, "api")).with_key(DEMO_KEY);
        let admin = Client::new(&address(&banner, "admin"));
        Service { process, api, admin, home }
    }

    /// [`Service::setup`], started.
    pub async fn start() -> Service {
        Service::setup().start().await
    }

    /// The tenants' listener, with the demo tenant's key.
    pub fn api(&self) -> &Client {
        &self.api
    }

    /// The operators' listener.
    pub fn admin(&self) -> &Client {
        &self.admin
    }

    /// The process itself: its output, its end.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its working directory.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Asks it to stop and waits for its end.
    pub async fn stop(&self) -> Ended {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(SOON).await
    }

    /// Posts a job for the demo tenant and returns its id.
    pub async fn enqueue(&self, kind: &str, payload: Value) -> String {
        let answer = self.api.post("/v1/jobs", &json!({"kind": kind, "payload": payload})).await.expect(201);
        answer.json()["id"].as_str().expect("a job has an id").to_owned()
    }

    /// The job as its tenant sees it.
    pub async fn job(&self, id: &str) -> Value {
        self.api.get(&format!("/v1/jobs/{id}")).await.expect(200).json()
    }

    /// Waits until the job is in `state` and returns it.
    pub async fn job_in(&self, id: &str, state: &str) -> Value {
        eventually(&format!("job {id} is {state}"), SOON, || async {
            let job = self.job(id).await;
            (job["state"] == state).then_some(job)
        })
        .await
    }

    /// Creates a webhook channel of the demo tenant and returns its id and its secret.
    pub async fn webhook(&self, url: &str) -> (String, String) {
        let channel = self.api.post("/v1/channels", &json!({"kind": "webhook", "url": url})).await.expect(201).json();
        let text = |field: &str| channel[field].as_str().unwrap_or_else(|| panic!("{field} in {channel}")).to_owned();
        (text("id"), text("secret"))
    }

    /// The deliveries of a channel.
    pub async fn deliveries(&self, channel: &str) -> Vec<Value> {
        let answer = self.api.get(&format!("/v1/channels/{channel}/deliveries")).await.expect(200).json();
        answer["items"].as_array().expect("items").clone()
    }

    /// `/metrics` now.
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin.get("/metrics").await.expect(200).body)
    }

    /// `/admin/liveness` now.
    pub async fn liveness(&self) -> Value {
        self.admin.get("/admin/liveness").await.expect(200).json()
    }

    /// Every loop of `/admin/liveness` at or below `path` (dots); all of them if it is empty.
    pub async fn loops(&self, path: &str) -> Vec<Value> {
        let liveness = self.liveness().await;
        let subsystems = liveness["subsystems"].as_array().unwrap_or_else(|| panic!("subsystems in {liveness:#}"));
        let loops = subsystems.iter().flat_map(|subsystem| subsystem["loops"].as_array().unwrap());
        let below = |found: &str| path.is_empty() || found == path || found.starts_with(&format!("{path}."));
        loops.filter(|found| below(found["path"].as_str().unwrap())).cloned().collect()
    }

    /// The node at `path` (dots) of `/admin/tree` now.
    pub async fn node(&self, path: &str) -> Value {
        let tree = self.admin.get("/admin/tree").await.expect(200).json();
        node_of(&tree, path).unwrap_or_else(|| panic!("no {path} in {tree:#}")).clone()
    }

    /// Makes the child at `path` (dots) panic.
    pub async fn make_panic(&self, path: &str) {
        self.make("panic", path).await;
    }

    /// Makes the child at `path` (dots) hang in the middle of its work, deaf to every wish to stop.
    pub async fn make_hang(&self, path: &str) {
        self.make("hang", path).await;
    }

    /// Makes the child at `path` (dots) keep its thread for 5 s, and then panic.
    pub async fn make_block(&self, path: &str) {
        self.make("block", path).await;
    }

    /// Waits until the child at `path` (dots) is stuck in a message: it hangs in its next one, when that comes.
    pub async fn is_hanging(&self, path: &str) {
        eventually(&format!("{path} hangs in a message"), SOON, || async {
            let busy = |found: &Value| found["busy"]["for_ms"].as_u64().is_some_and(|ms| ms >= 100);
            self.loops(path).await.iter().any(busy).then_some(())
        })
        .await;
    }

    async fn make(&self, fault: &str, path: &str) {
        let path = format!("/dev/{fault}/{}", path.replace('.', "/"));
        let answer = self.admin.post(&path, &Value::Null).await;
        assert!((200..300).contains(&answer.status), "{} {}", answer.status, answer.body);
    }
}

/// The node at `path` in a tree of nodes.
pub fn node_of<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    if tree["path"] == path {
        return Some(tree);
    }
    tree["children"].as_array()?.iter().find_map(|child| node_of(child, path))
}

/// The address that the banner names for `listener`.
fn address(banner: &[String], listener: &str) -> String {
    let mut words = banner.iter().flat_map(|line| line.split_whitespace());
    words.find(|word| *word == listener);
    words.next().unwrap_or_else(|| panic!("no {listener} in the banner {banner:#?}")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_banner() {
        let banner = ["profile x".to_owned(), "  api    http://127.0.0.1:8080    admin  http://127.0.0.1:8081".into()];
        assert_eq!(address(&banner, "api"), "http://127.0.0.1:8080");
        assert_eq!(address(&banner, "admin"), "http://127.0.0.1:8081");
    }

    #[test]
    fn a_node_is_found_at_any_depth() {
        let tree = json!({"path": "", "children": [{"path": "a", "children": [{"path": "a.b", "n": 1}]}]});
        assert_eq!(node_of(&tree, "a.b").unwrap()["n"], 1);
        assert_eq!(node_of(&tree, "c"), None);
    }
}
