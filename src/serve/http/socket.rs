//! A TCP connection whose send buffer a handler may bound.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::debug;

use crate::http::SendBuffer;

#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    send_buffer: SendBuffer,
}

impl Socket {
    pub(super) const fn new(stream: TcpStream, send_buffer: SendBuffer) -> Self {
        Self {
            stream,
            send_buffer,
        }
    }

    /// Does what a handler wished since the last write.
    fn bound(&self) {
        let Some(bytes) = self.send_buffer.wish() else {
            return;
        };
        // Linux takes twice what it is asked for, since its own bookkeeping counts as well.
        if let Err(err) = SockRef::from(&self.stream).set_send_buffer_size(bytes / 2) {
            debug!(
                error = &err as &dyn std::error::Error,
                "cannot bound a send buffer"
            );
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.bound();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.bound();
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const BOUND: usize = 96 * 1024;

    /// What the kernel may hold for a peer, once something was written to it.
    async fn held(send_buffer: SendBuffer) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let _peer = TcpStream::connect(addr).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = Socket::new(stream, send_buffer);
        socket.write_all(b"the head of an answer").await.unwrap();
        SockRef::from(&socket.stream).send_buffer_size().unwrap()
    }

    #[tokio::test]
    async fn the_bound_of_a_handler_holds_from_the_next_write_on() {
        let wish = SendBuffer::default();
        wish.bound(BOUND);
        assert_eq!(held(wish).await, BOUND);
        assert_ne!(held(SendBuffer::default()).await, BOUND);
    }
}
