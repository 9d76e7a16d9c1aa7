//! `Stream`: a connection's byte stream, plain or TLS, with the same poll functions.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::net::TcpStream;

use super::tls_stream::TlsStream;

/// See the module's documentation.
pub(super) enum Stream {
    /// Shared with whoever writes to it directly (see `broker::flush`).
    Tcp(Arc<TcpStream>),
    Tls(Box<TlsStream>),
}

/// After a final packet: how long, and for how many bytes, the peer's input is thrown away, so that the packet is not lost to a reset.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// How long a last packet may take on a connection that was taken over: the successor waits for it.
const LAST_WORD_TIME: Duration = Duration::from_millis(100);

impl Stream {
    /// Reads what is there, at most `buffer.len()` bytes; 0 is the end of the stream.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => loop {
                ready!(stream.poll_read_ready(cx))?;
                match stream.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => return Poll::Ready(result),
                }
            },
            Self::Tls(stream) => stream.poll_read(cx, buffer),
        }
    }

    /// Writes some of `bytes`.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => loop {
                ready!(stream.poll_write_ready(cx))?;
                match stream.try_write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => return Poll::Ready(result),
                }
            },
            Self::Tls(stream) => stream.poll_write(cx, bytes),
        }
    }

    /// Brings what TLS holds encrypted to the socket.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.poll_flush(cx),
        }
    }

    /// Waits until a plain socket takes bytes again.
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Tls(_) => Poll::Ready(Ok(())),
        }
    }

    /// The socket, if others may write to it.
    pub(super) fn shared_socket(&self) -> Option<Arc<TcpStream>> {
        match self {
            Self::Tcp(stream) => Some(Arc::clone(stream)),
            Self::Tls(_) => None,
        }
    }

    /// Writes `bytes` as the last packet of a connection and closes it.
    pub(super) async fn finish_with(mut self, bytes: &[u8]) {
        let _ = tokio::time::timeout(LINGER_TIME, async {
            if self.write_all(bytes).await.is_ok() {
                self.linger().await;
            }
        })
        .await;
    }

    /// Writes all of `bytes`.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match std::future::poll_fn(|cx| self.poll_write(cx, rest)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => rest = rest.get(n..).unwrap_or_default(),
            }
        }
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Writes a last packet, if the socket takes it soon.
    pub(super) async fn say_last(&mut self, bytes: &[u8]) {
        let _ = tokio::time::timeout(LAST_WORD_TIME, async {
            let _ = self.write_all(bytes).await;
        })
        .await;
    }

    /// Ends our direction and waits at most this long for the peer to end its own.
    pub(super) async fn linger_for(&mut self, time: Duration) {
        let _ = tokio::time::timeout(time, self.linger()).await;
        self.close();
    }

    /// Ends our direction and throws away what still comes in: closing a socket with unread input resets it, and the peer could lose
    /// what was sent last.
    async fn linger(&mut self) {
        if std::future::poll_fn(|cx| self.poll_shutdown(cx)).await.is_err() {
            return;
        }
        let mut scratch = [0; 1_024];
        let mut seen = 0;
        while let Ok(n) = std::future::poll_fn(|cx| self.poll_read(cx, &mut scratch)).await {
            seen += n;
            if n == 0 || seen > LINGER_BYTES {
                return;
            }
        }
    }

    /// Closes a plain socket in both directions without waiting for those who share it. A TLS
    /// socket has one owner; its peer is told, if the socket takes that at once.
    pub(super) fn close(&mut self) {
        match self {
            Self::Tcp(stream) => {
                let _ = socket2::SockRef::from(&**stream).shutdown(std::net::Shutdown::Both);
            }
            Self::Tls(stream) => {
                let _ = stream.poll_shutdown(&mut Context::from_waker(Waker::noop()));
            }
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => {
                Poll::Ready(socket2::SockRef::from(&**stream).shutdown(std::net::Shutdown::Write))
            }
            Self::Tls(stream) => stream.poll_shutdown(cx),
        }
    }
}
