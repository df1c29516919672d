//! A PostgreSQL for one run of the tests or of a benchmark: a cluster of its own in a folder for the time being, never the system's.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::run::captured;

/// Where the tests look for the server: the address of a database that each of them may add a schema to.
pub const SERVER: &str = "TEST_POSTGRES";

/// How often, and how long each time, the server is waited for.
const LOOKS: u32 = 300;
const BETWEEN: Duration = Duration::from_millis(100);

/// What the loss of power may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// All of it: a test run is over when the machine crashes.
    None,
    /// Nothing that was committed: the server's own defaults. What is measured must be worth something.
    Full,
}

impl Safety {
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::None => &["fsync=off", "full_page_writes=off"],
            Self::Full => &["fsync=on", "synchronous_commit=on", "full_page_writes=on"],
        }
    }
}

/// A running server. Dropping it ends it.
pub struct Postgres {
    server: Child,
    folder: PathBuf,
    port: u16,
}

/// The programs of the newest version that Debian has installed.
pub fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let installed = versions.filter_map(|version| {
        let folder = version.ok()?.path();
        let number: u32 = folder.file_name()?.to_str()?.parse().ok()?;
        folder.join("bin/postgres").is_file().then(|| (number, folder.join("bin")))
    });
    installed.max().map(|(_, programs)| programs)
}

impl Postgres {
    /// Starts one.
    pub fn start(safety: Safety) -> Result<Self, String> {
        let programs = programs().ok_or("no PostgreSQL on this machine")?;
        let folder = std::env::temp_dir().join(format!("xtask-postgres-{}", std::process::id()));
        let failed = |error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(failed)?;
        // Its owner is another user, if this one is root.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).map_err(failed)?;
        captured(as_its_user(&programs.join("initdb")).current_dir(&folder).args([
            "--pgdata=data",
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]))?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = free.map_err(failed)?.port();
        let mut command = as_its_user(&programs.join("postgres"));
        command.args(["-D", "data", "-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        for setting in ["unix_socket_directories=", "max_connections=400"].iter().chain(safety.settings()) {
            command.args(["-c", *setting]);
        }
        let log = std::fs::File::create(folder.join("log")).map_err(failed)?;
        let server = command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let postgres = Self { server: server.map_err(failed)?, folder: folder.clone(), port };
        postgres.wait(&programs)?;
        Ok(postgres)
    }

    /// The address of its database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    #[expect(clippy::disallowed_methods, reason = "there is no runtime here, and nothing else to do")]
    fn wait(&self, programs: &Path) -> Result<(), String> {
        for _ in 0..LOOKS {
            let mut ready = Command::new(programs.join("pg_isready"));
            ready.args(["--quiet", "--host=127.0.0.1", "--port", &self.port.to_string()]);
            let is_ready = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
                && ready.status().is_ok_and(|status| status.success());
            if is_ready {
                return Ok(());
            }
            std::thread::sleep(BETWEEN);
        }
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        Err(format!("PostgreSQL does not answer: {log}"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A program of PostgreSQL, which refuses to run as root. It ends with this process, however that ends.
fn as_its_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0) {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    command.arg(program);
    command
}
