//! A child process whose output is kept line by line, and that never outlives its owner.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::{Port, eventually};

/// How many lines of the log a failed test shows.
const TAIL_LINES: usize = 80;

/// A running child in a process group of its own. Dropping it kills that group; if the test is failing, the end of its
/// log is printed first.
pub struct Process {
    child: Mutex<Child>,
    group: Pid,
    stdout: Lines,
    stderr: Lines,
    readers: Mutex<Vec<JoinHandle<()>>>,
    _port: Option<Port>,
}

/// How a process ended and all it wrote.
#[derive(Debug)]
pub struct Ended {
    /// As a shell shows it: the exit code, or 128 + the number of the signal that ended it.
    pub code: i32,
    /// From the call of [`Process::wait`] to the end of the process.
    pub took: Duration,
    /// Every line of standard output.
    pub stdout: Vec<String>,
    /// Every line of standard error: the log.
    pub stderr: Vec<String>,
}

impl Ended {
    /// The whole log as one text.
    pub fn log(&self) -> String {
        self.stderr.join("\n")
    }
}

type Lines = Arc<Mutex<Vec<String>>>;

impl Process {
    /// Starts `command` with both outputs captured and nothing on its input.
    pub fn spawn(command: Command) -> Process {
        Process::spawn_on(command, None)
    }

    /// The same, and holds the port on which it is to listen.
    pub fn spawn_on(mut command: Command, port: Option<Port>) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            keep_lines(child.stdout.take().unwrap(), stdout.clone()),
            keep_lines(child.stderr.take().unwrap(), stderr.clone()),
        ];
        let group = Pid::from_raw(child.id().try_into().unwrap());
        Process { child: Mutex::new(child), group, stdout, stderr, readers: Mutex::new(readers), _port: port }
    }

    /// The operating system's number of the process.
    pub fn pid(&self) -> u32 {
        self.group.as_raw().unsigned_abs()
    }

    /// What it wrote on standard output until now.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    /// What it wrote on standard error until now.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        signal::kill(self.group, signal).unwrap();
    }

    /// Sends a signal to the process and its children, as a terminal does.
    pub fn signal_group(&self, signal: Signal) {
        signal::killpg(self.group, signal).unwrap();
    }

    /// Ends it as a crash of the machine would: at once, nothing flushed.
    pub async fn kill9(&self) {
        self.signal(Signal::SIGKILL);
        self.wait(Duration::from_secs(10)).await;
    }

    /// The exit status if it has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Waits for a line of standard output that begins with `start`; fails with the whole log if the process ends
    /// first or `within` passes.
    pub async fn line(&self, start: &str, within: Duration) -> String {
        eventually(&format!("a line `{start}...` on standard output"), within, || async {
            let found = self.stdout().into_iter().find(|line| line.starts_with(start));
            if found.is_none()
                && let Some(status) = self.ended()
            {
                panic!("ended ({status}) before the line `{start}...`");
            }
            found
        })
        .await
    }

    /// Waits until it has ended by itself and all it wrote has been read.
    pub async fn wait(&self, within: Duration) -> Ended {
        let asked = Instant::now();
        let status = eventually("the process ends", within, || async { self.ended() }).await;
        let took = asked.elapsed();
        for reader in self.readers.lock().unwrap().drain(..) {
            reader.join().unwrap();
        }
        Ended { code: as_a_shell(status), took, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_tail();
        }
        if self.ended().is_none() {
            let _ = signal::killpg(self.group, Signal::SIGKILL);
            let _ = self.child.lock().unwrap().wait();
        }
    }
}

impl Process {
    fn show_tail(&self) {
        let log = self.stderr();
        let shown = log.len().saturating_sub(TAIL_LINES);
        eprintln!("---- standard output of process {}", self.pid());
        self.stdout().iter().for_each(|line| eprintln!("{line}"));
        eprintln!("---- its log ({shown} lines before these)");
        log.iter().skip(shown).for_each(|line| eprintln!("{line}"));
        eprintln!("----");
    }
}

/// Reads `from` to its end on a thread, so that the child is never held up by a full pipe.
fn keep_lines(from: impl Read + Send + 'static, lines: Lines) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            lines.lock().unwrap().push(text);
            line.clear();
        }
    })
}

fn as_a_shell(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bash(script: &str) -> Process {
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        Process::spawn(command)
    }

    #[tokio::test]
    async fn output_and_exit_code_are_kept() {
        let ended = bash("echo one; echo two >&2; exit 7").wait(Duration::from_secs(10)).await;
        assert_eq!((ended.code, ended.stdout, ended.stderr), (7, vec!["one".to_owned()], vec!["two".to_owned()]));
    }

    #[tokio::test]
    async fn an_end_by_signal_is_told_as_a_shell_tells_it() {
        let process = bash("echo up; exec sleep 60");
        process.line("up", Duration::from_secs(10)).await;
        process.signal(Signal::SIGTERM);
        assert_eq!(process.wait(Duration::from_secs(10)).await.code, 143);
    }

    #[tokio::test]
    #[should_panic(expected = "before the line `ready...`")]
    async fn a_process_that_ends_before_its_line_fails_the_test_at_once() {
        bash("echo not yet").line("ready", Duration::from_secs(60)).await;
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone_with_its_children() {
        let process = bash("sleep 60 & echo $!; wait");
        let grandchild = process.line("", Duration::from_secs(10)).await;
        drop(process);
        eventually("the grandchild is gone", Duration::from_secs(10), || async {
            let state = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            (state.is_empty() || state.contains(") Z ")).then_some(())
        })
        .await;
    }
}
