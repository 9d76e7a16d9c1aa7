//! A PUBLISH through the whole engine: ten of them in one turn of their publisher, from the bytes of the read to the sockets of three
//! receivers, and their acknowledgements. Per message; what the kernel does is not counted.
//!
//! What is done here in place of `Connection` (`net/packets.rs`) is the loop over the packets, and handing over the gathered answers.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream as Peer};
use std::sync::Arc;
use std::task::Waker;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::{packet_id, publish_bytes};
use crate::broker::{Client, ConnectRequest, Core, Handle, Publisher, Security, Turn};
use crate::config::{Limits, RefusedPublish};
use crate::protocol::ProtocolVersion::V311;
use crate::protocol::encode::{self, AckKind};
use crate::protocol::{Connect, Framed, Packet, QoS, decode, frame};
use crate::router::SubscriptionOptions;
use crate::{Case, Operation};

pub(crate) const CASES: &[Case] = &[
    Case::new("turn_publish_qos0", 100 * MESSAGES, |_| Box::new(Turns::new(QoS::AtMostOnce))),
    Case::new("turn_publish_qos1", 100 * MESSAGES, |_| Box::new(Turns::new(QoS::AtLeastOnce))),
];

/// PUBLISH packets of one read.
const MESSAGES: u32 = 10;
/// Each matches every topic published.
const FILTERS: [&str; 3] = ["site/#", "site/+/device/23/temperature", "site/7/device/+/temperature"];

struct Turns {
    qos: QoS,
    core: Arc<Core>,
    turn: Turn,
    publisher: Connected,
    receivers: Vec<Connected>,
    /// One read of the publisher.
    input: Vec<u8>,
    /// One of a receiver: PUBACK for everything it got.
    acks: Vec<u8>,
    /// Messages each receiver has got.
    delivered: u32,
    _runtime: Runtime,
}

struct Connected {
    client: Arc<Client>,
    publisher: Publisher,
    /// The other end of its socket.
    peer: Peer,
    /// What came there.
    buffer: Box<[u8]>,
}

impl Connected {
    async fn new(core: &Arc<Core>, listener: &TcpListener, client_id: &str) -> Self {
        let address = listener.local_addr().expect("bound");
        let peer = Peer::connect(address).expect("there is a listener");
        peer.set_nonblocking(true).expect("a socket");
        let (socket, _) = listener.accept().await.expect("a connection");
        // From now on tokio knows that it can be written.
        socket.writable().await.expect("open");
        let socket = Arc::<TcpStream>::new(socket);
        let attached = core
            .connect(ConnectRequest {
                limits: &core.limits.now(),
                connect: &Connect { clean_start: true, ..Connect::new(V311, client_id) },
                peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
                user: None,
                login_until: None,
                login_entry: None,
                socket: Some(socket),
                authentication: None,
                handle: Arc::new(Handle::default()),
                waker: Waker::noop().clone(),
            })
            .await;
        let Ok(attached) = attached else { panic!("{client_id} is refused") };
        core.flush_own(&attached.client, false);
        Self {
            client: attached.client,
            publisher: Publisher::new(V311, RefusedPublish::AckAndCount, &core.limits.now()),
            peer,
            buffer: vec![0; 16 * 1024].into(),
        }
    }

    /// Takes what has come; as often as it takes to get so many bytes.
    fn read(&mut self, mut expected: usize) {
        while expected > 0 {
            match self.peer.read(&mut self.buffer) {
                Ok(0) => panic!("closed"),
                Ok(n) => expected = expected.checked_sub(n).expect("no more than was sent"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// One turn of its connection; see `Connection::handle_bytes`.
    fn handle_bytes(&mut self, core: &Arc<Core>, turn: &mut Turn, bytes: &[u8]) {
        let (client, publisher) = (&self.client, &mut self.publisher);
        turn.begin(core);
        let packet_bytes_max = publisher.packet_bytes_max();
        let mut rest = bytes;
        while let Ok(Framed::Frame(frame)) = frame(rest, packet_bytes_max, V311) {
            rest = &rest[frame.total()..];
            match decode(&frame, V311) {
                Ok(Packet::Publish(publish)) => {
                    assert!(core.publish(turn, client, publisher, &publish).is_ok());
                }
                Ok(Packet::PubAck(ack)) => {
                    let mut guard = client.lock();
                    let state = &mut *guard;
                    let session = state.session.at(turn.now);
                    session.handle_ack(AckKind::PubAck, ack.packet_id, ack.reason_code);
                    core.count_late_drops(state);
                    assert!(state.session.log_work().is_none());
                }
                other => panic!("{other:?}"),
            }
        }
        client.heard(turn.now);
        if !publisher.acks.is_empty() {
            assert!(turn.log.commit(core).is_none());
            let mut state = client.lock();
            state.session.send_acks(&publisher.acks);
            turn.promise_flush(client, &mut state);
            publisher.acks.clear();
        }
        turn.finish(core);
    }
}

impl Turns {
    fn new(qos: QoS) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let core = Core::new(Limits::default(), Security::default());
        let (publisher, receivers) = runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let publisher = Connected::new(&core, &listener, "publisher").await;
            let mut receivers = Vec::new();
            for filter in FILTERS {
                let receiver = Connected::new(&core, &listener, filter).await;
                let options = SubscriptionOptions::with_qos(qos);
                let mut state = receiver.client.lock();
                assert!(core.add_subscription(&receiver.client, &mut state, filter, options).is_ok());
                drop(state);
                receivers.push(receiver);
            }
            (publisher, receivers)
        });
        let mut input = Vec::new();
        for n in 0..MESSAGES {
            input.extend(publish_bytes(V311, qos, "site/7/device/23/temperature", packet_id(n)));
        }
        let mut turns = Self {
            qos,
            core,
            turn: Turn::new(),
            publisher,
            receivers,
            input,
            acks: Vec::new(),
            delivered: 0,
            _runtime: runtime,
        };
        const CONNACK: usize = 4;
        turns.publisher.read(CONNACK);
        for receiver in &mut turns.receivers {
            receiver.read(CONNACK);
        }
        turns.turn();
        turns
    }

    fn turn(&mut self) {
        self.publisher.handle_bytes(&self.core, &mut self.turn, &self.input);
        if self.qos == QoS::AtLeastOnce {
            self.acks.clear();
            for n in 0..MESSAGES {
                self.acks.extend(encode::ack(AckKind::PubAck, packet_id(self.delivered + n)));
            }
            for receiver in &mut self.receivers {
                receiver.handle_bytes(&self.core, &mut self.turn, &self.acks);
            }
            self.publisher.read(MESSAGES as usize * 4);
        }
        self.delivered += MESSAGES;
        // Read at once, so that no socket is ever full; a system call, of which the kernel's part is not counted.
        for receiver in &mut self.receivers {
            receiver.read(self.input.len());
        }
    }
}

impl Operation for Turns {
    fn run(&mut self, times: u32) {
        for _ in 0..times / MESSAGES {
            self.turn();
        }
        assert!(self.receivers.iter().all(|receiver| receiver.client.lock().session.unfinished() == 0));
    }
}
