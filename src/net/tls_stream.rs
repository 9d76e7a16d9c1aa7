//! `TlsStream`: TLS on a socket, on rustls's unbuffered connection.
//!
//! The buffers are the thread's, as with plain connections: what is read stands in one of them while it is decrypted, what is written in another while the
//! socket takes it. A connection keeps bytes of its own only for an unfinished record, for what the socket did not take, and for what a reader had no
//! room for. rustls's own buffered connection, and with it tokio-rustls, keeps 4 KB for each connection and reads no more than that at once.
//!
//! Bounds: an unfinished record or handshake message [`INCOMING_MAX`]; nothing is encrypted while the socket has not taken what was before. The answers of
//! TLS itself are few: rustls ends connections that ask for many (`tests/regression`).

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError};
use tokio::net::TcpStream;

/// Bytes of an unfinished record or message of the handshake: what rustls allows in its own buffers too.
const INCOMING_MAX: usize = 64 * 1024;
/// Bytes read at once at most.
const READ_BYTES: usize = 64 * 1024;
/// Bytes encrypted at once at most.
const WRITE_BYTES: usize = 64 * 1024;
/// What records add to so many bytes: at most 29 for each 16 KB, and a key update once in a while.
const SEALED_BYTES: usize = WRITE_BYTES + 1_024;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { opened: Vec::new(), sealed: Vec::new() }) };
}

/// The thread's buffers; empty on threads without TLS.
struct Scratch {
    opened: Vec<u8>,
    sealed: Vec<u8>,
}

/// See the module's documentation.
pub(super) struct TlsStream {
    socket: TcpStream,
    session: UnbufferedServerConnection,
    /// The beginning of a record, encrypted.
    incoming: Vec<u8>,
    /// Encrypted, for the socket.
    outgoing: Vec<u8>,
    /// Decrypted, for the reader.
    plain: Vec<u8>,
    /// The peer has ended its direction in the way of TLS.
    peer_closed: bool,
    /// TLS has failed; nothing more is read.
    failed: bool,
    /// Our direction is ended.
    close_said: bool,
}

/// Where decrypted bytes go: as far as there is room into the reader's buffer, then into one that is kept.
struct Opened<'a> {
    into: &'a mut [u8],
    filled: usize,
    beyond: &'a mut Vec<u8>,
}

impl Opened<'_> {
    fn push(&mut self, bytes: &[u8]) {
        let room = self.into.get_mut(self.filled..).unwrap_or_default();
        let (now, later) = bytes.split_at(bytes.len().min(room.len()));
        if let Some(place) = room.get_mut(..now.len()) {
            place.copy_from_slice(now);
        }
        self.filled += now.len();
        self.beyond.extend_from_slice(later);
    }
}

impl TlsStream {
    /// The server's side of a handshake.
    pub(super) async fn accept(config: Arc<ServerConfig>, socket: TcpStream) -> io::Result<Box<Self>> {
        let session = UnbufferedServerConnection::new(config).map_err(invalid)?;
        let mut stream = Box::new(Self {
            socket,
            session,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            plain: Vec::new(),
            peer_closed: false,
            failed: false,
            close_said: false,
        });
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// The certificates that the peer has shown, its own first.
    pub(super) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session.peer_certificates()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.peer_closed || ready!(self.poll_open(cx, &mut []))?.is_end() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the handshake broke off",
                )));
            }
        }
    }

    /// Reads what is there, at most `buffer.len()` bytes; 0 is the end of the stream.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            if !self.plain.is_empty() {
                let n = self.plain.len().min(buffer.len());
                let taken = self.plain.drain(..n);
                buffer.iter_mut().zip(taken).for_each(|(place, byte)| *place = byte);
                if self.plain.is_empty() {
                    self.plain = Vec::new();
                }
                return Poll::Ready(Ok(n));
            }
            if self.peer_closed {
                return Poll::Ready(Ok(0));
            }
            match ready!(self.poll_open(cx, buffer))? {
                Input::End => {
                    let what = "the peer closed the connection without TLS's close_notify";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
                }
                Input::Opened(0) => {}
                Input::Opened(n) => return Poll::Ready(Ok(n)),
            }
        }
    }

    /// Reads from the socket once and decrypts what has become whole.
    fn poll_open(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Input>> {
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if self.incoming.len() >= INCOMING_MAX {
            self.failed = true;
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message of TLS is too long",
            )));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let bytes = &mut scratch.opened;
            bytes.resize(INCOMING_MAX + READ_BYTES, 0);
            let carried = self.incoming.len();
            // Never more than the reader has room for, or at least little more: what is decrypted is shorter than what was read.
            let read_max = buffer.len().saturating_sub(carried).clamp(1_024, READ_BYTES);
            let space = bytes.get_mut(carried..carried + read_max).unwrap_or_default();
            let n = match ready!(poll_socket_read(&self.socket, cx, space))? {
                0 => return Poll::Ready(Ok(Input::End)),
                n => n,
            };
            if let Some(place) = bytes.get_mut(..carried) {
                place.copy_from_slice(&self.incoming);
            }
            let bytes = bytes.get_mut(..carried + n).unwrap_or_default();
            let mut opened = Opened { into: buffer, filled: 0, beyond: &mut self.plain };
            let done =
                process(&mut self.session, bytes, &mut opened, &mut self.outgoing, &mut self.peer_closed);
            let filled = opened.filled;
            match done {
                Ok(done) => {
                    self.keep(bytes.get(done..).unwrap_or_default());
                    // Answers of TLS itself. What the socket does not take now goes with the next flush.
                    self.write_some(cx)?;
                    Poll::Ready(Ok(Input::Opened(filled)))
                }
                Err(error) => {
                    self.failed = true;
                    // The alert that says why, if the socket takes it.
                    let _ = self.write_some(cx);
                    Poll::Ready(Err(invalid(error)))
                }
            }
        })
    }

    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.incoming = Vec::new();
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(rest);
        }
    }

    /// Encrypts some of `bytes` and writes it. What is taken here and not by the socket goes first the next time.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let bytes = bytes.get(..WRITE_BYTES).unwrap_or(bytes);
        SCRATCH.with_borrow_mut(|scratch| {
            let sealed = &mut scratch.sealed;
            sealed.resize(sealed.len().max(SEALED_BYTES), 0);
            let n = self.with_traffic(|traffic| {
                loop {
                    match traffic.encrypt(bytes, sealed) {
                        Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                            sealed.resize(required_size, 0);
                        }
                        result => return result,
                    }
                }
            })?;
            self.send(cx, sealed.get(..n).unwrap_or_default())?;
            Poll::Ready(Ok(bytes.len()))
        })
    }

    /// Brings what is encrypted to the socket.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_some(cx)?;
        if self.outgoing.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Ends our direction.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.close_said {
            self.close_said = true;
            let mut sealed = [0; 256];
            // Without it, if TLS has failed already.
            if let Ok(n) = self.with_traffic(|traffic| traffic.queue_close_notify(&mut sealed)) {
                self.outgoing.extend_from_slice(sealed.get(..n).unwrap_or_default());
            }
        }
        ready!(self.poll_flush(cx))?;
        Poll::Ready(socket2::SockRef::from(&self.socket).shutdown(std::net::Shutdown::Write))
    }

    /// Asks rustls for what only its state of traffic can do.
    fn with_traffic(
        &mut self,
        ask: impl FnOnce(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
        ) -> Result<usize, EncryptError>,
    ) -> io::Result<usize> {
        if self.failed {
            // What it remembers of the bytes that failed is there no more.
            return Err(io::ErrorKind::NotConnected.into());
        }
        // What it wants said first (session tickets) is said; a whole record is not among the bytes.
        let mut opened = Opened { into: &mut [], filled: 0, beyond: &mut self.plain };
        let (incoming, outgoing) = (&mut self.incoming, &mut self.outgoing);
        let done = process(&mut self.session, incoming, &mut opened, outgoing, &mut self.peer_closed);
        let result = done.map_err(invalid).and_then(|done| {
            incoming.drain(..done);
            match self.session.process_tls_records(incoming).state.map_err(invalid)? {
                ConnectionState::WriteTraffic(mut traffic) => ask(&mut traffic).map_err(invalid),
                _ => Err(io::ErrorKind::NotConnected.into()),
            }
        });
        self.failed = result.is_err();
        result
    }

    /// Sends bytes behind those that wait.
    fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while self.outgoing.is_empty() && !rest.is_empty() {
            match poll_socket_write(&self.socket, cx, rest)? {
                Poll::Ready(n) => rest = rest.get(n..).unwrap_or_default(),
                Poll::Pending => break,
            }
        }
        self.outgoing.extend_from_slice(rest);
        Ok(())
    }

    fn write_some(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let mut written = 0;
        while let Some(rest) = self.outgoing.get(written..).filter(|rest| !rest.is_empty()) {
            match poll_socket_write(&self.socket, cx, rest)? {
                Poll::Ready(n) => written += n,
                Poll::Pending => break,
            }
        }
        if written == self.outgoing.len() {
            self.outgoing = Vec::new();
        } else {
            self.outgoing.drain(..written);
        }
        Ok(())
    }
}

/// What one read brought: bytes for the reader, or the end of the socket's input.
enum Input {
    Opened(usize),
    End,
}

impl Input {
    fn is_end(&self) -> bool {
        matches!(self, Self::End)
    }
}

/// Has rustls process all records that are whole; how many bytes are done with. Its answers go into `outgoing`, with an error too.
fn process(
    session: &mut UnbufferedServerConnection,
    bytes: &mut [u8],
    opened: &mut Opened<'_>,
    outgoing: &mut Vec<u8>,
    peer_closed: &mut bool,
) -> Result<usize, rustls::Error> {
    let mut done = 0;
    let mut failure = None;
    loop {
        // The same bytes after an error, too: it remembers where messages lie in them. Once only, for the alert: the next time it would read
        // on, and find the same fault again.
        let status = session.process_tls_records(bytes.get_mut(done..).unwrap_or_default());
        let mut discard = status.discard;
        let goes_on = match status.state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let mut room = 0;
                loop {
                    let start = outgoing.len();
                    outgoing.resize(start + room, 0);
                    let result = data.encode(outgoing.get_mut(start..).unwrap_or_default());
                    outgoing.truncate(start + result.as_ref().copied().unwrap_or_default());
                    match result {
                        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                            room = required_size
                        }
                        Ok(_) | Err(EncodeError::AlreadyEncoded) => break failure.is_none(),
                    }
                }
            }
            Ok(_) if failure.is_some() => false,
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // It stands in line, in front of all that is encrypted later.
                data.done();
                true
            }
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    opened.push(record.payload);
                }
                true
            }
            Ok(ConnectionState::PeerClosed) => {
                *peer_closed = true;
                true
            }
            // Whole records are done with; no early data, which our configuration does not accept.
            Ok(_) => false,
            Err(error) if failure.is_none() => {
                failure = Some(error);
                true
            }
            Err(_) => false,
        };
        done += discard;
        if !goes_on {
            return failure.map_or(Ok(done), Err);
        }
    }
}

fn poll_socket_read(socket: &TcpStream, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_read_ready(cx))?;
        match socket.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Poll::Ready(result),
        }
    }
}

fn poll_socket_write(socket: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<Poll<usize>> {
    loop {
        match socket.poll_write_ready(cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(result) => result?,
        }
        match socket.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => return Ok(Poll::Ready(n)),
            Err(error) => return Err(error),
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
