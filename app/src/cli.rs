//! The command line. Without a command the service runs; every other command answers and ends.

mod catalogue;
mod tenants;

use std::fmt::Display;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use http::header::{CONNECTION, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::exit;
use crate::settings::{Faults, Loaded, Sources, load};
use tenants::TenantAction;

/// What a health check may take: less than the time between two of them, on any platform.
const HEALTHCHECK_WITHIN: Duration = Duration::from_secs(3);

/// The service, and what an operator asks it.
#[derive(Debug, Parser)]
#[command(name = "app", version, about, long_about = None)]
#[command(
    after_help = "Every setting is also an environment variable: APP__SCHEDULER__LEASE_MS=1000. `app config` shows all."
)]
pub struct Cli {
    /// development or production; wins over APP__PROFILE and the file
    #[arg(long, global = true, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// A TOML file over the built-in ones, below the environment
    #[arg(long, global = true, value_name = "FILE", env = "APP_CONFIG_FILE")]
    pub config: Option<PathBuf>,
    /// What to do; `run` if nothing is said
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the service until it is told to stop
    Run,
    /// Print every setting in force with its origin, and what the stop may take
    Config {
        /// Only say whether the settings are right
        #[command(subcommand)]
        action: Option<ConfigAction>,
    },
    /// Ask a running service whether it is ready: exit code 0 if it is, 1 if not
    Healthcheck,
    /// Say what the service tells of itself
    Telemetry {
        /// What to say of it
        #[command(subcommand)]
        action: TelemetryAction,
    },
    /// Look after tenants
    Tenant {
        /// What to do with them
        #[command(subcommand)]
        action: TenantAction,
    },
}

/// What to do with the settings.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ConfigAction {
    /// Say whether they are right: exit code 0, or 78 with every fault
    Check,
}

/// What to say of the telemetry.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum TelemetryAction {
    /// Print every metric, span and event there is, with labels and attributes
    Catalogue {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
}

impl Cli {
    /// Reads and checks the settings that this command line asks for.
    ///
    /// # Errors
    /// Every fault there is; the process exits with [`exit::CONFIGURATION`].
    pub fn load(&self) -> Result<Loaded, Faults> {
        load(&Sources::of_process(self.profile.clone(), self.config.clone()))
    }

    /// What to do.
    pub fn command(&self) -> Command {
        self.command.clone().unwrap_or(Command::Run)
    }
}

/// Carries out a command that ends by itself, and prints its answer. [`Command::Run`] is not one of them: the answer is
/// none, and the caller runs the service. Otherwise it is the exit code.
pub async fn answer(command: &Command, loaded: &Loaded) -> Option<u8> {
    match command {
        Command::Run => None,
        Command::Config { action: None } => {
            say(std::io::stdout(), loaded);
            Some(exit::CLEAN)
        }
        Command::Config { action: Some(ConfigAction::Check) } => {
            say(
                std::io::stdout(),
                format_args!("the configuration is right, profile {}", loaded.settings.profile.name()),
            );
            Some(exit::CLEAN)
        }
        Command::Telemetry { action: TelemetryAction::Catalogue { json } } => {
            say(std::io::stdout(), if *json { catalogue::as_json() } else { catalogue::as_text() });
            Some(exit::CLEAN)
        }
        Command::Healthcheck => Some(told(healthcheck(loaded.settings.admin.listen).await)),
        Command::Tenant { action } => Some(told(tenants::carry_out(&loaded.settings, action).await)),
    }
}

/// Yes goes to standard output, no to standard error.
fn told(answer: Result<String, No>) -> u8 {
    match answer {
        Ok(yes) => {
            say(std::io::stdout(), yes);
            exit::CLEAN
        }
        Err(no) => {
            say(std::io::stderr(), no.reason);
            no.code
        }
    }
}

/// Writes a line. Who has closed the other end does not want to read it: that is no reason to panic, as `println!` would.
fn say(mut to: impl Write, line: impl Display) {
    let _ = writeln!(to, "{line}");
}

/// Why not, and the exit code for it.
#[derive(Debug)]
struct No {
    reason: String,
    code: u8,
}

impl No {
    fn new(code: u8, reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), code }
    }
}

/// Asks `/readyz` of the admin listener of a running service.
async fn healthcheck(listen: SocketAddr) -> Result<String, No> {
    let address = reachable(listen);
    let asked = tokio::time::timeout(HEALTHCHECK_WITHIN, readiness(address)).await;
    let no = |reason: String| No::new(exit::NO, format!("not ready: http://{address}/readyz: {reason}"));
    match asked {
        Ok(Ok((StatusCode::OK, body))) => Ok(body),
        Ok(Ok((status, body))) => Err(no(format!("{status}: {body}"))),
        Ok(Err(error)) => Err(no(error.to_string())),
        Err(_) => Err(no(format!("no answer within {} ms", HEALTHCHECK_WITHIN.as_millis()))),
    }
}

/// One request over a connection of its own; a client with a pool would be more than it needs.
async fn readiness(address: SocketAddr) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    let request = Request::get("/readyz").header(HOST, address.to_string()).header(CONNECTION, "close");
    let request = request.body(Empty::<bytes::Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    // The connection must be driven for the exchange to come to its end, whichever of them ends first.
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

/// Who listens on every address is reached on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn parse(arguments: &str) -> Cli {
        Cli::try_parse_from(std::iter::once("app").chain(arguments.split_whitespace())).unwrap()
    }

    #[test]
    fn without_a_command_the_service_runs() {
        assert_eq!(parse("").command(), Command::Run);
        assert_eq!(parse("run --profile production").profile.as_deref(), Some("production"));
    }

    #[test]
    fn commands_are_read_and_a_bad_tenant_is_refused() {
        assert_eq!(parse("config check").command(), Command::Config { action: Some(ConfigAction::Check) });
        assert_eq!(parse("config").command(), Command::Config { action: None });
        let refused = Cli::try_parse_from(["app", "tenant", "create", "No Such"]).unwrap_err();
        assert!(refused.to_string().contains("not a tenant's name"), "{refused}");
    }

    /// Answers one request with `answer`, and hands over what was asked.
    async fn answering(answer: &'static str) -> (Result<String, No>, String) {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 1_024];
            let read = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..read]).into_owned()
        };
        tokio::join!(healthcheck(address), serve)
    }

    #[tokio::test]
    async fn a_ready_service_is_yes_and_any_other_is_no_with_its_words() {
        let (yes, asked) = answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready").await;
        assert_eq!(yes.unwrap(), "ready");
        assert!(asked.starts_with("GET /readyz HTTP/1.1\r\n"), "{asked}");
        let (no, _) = answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy").await;
        let no = no.unwrap_err();
        assert!(no.reason.ends_with("503 Service Unavailable: busy"), "{}", no.reason);
        assert_eq!(no.code, 1);
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_no() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(healthcheck(address).await.unwrap_err().code, 1);
    }
}
