//! A broker with its files, and what most attacks ask of it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use ternmq::config::Config;
use ternmq::{Extensions, MetricsSnapshot};

pub(crate) use crate::support::broker::eventually;
pub(crate) use crate::support::raw_client::topics;
use crate::support::{
    Connect, Connect5, RawClient, RawClient5, ServerPacket, ServerPacket5, TestBroker, wire,
};
use crate::token;

/// A broker with its files.
pub(crate) struct House {
    pub(crate) directory: TempDir,
    pub(crate) config: Config,
    pub(crate) broker: TestBroker,
}

impl House {
    pub(crate) fn with(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = TestBroker::config();
        change(&mut config, directory.path());
        let broker = TestBroker::of(config.clone(), Extensions::default());
        Self { directory, config, broker }
    }

    /// One that takes tokens and holds everybody to these rules.
    pub(crate) fn with_rules(rules: &str, change: impl FnOnce(&mut Config, &Path)) -> Self {
        Self::with(|config, directory| {
            token::take_tokens(config, directory);
            fs::write(directory.join("acl"), rules).expect("rules");
            config.auth.acl_file = Some(directory.join("acl"));
            change(config, directory);
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.broker.addr()
    }

    pub(crate) fn restart(self) -> Self {
        let Self { directory, config, broker } = self;
        drop(broker);
        let broker = TestBroker::of(config.clone(), Extensions::default());
        Self { directory, config, broker }
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.directory.path().join(file), text).expect("a file");
    }

    pub(crate) fn reload(&self) {
        assert_eq!(self.broker.reload(&self.config), [] as [String; 0]);
    }

    pub(crate) fn new_rules(&self, rules: &str) {
        self.write("acl", rules);
        self.reload();
    }

    pub(crate) fn open(&self, connect: &Connect) -> RawClient {
        RawClient::open(self.addr(), connect).0
    }

    pub(crate) fn open5(&self, connect: &Connect5) -> RawClient5 {
        RawClient5::open(self.addr(), connect).0
    }

    /// What CONNECT is refused with.
    #[track_caller]
    pub(crate) fn refusal(&self, connect: &Connect) -> u8 {
        refusal(self.addr(), connect)
    }

    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.broker.metrics().dropped.get(reason).copied().unwrap_or_default()
    }

    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.broker.metrics().refused.get(reason).copied().unwrap_or_default()
    }

    /// Waits until the counters say what the test waits for.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, holds: impl Fn(&MetricsSnapshot) -> bool) {
        eventually(&self.broker, what, holds);
    }
}

/// The code of CONNACK that refuses this CONNECT; then the connection is closed.
#[track_caller]
pub(crate) fn refusal(addr: SocketAddr, connect: &Connect) -> u8 {
    let mut client = RawClient::connect(addr);
    client.send(&connect.bytes());
    expect_refusal(&mut client)
}

#[track_caller]
pub(crate) fn expect_refusal(client: &mut RawClient) -> u8 {
    let ServerPacket::ConnAck(false, code @ 1..) = client.expect_packet() else { panic!("let in") };
    client.expect_closed();
    code
}

/// Topics of everything up to one that was published last: what is read back from the disk may come behind the answer to a PINGREQ.
#[track_caller]
pub(crate) fn topics_until(client: &mut RawClient, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let publish = client.expect_publish();
        if publish.qos == 1 {
            client.send(&wire::puback(publish.id()));
        }
        if publish.topic == last {
            return seen;
        }
        seen.push(publish.topic);
    }
}

/// [`topics`] of MQTT 5.
#[track_caller]
pub(crate) fn topics5(client: &mut RawClient5) -> Vec<String> {
    let mut seen = Vec::new();
    client.send(&wire::PINGREQ);
    loop {
        match client.expect_packet() {
            ServerPacket5::PingResp => return seen,
            ServerPacket5::Publish(publish) => {
                if let Some(id) = publish.packet_id {
                    client.send(&wire::puback(id));
                }
                seen.push(publish.topic);
            }
            other => panic!("{other:?}"),
        }
    }
}
