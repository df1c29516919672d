//! How a service under test is started: its directory, its settings, its environment.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Ended, Process};
use crate::{Collector, Port, Protocol, Service, binary, service::SUBSYSTEMS};

/// To be ready, on a machine that is busy with other tests.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);

/// A working directory that outlives one process, so that the next one finds the first one's store.
#[derive(Clone)]
pub struct Home(Arc<TempDir>);

impl Home {
    /// An empty directory, removed with its last owner.
    pub fn empty() -> Home {
        Home(Arc::new(tempfile::tempdir().unwrap()))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// How a service is to be started.
pub struct Setup {
    executable: Option<PathBuf>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    home: Home,
    port: Option<Port>,
}

impl Setup {
    /// The binary in an empty directory with an empty environment: all defaults.
    pub fn bare() -> Setup {
        Setup { executable: None, environment: Vec::new(), arguments: Vec::new(), home: Home::empty(), port: None }
    }

    /// The setting `key` (`scheduler.lease_ms`), by its environment variable (`APP__SCHEDULER__LEASE_MS`).
    pub fn set(self, key: &str, value: impl ToString) -> Setup {
        let name = format!("APP__{}", key.replace('.', "__").to_uppercase());
        self.env(&name, value)
    }

    /// Any environment variable.
    pub fn env(mut self, name: &str, value: impl ToString) -> Setup {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Tenants are answered there, and by nobody else as long as the process is owned, also when it is dead.
    pub fn on(self, port: Port) -> Setup {
        let setup = self.set("api.listen", port.address());
        Setup { port: Some(port), ..setup }
    }

    /// An argument of the command line.
    pub fn arg(mut self, argument: &str) -> Setup {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Runs in this directory, over whatever lies there.
    pub fn home(mut self, home: &Home) -> Setup {
        self.home = home.clone();
        self
    }

    /// Another executable than the development build of the service.
    pub fn executable(mut self, executable: &Path) -> Setup {
        self.executable = Some(executable.to_owned());
        self
    }

    /// Sends its telemetry there.
    pub fn telemetry(self, collector: &Collector, protocol: Protocol) -> Setup {
        collector.environment(protocol).iter().fold(self, |setup, (name, value)| setup.env(name, value))
    }

    /// Restarts everything after 10 ms, so that a test waits for what it looks at and not for a backoff.
    pub fn fast_backoff(self) -> Setup {
        SUBSYSTEMS.iter().fold(self, |setup, name| setup.set(&format!("{name}.backoff.base_ms"), 10))
    }

    /// Starts it and waits until it says that it is ready.
    pub async fn start(self) -> Service {
        let home = self.home.clone();
        let process = self.spawn();
        process.line("ready in ", BOOT_TIMEOUT).await;
        Service::ready(process, home)
    }

    /// Starts it and waits until it ends by itself: for what must not become a service.
    pub async fn run(self) -> Ended {
        let _home = self.home.clone();
        self.spawn().wait(BOOT_TIMEOUT).await
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(self) -> Process {
        let mut command = Command::new(self.executable.as_deref().unwrap_or_else(|| binary::app()));
        command.args(&self.arguments).current_dir(self.home.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(self.environment);
        Process::spawn_on(command, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_their_environment_variables() {
        let setup = Setup::bare().set("scheduler.lease_ms", 1000);
        assert_eq!(setup.environment, [("APP__SCHEDULER__LEASE_MS".to_owned(), "1000".to_owned())]);
    }
}
