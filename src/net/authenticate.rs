//! Enhanced authentication on the wire (MQTT 5 section 4.12): AUTH packets between CONNECT and CONNACK, and again on a connection.

use std::sync::Arc;

use super::connection::Connection;
use super::handshake::{FirstPacket, read_more};
use super::stream::Stream;
use crate::authentication::{AuthenticationExchange, AuthenticationMethod, AuthenticationStep};
use crate::broker::{Cause, Core};
use crate::protocol::encode;
use crate::protocol::{Auth, Connect, Framed, Packet, ReasonCode, decode, frame};

/// A client that was let in by a method, and what CONNACK says of it.
pub(super) struct Authenticated {
    pub(super) method: Arc<dyn AuthenticationMethod>,
    pub(super) data: Option<Vec<u8>>,
    pub(super) user: Option<String>,
}

/// A method in use on a connection, and the exchange under way when the client authenticates once more.
pub(super) struct Authentication {
    method: Arc<dyn AuthenticationMethod>,
    exchange: Option<Box<dyn AuthenticationExchange>>,
}

impl Authentication {
    pub(super) fn new(method: Arc<dyn AuthenticationMethod>) -> Self {
        Self { method, exchange: None }
    }
}

/// Runs the exchange that CONNECT asks for; `None` if it asks for none. `behind` holds what the client has sent besides.
///
/// # Errors
/// How the connection ends; [`Cause::Refused`] and protocol errors are told in CONNACK.
pub(super) async fn authenticate(
    core: &Core,
    stream: &mut Stream,
    connect: &Connect<'_>,
    behind: &mut Vec<u8>,
) -> Result<Option<Authenticated>, Cause> {
    let Some((name, data)) = connect.authentication else { return Ok(None) };
    let Some(method) = core.authentication_methods.find(name) else {
        return Err(Cause::Refused(ReasonCode::BadAuthenticationMethod));
    };
    let mut exchange = method.begin(connect.client_id);
    let mut step = exchange.step(data);
    loop {
        match step {
            AuthenticationStep::Success(data) => {
                let user = exchange.user();
                return Ok(Some(Authenticated { method: Arc::clone(method), data, user }));
            }
            AuthenticationStep::Refused(code) => return Err(Cause::Refused(code)),
            AuthenticationStep::Continue(data) => {
                let mut auth = Vec::new();
                let code = ReasonCode::ContinueAuthentication;
                if !encode::auth(&mut auth, code, name, Some(&data), None, connect.maximum_packet_size) {
                    return Err(Cause::Refused(ReasonCode::PacketTooLarge));
                }
                stream.write_all(&auth).await?;
            }
        }
        let FirstPacket { bytes, total, .. } =
            read_more(core, stream, std::mem::take(behind), connect.version).await?;
        *behind = bytes.get(total..).unwrap_or_default().to_vec();
        let Framed::Frame(frame) = frame(&bytes, usize::MAX, connect.version)? else {
            return Err(Cause::UnexpectedAuth);
        };
        step = match decode(&frame, connect.version)? {
            Packet::Auth(Auth { reason_code: ReasonCode::ContinueAuthentication, method, data })
                if method == name =>
            {
                exchange.step(data)
            }
            // Only AUTH and DISCONNECT may come before CONNACK ([MQTT-4.12.0-2] and on).
            Packet::Disconnect(_) => return Err(Cause::PeerClosed),
            _ => return Err(Cause::UnexpectedAuth),
        };
    }
}

impl Connection {
    /// AUTH on a connection: the client authenticates once more, by the method it began with ([MQTT-4.12.1-1]).
    pub(super) fn handle_auth(&mut self, auth: &Auth<'_>) -> Result<(), Cause> {
        let Some(Authentication { method, exchange }) = self.authentication.as_deref_mut() else {
            return Err(Cause::UnexpectedAuth);
        };
        if auth.method != method.name() {
            return Err(Cause::UnexpectedAuth);
        }
        let step = match (auth.reason_code, exchange.as_mut()) {
            (ReasonCode::ReAuthenticate, None) => {
                exchange.insert(method.begin(&self.client.id)).step(auth.data)
            }
            (ReasonCode::ContinueAuthentication, Some(exchange)) => exchange.step(auth.data),
            _ => return Err(Cause::UnexpectedAuth),
        };
        let (code, data) = match step {
            AuthenticationStep::Continue(data) => (ReasonCode::ContinueAuthentication, Some(data)),
            AuthenticationStep::Success(data) => {
                *exchange = None;
                (ReasonCode::Success, data)
            }
            AuthenticationStep::Refused(code) => return Err(Cause::ReauthenticationRefused(code)),
        };
        let mut answer = Vec::new();
        let max = u32::try_from(self.terms.packet_bytes_max).ok();
        if !encode::auth(&mut answer, code, auth.method, data.as_deref(), None, max) {
            // The client cannot be told within its Maximum Packet Size.
            return Err(Cause::ReauthenticationRefused(ReasonCode::PacketTooLarge));
        }
        self.publisher.acks.extend_from_slice(&answer);
        Ok(())
    }
}
