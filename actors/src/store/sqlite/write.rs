//! The one connection that writes, and transactions that several verbs share.
//!
//! With `synchronous=FULL` a commit waits for the disk, which takes longer than most of what is written. So whoever finds
//! others waiting behind it leaves the transaction open for them, and the last one commits for all ("group commit": DeWitt et
//! al., "Implementation Techniques for Main Memory Database Systems", SIGMOD 1984). Nobody is answered before that. What one
//! verb undoes is its own: each but the first has a savepoint.
//!
//! Nothing waits for others to come, and nobody for a verb that may take long ([`Writer::begin_alone`]). Whoever has left the
//! transaction open stands in line itself, behind those for whom it did, and commits if none of them has. It does so in a
//! task of its own: no caller need live until the end.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use supervision::TaskGroup;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::Instant;

use crate::store::error::Inner;

/// A transaction takes in no further verb when it is this old.
const OPEN_FOR: Duration = Duration::from_millis(20);

/// Those who write, one after the other.
#[derive(Debug)]
pub(super) struct Writer {
    group: Arc<Mutex<Group>>,
    /// How many wait to write.
    waiting: AtomicUsize,
    /// Ends of transactions that several share.
    tasks: TaskGroup,
}

/// The connection, and the transaction on it.
#[derive(Debug)]
struct Group {
    connect: SqliteConnectOptions,
    connection: SqliteConnection,
    /// Those who have written, and wait for the commit.
    members: Vec<oneshot::Sender<()>>,
    began: Instant,
    /// A turn is under way. If nobody has it, it has not ended well, and what it wrote is to be undone.
    is_unfinished: bool,
}

/// A turn to write: a transaction, or a part of one. Dropped, it undoes what it did.
#[derive(Debug)]
pub(super) struct Write {
    writer: Arc<Writer>,
    turn: Turn,
    is_alone: bool,
}

/// The connection, while it is one's own.
#[derive(Debug)]
struct Turn(OwnedMutexGuard<Group>);

impl Writer {
    /// Writes with its own connection, which `prepare` has seen first.
    pub(super) fn new(connect: SqliteConnectOptions, connection: SqliteConnection) -> Self {
        let group = Group { connect, connection, members: Vec::new(), began: Instant::now(), is_unfinished: false };
        Self { group: Arc::new(Mutex::new(group)), waiting: AtomicUsize::new(0), tasks: TaskGroup::new("store") }
    }

    /// Waits for its turn.
    pub(super) async fn begin(self: Arc<Self>) -> Inner<Write> {
        let waiting = Waiting::begin(&self.waiting);
        let mut turn = Turn(Arc::clone(&self.group).lock_owned().await);
        drop(waiting);
        turn.0.begin().await?;
        Ok(Write { writer: self, turn, is_alone: false })
    }

    /// Waits for its turn, and shares its transaction with nobody: for what may take long.
    pub(super) async fn begin_alone(self: Arc<Self>) -> Inner<Write> {
        let mut turn = Turn(Arc::clone(&self.group).lock_owned().await);
        if !turn.0.members.is_empty() {
            turn = self.commit_others(turn).await?;
        }
        turn.0.begin().await?;
        Ok(Write { writer: self, turn, is_alone: true })
    }

    /// Commits for those who have left the transaction open, though who needs it to be over gives up waiting.
    async fn commit_others(&self, mut turn: Turn) -> sqlx::Result<Turn> {
        let (tell, told) = oneshot::channel();
        self.tasks.spawn("commit", async move {
            let done = async {
                turn.0.mend().await?;
                if !turn.0.members.is_empty() { turn.0.commit().await } else { Ok(()) }
            };
            let done = done.await;
            let _ = tell.send(done.map(|()| turn));
        });
        told.await.unwrap_or_else(|_| Err(undone()))
    }

    /// Ends a part of a transaction: with a commit for all, or by waiting for one.
    async fn commit_shared(&self, mut turn: Turn, is_last: bool) -> sqlx::Result<()> {
        if !turn.0.members.is_empty() {
            turn.0.run("RELEASE turn").await?;
        }
        if is_last {
            return turn.0.commit().await;
        }
        let (tell, mut told) = oneshot::channel();
        turn.0.members.push(tell);
        turn.0.is_unfinished = false;
        drop(turn);
        tokio::select! {
            biased;
            done = &mut told => done.map_err(|_| undone()),
            group = Arc::clone(&self.group).lock_owned() => {
                let mut turn = Turn(group);
                turn.0.mend().await?;
                match told.try_recv() {
                    // Those who came behind have gone again, or have not ended well.
                    Err(TryRecvError::Empty) => turn.0.commit().await,
                    done => done.map_err(|_| undone()),
                }
            }
        }
    }

    /// Closes the connection, when those who write have ended.
    pub(super) async fn close(self: Arc<Self>) {
        let last = Arc::clone(&self.group).lock_owned().await;
        drop(last);
        let group = Arc::into_inner(self).and_then(|writer| Arc::into_inner(writer.group));
        if let Some(group) = group {
            let _ = group.into_inner().connection.close().await;
        }
    }
}

/// One who waits for its turn, for as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Write {
    /// Keeps what was written, or undoes it if it has failed. An answer waits for the commit though nothing was written for
    /// it: what it tells of may be of those who have left the transaction open.
    pub(super) async fn end<T>(self, answer: Inner<T>) -> Inner<T> {
        let answer = answer?;
        self.commit().await?;
        Ok(answer)
    }

    /// Makes it all last; answers when it does.
    pub(super) async fn commit(self) -> Inner<()> {
        let Self { writer, mut turn, is_alone } = self;
        let is_last = is_alone || writer.waiting.load(Ordering::Relaxed) == 0 || turn.0.began.elapsed() > OPEN_FOR;
        if is_last && turn.0.members.is_empty() {
            return Ok(turn.0.commit().await?);
        }
        // What others have a part in is brought to its end, whoever gives up waiting for it.
        let (tell, told) = oneshot::channel();
        let tasks = writer.tasks.clone();
        tasks.spawn("commit", async move {
            let _ = tell.send(writer.commit_shared(turn, is_last).await);
        });
        Ok(told.await.unwrap_or_else(|_| Err(undone()))?)
    }
}

/// The transaction is lost that a verb has shared, or nobody knows what has become of it.
fn undone() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other("nobody knows what has become of the transaction that others shared"))
}

/// SQLite's primary result code BUSY; the extended codes keep it in the low byte.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|said| said.code()).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

impl Group {
    async fn begin(&mut self) -> sqlx::Result<()> {
        let was_unfinished = self.is_unfinished;
        self.mend().await?;
        self.is_unfinished = true;
        if !self.members.is_empty() {
            return self.run("SAVEPOINT turn").await;
        }
        self.began = Instant::now();
        // One that reads first and then wants to write fails at once if another process wrote in between.
        match self.run("BEGIN IMMEDIATE").await {
            // What was to be undone could not be, on a full disk perhaps. Another process that has the file passes.
            Err(error) if was_unfinished && !is_busy(&error) => {
                self.connection = self.connect.connect().await?;
                self.run("BEGIN IMMEDIATE").await
            }
            begun => begun,
        }
    }

    /// Makes sure of what those who wait for the commit have written, and that nothing else stands beside it. If that cannot
    /// be, they are told.
    async fn mend(&mut self) -> sqlx::Result<()> {
        if self.is_unfinished && !self.members.is_empty() {
            let undone = async {
                self.run("ROLLBACK TO turn").await?;
                self.run("RELEASE turn").await
            };
            match undone.await {
                Ok(()) => self.is_unfinished = false,
                // SQLite has undone it all, as it does when the disk is full.
                Err(_) => self.members.clear(),
            }
        }
        Ok(())
    }

    /// Commits for all.
    async fn commit(&mut self) -> sqlx::Result<()> {
        self.is_unfinished = true;
        let members = std::mem::take(&mut self.members);
        self.run("COMMIT").await?;
        self.is_unfinished = false;
        for member in members {
            // Its caller may have given up waiting.
            let _ = member.send(());
        }
        Ok(())
    }

    async fn run(&mut self, statement: &'static str) -> sqlx::Result<()> {
        sqlx::query(statement).execute(&mut self.connection).await.map(drop)
    }
}

impl Drop for Turn {
    /// What was not ended well is undone at once, and not only when somebody comes: the file is locked until then. The driver
    /// takes the order with the first poll; whoever comes next makes sure.
    fn drop(&mut self) {
        if self.0.is_unfinished {
            let undo = if self.0.members.is_empty() { "ROLLBACK" } else { "ROLLBACK TO turn" };
            let _ = self.0.run(undo).now_or_never();
        }
    }
}

impl Deref for Write {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.turn.0.connection
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.turn.0.connection
    }
}

#[cfg(test)]
mod tests;
