//! A real Prometheus that scrapes a service.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::Process;
use crate::{Client, Port, Service, eventually, tools};

/// It is started by a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(60);

/// The server; it ends when it is dropped.
pub struct Prometheus {
    client: Client,
    _process: Process,
    _port: Port,
}

impl Prometheus {
    /// Scrapes `service` four times a second, and keeps what it sees in the service's directory; none, said aloud, if there is
    /// no such program on this machine.
    pub async fn start(service: &Service) -> Option<Prometheus> {
        let program = tools::find("prometheus")?;
        let (folder, port) = (service.home().path().join("prometheus"), Port::take());
        std::fs::create_dir(&folder).unwrap();
        let target = service.admin().authority();
        let config = json!({"scrape_configs": [{
            "job_name": "app", "scrape_interval": "250ms", "scrape_timeout": "250ms",
            "static_configs": [{"targets": [target]}],
        }]});
        // JSON is YAML.
        std::fs::write(folder.join("prometheus.yml"), config.to_string()).unwrap();
        let mut command = Command::new(program);
        command.current_dir(&folder).arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=data");
        command.arg(format!("--web.listen-address={}", port.address()));
        let process = Process::spawn(command);
        let client = Client::new(&format!("http://{}", port.address()));
        eventually("prometheus is ready", SOON, || async {
            client.try_get("/-/ready").await.filter(|answer| answer.status == 200).map(drop)
        })
        .await;
        let prometheus = Prometheus { client, _process: process, _port: port };
        eventually("the target is up", SOON, || async {
            let targets = prometheus.get("targets").await;
            let active = targets["activeTargets"].as_array().unwrap().clone();
            (active.len() == 1 && active[0]["health"] == "up" && active[0]["lastError"] == "").then_some(())
        })
        .await;
        Some(prometheus)
    }

    /// What a door of its API answers.
    pub async fn get(&self, path: &str) -> Value {
        self.client.get(&format!("/api/v1/{path}")).await.expect(200).json()["data"].take()
    }

    /// The values that an expression has now.
    pub async fn ask(&self, expression: &str) -> Vec<String> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let answer = self.get(&format!("query?query={query}")).await;
        let found = answer["result"].as_array().unwrap().iter();
        found.map(|one| one["value"][1].as_str().unwrap().to_owned()).collect()
    }
}
