//! A small client over TCP, for tests of the broker as a part of a program. It speaks through the crate's own codec: the
//! conformance suite judges that one byte by byte.

use std::io;
use std::time::Duration;

use ternmq::protocol::encode::{self, AckKind, PublishHeader, PublishPropertiesOut};
use ternmq::protocol::{
    Connect, ConnectWill, Framed, Packet, PacketId, ProtocolVersion, PublishProperties, SessionExpiry,
    SubscribeOptions, decode, frame_from_server,
};
use ternmq::{Broker, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const V311: ProtocolVersion = ProtocolVersion::V311;

/// See the module's documentation.
pub(crate) struct TestClient {
    stream: TcpStream,
    buffer: Vec<u8>,
    next_id: u16,
}

impl TestClient {
    /// Connects to the first listener.
    pub(crate) async fn connect(broker: &Broker, client_id: &str, clean_session: bool) -> Self {
        Self::connect_as(broker, client_id, clean_session, None).await
    }

    /// Connects with a will of QoS 1.
    pub(crate) async fn connect_with_will(
        broker: &Broker,
        client_id: &str,
        topic: &str,
        payload: &str,
    ) -> Self {
        let will = ConnectWill {
            topic,
            payload: payload.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_seconds: 0,
            properties: PublishProperties::NONE,
        };
        Self::connect_as(broker, client_id, true, Some(will)).await
    }

    async fn connect_as(
        broker: &Broker,
        client_id: &str,
        clean_session: bool,
        will: Option<ConnectWill<'_>>,
    ) -> Self {
        let stream = TcpStream::connect(broker.local_addrs()[0]).await.expect("a connection");
        let mut client = Self { stream, buffer: Vec::new(), next_id: 0 };
        let connect = Connect {
            clean_start: clean_session,
            session_expiry: if clean_session {
                SessionExpiry::AtDisconnect
            } else {
                SessionExpiry::ServerDefault
            },
            keep_alive: 60,
            will,
            ..Connect::new(V311, client_id)
        };
        client.send(|out| encode::connect(out, &connect)).await;
        let connack = client.next_packet().await.expect("CONNACK");
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
        client
    }

    /// Subscribes and waits for SUBACK.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) {
        let id = self.id();
        let filters = [(filter, SubscribeOptions::with_qos(qos))];
        self.send(|out| encode::subscribe(out, V311, id, None, &filters)).await;
        let suback = self.next_packet().await.expect("SUBACK");
        assert_eq!((suback[0], suback[4]), (0x90, qos as u8), "{suback:02x?}");
    }

    /// Publishes with QoS 1 at most, and waits for PUBACK.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &str, qos: QoS) {
        let packet_id = (qos == QoS::AtLeastOnce).then(|| self.id());
        let header = PublishHeader { dup: false, qos, retain: false, topic, packet_id };
        self.send(|out| encode::publish(out, V311, &header, &PublishPropertiesOut::NONE, payload.as_bytes()))
            .await;
        if let Some(id) = packet_id {
            // Deliveries may come in between; they are kept.
            let mut kept = Vec::new();
            loop {
                let packet = self.next_packet().await.expect("PUBACK");
                if packet == encode::ack(AckKind::PubAck, id) {
                    break;
                }
                assert_eq!(packet[0] >> 4, 3, "{packet:02x?}");
                kept.extend(packet);
            }
            kept.append(&mut self.buffer);
            self.buffer = kept;
        }
    }

    /// The next PUBLISH, acknowledged, as `topic=payload`.
    pub(crate) async fn next_publish(&mut self) -> String {
        let packet = self.next_packet().await.expect("a packet");
        let Ok(Framed::Frame(frame)) = frame_from_server(&packet, usize::MAX, V311) else {
            panic!("{packet:02x?}")
        };
        let Ok(Packet::Publish(publish)) = decode(&frame, V311) else { panic!("{packet:02x?}") };
        if let (QoS::AtLeastOnce, Some(id)) = (publish.qos, publish.packet_id) {
            self.send(|out| out.extend(encode::ack(AckKind::PubAck, id))).await;
        }
        format!("{}={}", publish.topic, String::from_utf8_lossy(publish.payload))
    }

    /// Nothing but the end of the connection must come.
    pub(crate) async fn expect_end(&mut self) {
        assert_eq!(self.next_packet().await, None);
    }

    fn id(&mut self) -> PacketId {
        self.next_id += 1;
        PacketId::new(self.next_id).expect("not 0")
    }

    async fn send(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        encode(&mut out);
        self.stream.write_all(&out).await.expect("a write");
    }

    async fn next_packet(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Framed::Frame(frame) =
                frame_from_server(&self.buffer, usize::MAX, V311).expect("well formed")
            {
                let packet = frame.wire().to_vec();
                self.buffer.drain(..packet.len());
                return Some(packet);
            }
            let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read_buf(&mut self.buffer));
            match read.await.expect("in time") {
                Ok(0) => return None,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                result => result.expect("a read"),
            };
        }
    }
}
