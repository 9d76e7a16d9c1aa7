//! From accept to a connection attached to its session: TLS, CONNECT, and the answers to those who are not let in.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::attend::FromLog;
use super::authenticate::{Authentication, authenticate};
use super::connection::{Connection, GoneGuard};
use super::entry::{Slots, open};
use super::handshake::read_connect;
use super::line::Line;
use super::listener::{ListenerShared, Policy};
use super::rate::PublishRate;
use super::stream::Stream;
use crate::auth::gate::{Admitted, Certificate, Login, Refused};
use crate::broker::{Attached, Cause, ConnectRequest, Core, Handle, unix_millis};
use crate::escape::escape;
use crate::protocol::encode::{self, ConnackProperties};
use crate::protocol::{
    Connect, DecodeError, Framed, Packet, ProtocolVersion, ReasonCode, connect_version, decode, frame,
};

/// Everything up to CONNECT, within `limits.connect_timeout` together.
pub(super) async fn set_up(
    core: &Arc<Core>,
    shared: &ListenerShared,
    stream: TcpStream,
    mut peer: SocketAddr,
    slots: &mut Slots,
) -> Option<Box<Connection>> {
    let connect_timeout = core.limits.now().connect_timeout;
    let first = async {
        let mut stream = open(core, shared, stream, &mut peer, slots).await?;
        let first = read_connect(core, &mut stream).await?;
        Ok((stream, first))
    };
    let result = tokio::select! {
        result = tokio::time::timeout(connect_timeout, first) => {
            result.unwrap_or(Err(Cause::ConnectTimeout))
        }
        () = core.shut_down() => Err(Cause::Shutdown),
    };
    let (stream, first) = match result {
        Ok(ok) => ok,
        Err(cause) => {
            refused(core, peer, None, &cause);
            return None;
        }
    };
    let connect = match decode_connect(&first.bytes) {
        Ok(connect) => connect,
        Err(cause) => {
            refused(core, peer, None, &cause);
            if let Cause::Malformed(error) = cause
                && let Some(version) = answer_in(&first.bytes, error)
            {
                refuse(stream, version, None, error.reason_code()).await;
            }
            return None;
        }
    };
    let mut stream = stream;
    // What counts for this client to the end; it is told some of it.
    let (policy, limits) = (shared.policy(), core.limits.now());
    let mut behind = first.bytes.get(first.total..).unwrap_or_default().to_vec();
    let exchange = authenticate(core, &mut stream, &connect, &mut behind);
    // Another `connect_timeout` for all of it: a client must not sit between CONNECT and CONNACK.
    let exchanged = tokio::time::timeout(connect_timeout, exchange).await;
    let authenticated = match exchanged.unwrap_or(Err(Cause::ConnectTimeout)) {
        Ok(authenticated) => authenticated,
        Err(cause) => {
            refused(core, peer, Some(connect.client_id), &cause);
            if let Some(code) = cause.connack_code().or_else(|| cause.disconnect_code()) {
                refuse(stream, connect.version, connect.maximum_packet_size, code).await;
            }
            return None;
        }
    };
    let admitted = match &authenticated {
        Some(by) => Admitted { user: by.user.as_deref().map(Arc::from), until: None, entry: None },
        None => {
            // As long as anybody may stay on the way to CONNACK.
            match admit(shared, &policy, &stream, &connect, peer, connect_timeout).await {
                Ok(admitted) => admitted,
                Err(why) => {
                    let code = refusal_code(why);
                    refused(core, peer, Some(connect.client_id), &Cause::Refused(code));
                    refuse(stream, connect.version, connect.maximum_packet_size, code).await;
                    return None;
                }
            }
        }
    };
    let allowed = core.check_will(&connect).and_then(|()| {
        core.admit_user(admitted.user.as_ref(), connect.client_id).map(|slot| slots.user = slot)
    });
    if let Err(cause) = allowed {
        refused(core, peer, Some(connect.client_id), &cause);
        if let Some(code) = cause.connack_code() {
            refuse(stream, connect.version, connect.maximum_packet_size, code).await;
        }
        return None;
    }
    let gone = GoneGuard(Arc::new(Handle::default()));
    let request = ConnectRequest {
        connect: &connect,
        limits: &limits,
        peer,
        user: admitted.user,
        login_until: admitted.until.map(unix_millis),
        login_entry: admitted.entry,
        socket: stream.shared_socket(),
        handle: Arc::clone(&gone.0),
        // Nothing between here and the polls of the connection gives the task another one.
        waker: poll_fn(|cx| Poll::Ready(cx.waker().clone())).await,
        authentication: authenticated.as_ref().map(|by| (by.method.name(), by.data.as_deref())),
    };
    let Attached { client, epoch, session_present, terms } = match core.connect(request).await {
        Ok(attached) => attached,
        Err(cause) => {
            refused(core, peer, Some(connect.client_id), &cause);
            if let Some(code) = cause.connack_code() {
                refuse(stream, connect.version, connect.maximum_packet_size, code).await;
            }
            return None;
        }
    };
    if admitted.entry.is_some() {
        // The file may have changed since it was asked, and whoever looked for logins may not have found this one yet.
        core.end_login_unless(&client, |user, entry| shared.gate.counts(user, entry));
    }
    // At once: from here on the end of the connection is settled however this task ends.
    let connection = Box::new(Connection {
        core: Arc::clone(core),
        client,
        epoch,
        stream,
        // What came in with CONNECT.
        backlog: !behind.is_empty(),
        large: None,
        partial: behind,
        unfinished: None,
        terms,
        publisher: crate::broker::Publisher::new(terms.version, policy.refused_publish, &limits),
        promiser: crate::broker::Promiser::new(),
        deferred: None,
        line: Line::default(),
        wants_turn: false,
        output: None,
        from_log: FromLog::default(),
        rate: PublishRate::new(&limits, core.now()),
        hold: None,
        peer,
        finished: false,
        authentication: authenticated.map(|by| Box::new(Authentication::new(by.method))),
        gone,
    });
    core.metrics.packets_received.add(1);
    tracing::info!(
        client_id = %escape(&connection.client.id),
        %peer,
        version = connect.version.name(),
        clean_session = connect.clean_start,
        session_present,
        keep_alive = connect.keep_alive,
        user_name = connect.user_name.map(|name| tracing::field::display(escape(name))),
        "connected"
    );
    if core.is_shutting_down() {
        Box::pin(connection.close(Cause::Shutdown)).await;
        return None;
    }
    Some(connection)
}

fn decode_connect(bytes: &[u8]) -> Result<Connect<'_>, Cause> {
    if let Framed::Frame(frame) = frame(bytes, usize::MAX, ProtocolVersion::V311)?
        && let Packet::Connect(connect) = decode(&frame, ProtocolVersion::V311)?
    {
        return Ok(connect);
    }
    Err(Cause::NotConnect { looks_like: None })
}

/// In which version a CONNECT that cannot be taken is answered; `None`: it is not answered. MQTT 3.1.1 has an answer for an unknown level
/// only ([MQTT-3.1.2-2], [MQTT-3.1.4-1]), MQTT 5 for every fault (section 4.13).
fn answer_in(bytes: &[u8], error: DecodeError) -> Option<ProtocolVersion> {
    if let DecodeError::UnsupportedLevel { .. } = error {
        return Some(ProtocolVersion::V311);
    }
    let Ok(Framed::Frame(frame)) = frame(bytes, usize::MAX, ProtocolVersion::V311) else { return None };
    connect_version(&frame).ok().filter(|version| version.has_properties())
}

/// Who the client is, if the listener and its methods let it in.
async fn admit(
    shared: &ListenerShared,
    policy: &Policy,
    stream: &Stream,
    connect: &Connect<'_>,
    peer: SocketAddr,
    patience: Duration,
) -> Result<Admitted, Refused> {
    let certificate = match stream {
        Stream::Tcp(_) => None,
        Stream::Tls(stream) => stream.peer_certificates().and_then(<[_]>::first),
    };
    let login = Login {
        peer,
        client_id: connect.client_id,
        user: connect.user_name,
        password: connect.password,
        certificate: certificate.map_or(Certificate::None, |certificate| policy.credentials(certificate)),
        allow_anonymous: policy.allow_anonymous,
        methods: policy.methods.as_deref(),
    };
    shared.gate.admit(&login, patience).await
}

fn refusal_code(why: Refused) -> ReasonCode {
    match why {
        Refused::Anonymous => ReasonCode::NotAuthorized,
        Refused::Unknown => ReasonCode::BadUserNameOrPassword,
        Refused::Banned => ReasonCode::Banned,
        Refused::Unavailable => ReasonCode::ServerUnavailable,
    }
}

/// Answers CONNECT with an error, unless even that is larger than the client takes ([MQTT-3.1.2-24]).
async fn refuse(
    stream: Stream,
    version: ProtocolVersion,
    client_packet_bytes_max: Option<u32>,
    code: ReasonCode,
) {
    let mut connack = Vec::new();
    let reason_string = Some(code.description());
    let properties =
        ConnackProperties { reason_string, client_packet_bytes_max, ..ConnackProperties::default() };
    if encode::connack(&mut connack, version, false, code, &properties) {
        stream.finish_with(&connack).await;
    }
}

fn refused(core: &Core, peer: SocketAddr, client_id: Option<&str>, cause: &Cause) {
    core.metrics.refused.add(cause.label(), 1);
    if *cause == Cause::PeerClosed {
        // Port probes and health checks.
        tracing::debug!(%peer, %cause, "closed before CONNECT");
        return;
    }
    tracing::info!(%peer, client_id = client_id.map(|id| tracing::field::display(escape(id))), %cause, "refused");
}
