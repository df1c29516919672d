//! A Redis of a test's own, which can be killed, started again on the same port, and held.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::{Port, eventually, tools};

/// For what it does at once.
const SOON: Duration = Duration::from_secs(20);

/// A `redis-server` on a free port of loopback that keeps nothing on disk. Dropping it kills it.
pub struct Redis {
    program: PathBuf,
    port: Port,
    lock: Lock,
    folder: TempDir,
    process: Mutex<Option<Process>>,
}

/// Who is let in.
enum Lock {
    Open,
    Password(String),
    /// Who speaks TLS and trusts this certificate.
    Tls(PathBuf),
}

impl Redis {
    /// One that answers; none, said aloud, if there is no `redis-server` on this machine.
    pub async fn start() -> Option<Redis> {
        let redis = Redis::absent()?;
        redis.restart().await;
        Some(redis)
    }

    /// One that answers to those who know the password.
    pub async fn with_password(password: &str) -> Option<Redis> {
        let redis = Redis { lock: Lock::Password(password.to_owned()), ..Redis::absent()? };
        redis.restart().await;
        Some(redis)
    }

    /// One that speaks TLS only, with a certificate of its own.
    pub async fn with_tls() -> Option<Redis> {
        let (openssl, redis) = (tools::find("openssl")?, Redis::absent()?);
        let mut command = Command::new(openssl);
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=redis"]);
        command.args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]);
        let output = command.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(redis.folder.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let redis = Redis { lock: Lock::Tls(redis.folder.path().join("cert.pem")), ..redis };
        redis.restart().await;
        Some(redis)
    }

    /// The certificate to trust, if it speaks TLS.
    pub fn certificate(&self) -> Option<&Path> {
        if let Lock::Tls(certificate) = &self.lock { Some(certificate) } else { None }
    }

    /// One whose port is chosen and that does not run yet: [`Redis::restart`] starts it.
    pub fn absent() -> Option<Redis> {
        let program = tools::find("redis-server")?;
        let port = Port::take();
        let folder = tempfile::tempdir().unwrap();
        Some(Redis { program, port, lock: Lock::Open, folder, process: Mutex::new(None) })
    }

    /// `host:port`.
    pub fn authority(&self) -> String {
        self.port.address().to_string()
    }

    /// As the service takes it, with the password if there is one.
    pub fn url(&self) -> String {
        match &self.lock {
            Lock::Open => format!("redis://{}", self.authority()),
            Lock::Password(password) => format!("redis://:{password}@{}", self.authority()),
            Lock::Tls(_) => format!("rediss://{}", self.authority()),
        }
    }

    /// Starts it, on the same port each time, and waits until it answers.
    pub async fn restart(&self) {
        let mut command = Command::new(&self.program);
        let port = self.port.number().to_string();
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).current_dir(self.folder.path());
        match &self.lock {
            Lock::Open => command.args(["--port", &port]),
            Lock::Password(password) => command.args(["--port", &port, "--requirepass", password]),
            Lock::Tls(_) => command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]).args([
                "--tls-cert-file",
                "cert.pem",
                "--tls-key-file",
                "key.pem",
            ]),
        };
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(Process::spawn(command));
        eventually("redis-server answers", SOON, || async {
            match &self.lock {
                Lock::Tls(_) => TcpStream::connect(self.authority()).await.ok().map(drop),
                _ => self.say(b"PING\r\n").await.ok().map(drop),
            }
        })
        .await;
    }

    /// Ends it as a crash would.
    pub async fn kill(&self) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take().expect("it runs");
        process.kill9().await;
    }

    /// Holds it: its port still takes connections and nobody answers on them.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Publishes any bytes, as any client could.
    pub async fn publish(&self, channel: &str, payload: &[u8]) {
        let head = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n", channel.len(), payload.len());
        let answer = self.say(&[head.as_bytes(), payload, b"\r\n"].concat()).await.unwrap();
        assert!(answer.starts_with(':'), "{answer}");
    }

    /// Says something in its protocol and returns what it says first.
    async fn say(&self, command: &[u8]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.authority()).await?;
        stream.write_all(command).await?;
        let mut answer = [0; 512];
        let read = stream.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.as_ref().expect("it runs").signal(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_comes_back_on_the_same_port_and_can_be_held() {
        let Some(redis) = Redis::start().await else { return };
        redis.kill().await;
        assert!(redis.say(b"PING\r\n").await.is_err());
        redis.restart().await;
        redis.pause();
        let held = tokio::time::timeout(Duration::from_millis(300), redis.say(b"PING\r\n")).await;
        assert!(held.is_err(), "{held:?}");
        redis.resume();
        assert_eq!(redis.say(b"PING\r\n").await.unwrap(), "+PONG\r\n");
        redis.publish("nobody", b"\xff\x00").await;
    }
}
