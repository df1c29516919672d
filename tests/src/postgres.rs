//! A PostgreSQL of a test's own, which can be killed, stopped, started again on the same port, and held; and databases of
//! the server that all tests share.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, Uid};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;

use crate::process::Process;
use crate::{Port, eventually, tools};

/// Where the full test command has started a server for all tests.
const SERVER: &str = "TEST_POSTGRES";

/// For what it does at once.
const SOON: Duration = Duration::from_secs(60);

/// What a server needs that only has to live through one test.
const QUICK: [&str; 3] = ["unix_socket_directories=", "listen_addresses=127.0.0.1", "max_connections=100"];

/// How OpenSSL makes an authority, another one, and the server's certificate by the first.
const CERTIFICATES: [&str; 4] = [
    "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
    "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.pem",
    "req -newkey rsa:2048 -nodes -subj /CN=postgres -keyout server.key -out server.csr",
    "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
];

/// A database of one test.
pub struct Database {
    url: String,
}

/// A server with one cluster in a folder of its own, on a free port of loopback. Dropping it kills it.
pub struct Postgres {
    programs: PathBuf,
    port: Port,
    folder: TempDir,
    /// What it is told beside [`QUICK`].
    settings: Vec<&'static str>,
    process: Mutex<Option<Process>>,
}

impl Database {
    /// An empty one on the server that all tests share; none, said aloud, if there is no such server.
    pub async fn empty() -> Option<Database> {
        let Ok(server) = std::env::var(SERVER) else {
            println!("skipped: no PostgreSQL in {SERVER} (`cargo xtask test` starts one)");
            return None;
        };
        let options = PgConnectOptions::from_str(&server).unwrap();
        let name = format!("test_{}_{}", std::process::id(), fastrand::u32(..));
        let mut connection = options.connect().await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        let (root, _) = server.rsplit_once('/').unwrap();
        Some(Database { url: format!("{root}/{name}") })
    }

    /// As the service takes it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection of one's own, to look at what is really there.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// The number that a query answers with.
    pub async fn number(&self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut self.connect().await).await.unwrap()
    }
}

impl Postgres {
    /// One that answers; none, said aloud, if there is no PostgreSQL on this machine.
    pub async fn start() -> Option<Postgres> {
        let postgres = Postgres::absent()?;
        postgres.restart().await;
        Some(postgres)
    }

    /// One that speaks TLS to who wants it, with a certificate for its address by an authority of its own.
    pub async fn with_tls() -> Option<Postgres> {
        let openssl = tools::find("openssl")?;
        let mut postgres = Postgres::absent()?;
        let folder = postgres.folder.path();
        std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        for arguments in CERTIFICATES {
            let mut command = as_its_user(&openssl);
            let made = command.args(arguments.split(' ')).current_dir(folder).output().unwrap();
            assert!(made.status.success(), "{arguments}: {}", String::from_utf8_lossy(&made.stderr));
        }
        postgres.settings = vec!["ssl=on", "ssl_cert_file=../server.pem", "ssl_key_file=../server.key"];
        postgres.restart().await;
        Some(postgres)
    }

    /// The certificate of its authority, and that of another one, if it speaks TLS.
    pub fn authorities(&self) -> [PathBuf; 2] {
        ["ca.pem", "other.pem"].map(|name| self.folder.path().join(name))
    }

    fn absent() -> Option<Postgres> {
        let Some(programs) = programs() else {
            println!("skipped: no PostgreSQL on this machine (`cargo xtask test` installs it)");
            return None;
        };
        let port = Port::take();
        let folder = tempfile::tempdir().unwrap();
        // Its owner is another user, if this one is root.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let mut initdb = as_its_user(&programs.join("initdb"));
        initdb.args(["--pgdata=data", "--username=postgres", "--auth=trust", "--no-sync", "--locale=C.UTF-8"]);
        let made = initdb.arg("--encoding=UTF8").current_dir(folder.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(Postgres { programs, port, folder, settings: Vec::new(), process: Mutex::new(None) })
    }

    /// `host:port`.
    pub fn authority(&self) -> String {
        self.port.address().to_string()
    }

    /// Its database, as the service takes it.
    pub fn database(&self) -> Database {
        Database { url: format!("postgres://postgres@{}/postgres", self.authority()) }
    }

    /// Starts it, on the same port each time, and waits until it answers.
    pub async fn restart(&self) {
        let mut command = as_its_user(&self.programs.join("postgres"));
        command.args(["-D", "data", "-p", &self.port.number().to_string()]).current_dir(self.folder.path());
        for setting in QUICK.iter().chain(&self.settings) {
            command.args(["-c", setting]);
        }
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(Process::spawn(command));
        let database = self.database();
        eventually("postgres answers", SOON, || async {
            let mut connection = PgConnection::connect(&database.url).await.ok()?;
            sqlx::query("SELECT 1").execute(&mut connection).await.ok().map(drop)
        })
        .await;
    }

    /// Ends it as a crash would: it has to recover when it starts again.
    pub async fn kill(&self) {
        self.end(Signal::SIGKILL).await;
    }

    /// Ends it as `pg_ctl stop -m immediate` does: at once, and it has to recover when it starts again.
    pub async fn quit(&self) {
        self.end(Signal::SIGQUIT).await;
    }

    /// Ends it as an operator would: connections are cut, what was committed is written.
    pub async fn stop(&self) {
        self.end(Signal::SIGINT).await;
    }

    /// Holds it with all its processes: its port still takes connections and nobody answers on them, old or new.
    pub fn pause(&self) {
        let server = self.pid();
        // The one that makes others first, so that none is missed.
        signal::kill(server, Signal::SIGSTOP).unwrap();
        for child in children(server) {
            let _ = signal::kill(child, Signal::SIGSTOP);
        }
    }

    /// Lets it go on.
    pub fn resume(&self) {
        let server = self.pid();
        for child in children(server) {
            let _ = signal::kill(child, Signal::SIGCONT);
        }
        signal::kill(server, Signal::SIGCONT).unwrap();
    }

    async fn end(&self, how: Signal) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take().expect("it runs");
        let children = children(Pid::from_raw(process.pid().try_into().unwrap()));
        process.signal(how);
        process.wait(SOON).await;
        // Its children notice by themselves that it is gone, and it cannot start again before.
        eventually("its children are gone", SOON, || async {
            children.iter().all(|child| signal::kill(*child, None).is_err()).then_some(())
        })
        .await;
    }

    fn pid(&self) -> Pid {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        Pid::from_raw(process.as_ref().expect("it runs").pid().try_into().unwrap())
    }
}

impl Drop for Postgres {
    /// One that is held does not even notice that it is killed before it is let go.
    fn drop(&mut self) {
        if self.process.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            for child in children(self.pid()) {
                let _ = signal::kill(child, Signal::SIGKILL);
            }
        }
    }
}

/// The programs of the newest version that Debian has installed.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let installed = versions.filter_map(|version| {
        let folder = version.ok()?.path();
        let number: u32 = folder.file_name()?.to_str()?.parse().ok()?;
        folder.join("bin/postgres").is_file().then(|| (number, folder.join("bin")))
    });
    installed.max().map(|(_, programs)| programs)
}

/// A program of PostgreSQL, which refuses to run as root.
fn as_its_user(program: &Path) -> Command {
    if !Uid::effective().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
    command
}

/// Each of them leads a group and a session of its own, so that they are found by their parent only.
fn children(of: Pid) -> Vec<Pid> {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parent = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything: the state, and the parent.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<i32>().ok()
    };
    processes.filter(|pid| parent(*pid) == Some(of.as_raw())).map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_comes_back_on_the_same_port_with_what_was_committed_and_can_be_held() {
        let Some(postgres) = Postgres::start().await else { return };
        let database = postgres.database();
        let mut connection = database.connect().await;
        sqlx::query("CREATE TABLE kept (n bigint)").execute(&mut connection).await.unwrap();
        sqlx::query("INSERT INTO kept VALUES (7)").execute(&mut connection).await.unwrap();
        postgres.kill().await;
        assert!(PgConnection::connect(database.url()).await.is_err());
        postgres.restart().await;
        assert_eq!(database.number("SELECT n FROM kept").await, 7);
        postgres.pause();
        let held = tokio::time::timeout(Duration::from_millis(300), database.number("SELECT n FROM kept")).await;
        assert!(held.is_err(), "{held:?}");
        postgres.resume();
        assert_eq!(database.number("SELECT n FROM kept").await, 7);
        postgres.stop().await;
        postgres.restart().await;
        assert_eq!(database.number("SELECT n FROM kept").await, 7);
    }

    #[tokio::test]
    async fn each_test_has_a_database_of_its_own() {
        let Some(one) = Database::empty().await else { return };
        let other = Database::empty().await.unwrap();
        sqlx::query("CREATE TABLE mine (n bigint)").execute(&mut one.connect().await).await.unwrap();
        assert_eq!(other.number("SELECT count(*) FROM pg_class WHERE relname = 'mine'").await, 0);
    }
}
