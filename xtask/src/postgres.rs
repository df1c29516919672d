//! A PostgreSQL for one run of the tests or of a benchmark: a cluster of its own in a folder for the time being, never the system's.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::run::captured;

/// Where the tests look for the server: the address of a database that each of them may add a schema to.
pub const SERVER: &str = "TEST_POSTGRES";

/// How long the server is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

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
        // By which it says that it may be asked, as to systemd: sd_notify(3).
        let told = folder.join("notify");
        let notify = UnixDatagram::bind(&told).map_err(failed)?;
        std::fs::set_permissions(&told, std::fs::Permissions::from_mode(0o777)).map_err(failed)?;
        let log = std::fs::File::create(folder.join("log")).map_err(failed)?;
        command.env("NOTIFY_SOCKET", &told).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let server = command.current_dir(&folder).spawn().map_err(failed)?;
        let postgres = Self { server, folder, port };
        postgres.until_ready(&notify)?;
        Ok(postgres)
    }

    fn until_ready(&self, notify: &UnixDatagram) -> Result<(), String> {
        let mut told = [0; 1024];
        let heard = notify.set_read_timeout(Some(PATIENCE)).and_then(|()| notify.recv(&mut told));
        match heard {
            Ok(length) if told[..length].starts_with(b"READY=1") => Ok(()),
            _ => {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                Err(format!("PostgreSQL does not say that it is ready: {log}"))
            }
        }
    }

    /// The address of its database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
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
