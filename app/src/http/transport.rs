//! The stream under a connection: how long an answer may wait to be taken, and how the end comes.
//!
//! hyper has a deadline for the head of a request, and the gate has one for its body and its answer. None of them ends
//! the wait of an answer that is written to a client who does not read: it would hold its connection, and what is queued
//! for it, for as long as it likes.
//!
//! Nor does hyper linger: who is answered in the middle of a body (413, 401) and sends on would have its connection
//! reset by the system, and often lose the answer with it (RFC 9112, section 9.6).

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::progress::Progress;

/// How long a client that has its last answer may go on sending before the connection is gone.
const LINGER: Duration = Duration::from_secs(1);

/// What is read at once of that, and thrown away.
const THROWN_AWAY_BYTES: usize = 8 << 10;

/// A stream whose write fails when nothing at all could be written for a while, and which lingers when it is shut down.
/// A client that is merely slow takes something now and then, and is left alone.
#[derive(Debug)]
pub struct Transport<S> {
    stream: S,
    within: Duration,
    progress: Progress,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Runs since our half was shut down.
    lingers: Option<Pin<Box<Sleep>>>,
}

impl<S> Transport<S> {
    /// `stream`, each write of which may wait for `within`, and is told to `progress`.
    pub fn new(stream: S, within: Duration, progress: Progress) -> Self {
        Self { stream, within, progress, deadline: None, lingers: None }
    }

    fn judge(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = &written {
            self.deadline = None;
            self.progress.wrote(result.as_ref().copied().unwrap_or(0));
            return written;
        }
        let within = self.within;
        ready!(self.deadline.get_or_insert_with(|| Box::pin(sleep(within))).as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> Transport<S> {
    /// Throws away what still comes, until the client closes its half too or the time is over.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let over = self.lingers.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut thrown_away = [0; THROWN_AWAY_BYTES];
        while over.as_mut().poll(context).is_pending() {
            let mut into = ReadBuf::new(&mut thrown_away);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut into));
            if read.is_err() || into.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Transport<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, from);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, from);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingers.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        }
        self.poll_linger(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_fails_after_its_time() {
        let (ours, _theirs) = duplex(8);
        let mut ours = Transport::new(ours, WITHIN, Progress::new());
        let began = Instant::now();
        let error = ours.write_all(&[0; 9]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, WITHIN));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_something_now_and_then_gets_all_of_it() {
        let (ours, mut theirs) = duplex(8);
        let mut ours = Transport::new(ours, WITHIN, Progress::new());
        let reading = async {
            for _ in 0..100 {
                sleep(WITHIN / 2).await;
                theirs.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(ours.write_all(&[0; 100]), reading);
        written.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_the_client_but_not_for_long() {
        let began = Instant::now();
        let (ours, mut theirs) = duplex(8);
        let mut ours = Transport::new(ours, WITHIN, Progress::new());
        let leaving = async {
            theirs.write_all(&[0; 100]).await.unwrap();
            sleep(LINGER / 2).await;
            drop(theirs);
        };
        tokio::join!(ours.shutdown(), leaving).0.unwrap();
        assert_eq!(began.elapsed(), LINGER / 2);

        let (ours, _theirs) = duplex(8);
        Transport::new(ours, WITHIN, Progress::new()).shutdown().await.unwrap();
        assert_eq!(began.elapsed(), LINGER / 2 + LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_to_read_is_not_waiting_to_write() {
        let (ours, mut theirs) = duplex(8);
        let mut ours = Transport::new(ours, WITHIN, Progress::new());
        let saying = async {
            sleep(10 * WITHIN).await;
            theirs.write_all(b"x").await.unwrap();
        };
        assert_eq!(tokio::join!(ours.read_u8(), saying).0.unwrap(), b'x');
        ours.write_all(b"y").await.unwrap();
    }
}
