//! A stream whose peer must take what is written to it.
//!
//! Invariant: whoever takes less than 4 KiB a second, over 30 s of the time in which there is
//! something to write, is given up. A peer that nothing is written to may rest for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Waiting for the peer in all, within which it must take [`BYTES_MIN`].
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(30);
const BYTES_MIN: usize = 30 * 4 * 1024;

#[derive(Debug)]
pub(super) struct Steady<S> {
    inner: S,
    /// Of the window that runs: how long was waited, and what was taken.
    waited: Duration,
    taken: usize,
    /// The wait that goes on.
    since: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Steady<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            waited: Duration::ZERO,
            taken: 0,
            since: None,
            alarm: Box::pin(sleep(STALLED_AFTER)),
        }
    }

    fn judge(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        if let Poll::Ready(written) = written {
            if let Some(since) = self.since.take() {
                self.waited += now.saturating_duration_since(since);
            }
            self.taken = self.taken.saturating_add(*written.as_ref().unwrap_or(&0));
            return Poll::Ready(written);
        }
        if self.since.is_none() {
            if self.taken >= BYTES_MIN {
                (self.waited, self.taken) = (Duration::ZERO, 0);
            }
            self.since = Some(now);
            let left = STALLED_AFTER.saturating_sub(self.waited);
            self.alarm.as_mut().reset(now + left);
        }
        ready!(self.alarm.as_mut().poll(cx));
        let slow = io::Error::new(io::ErrorKind::TimedOut, "the peer takes too little");
        Poll::Ready(Err(slow))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Steady<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Steady<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PIPE_BYTES: usize = 4 * 1024;

    /// Writes half a MiB to a peer that takes so much each second; after how many seconds that
    /// ended, and whether all was written.
    async fn write_to(bytes_per_s: usize) -> (u64, bool) {
        let (mut peer, stream) = duplex(PIPE_BYTES);
        let begun = Instant::now();
        let write = async {
            let mut stream = Steady::new(stream);
            let written = stream.write_all(&[0; 512 * 1024]).await;
            (begun.elapsed().as_secs(), written.is_ok())
        };
        let read = async {
            let mut taken = vec![0; bytes_per_s.max(1)];
            loop {
                sleep(Duration::from_secs(1)).await;
                if bytes_per_s > 0 && peer.read_exact(&mut taken).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            ended = write => ended,
            () = read => panic!("the stream closed without a word"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_too_little_is_given_up_after_thirty_seconds() {
        assert_eq!(write_to(0).await, (30, false));
        assert_eq!(write_to(3 * 1024).await, (30, false));
        let (seconds, is_whole) = write_to(5 * 1024).await;
        assert!(is_whole && seconds > 90, "{seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_after_taking_much_is_given_up_as_soon() {
        let (mut peer, stream) = duplex(PIPE_BYTES);
        let mut stream = Steady::new(stream);
        let mut taken = vec![0; 256 * 1024];
        let much = taken.clone();
        let (written, read) = tokio::join!(stream.write_all(&much), peer.read_exact(&mut taken));
        assert!(written.is_ok() && read.is_ok());
        // Nothing to write: time does not count.
        sleep(Duration::from_secs(600)).await;
        let begun = Instant::now();
        assert!(stream.write_all(&much).await.is_err());
        assert_eq!(begun.elapsed().as_secs(), STALLED_AFTER.as_secs());
    }
}
