//! A PUBLISH through the broker: the publisher's session, the retained store, the router, the receivers.

use std::sync::Arc;

use super::{Client, Core, Turn};
use crate::protocol::encode::AckKind;
use crate::protocol::{Publish, QoS};
use crate::router::{Route, RouteCache};
use crate::session::{Message, Outgoing, Reception, Will, ack};

/// Clients must not write here; the broker does (MQTT 3.1.1 section 4.7.2).
const SYS_PREFIX: &str = "$SYS/";

/// What a connection keeps for its publishing.
#[derive(Default)]
pub(crate) struct Publisher {
    routes: RouteCache<Arc<Client>>,
    /// Acknowledgements of this turn, in the order of the packets.
    pub(crate) acks: Vec<u8>,
}

impl Core {
    /// A PUBLISH from a client. Its acknowledgement is added to `publisher.acks`.
    pub(crate) fn publish(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        publisher: &mut Publisher,
        publish: &Publish<'_>,
    ) {
        let reception = match (publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, Some(id)) => client.lock().session.accept_publish(id),
            _ => Reception::New,
        };
        if reception == Reception::New {
            if is_sys(publish.topic) {
                self.metrics.dropped.add("sys_topic", 1);
            } else {
                let mut scratch = std::mem::take(&mut turn.scratch);
                let mut outgoing = Outgoing::from_publish(publish, &mut scratch);
                if publish.retain {
                    self.retain(&mut outgoing);
                }
                for route in publisher.routes.get(&self.router, publish.topic).iter() {
                    self.deliver(turn, &route.subscriber, &mut outgoing, route.options.qos);
                }
                turn.scratch = scratch;
            }
        }
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => publisher.acks.extend_from_slice(&ack(AckKind::PubAck, id)),
            (QoS::ExactlyOnce, Some(id)) => publisher.acks.extend_from_slice(&ack(AckKind::PubRec, id)),
            _ => {}
        }
    }

    /// A message of the broker itself or of a program it is embedded in.
    pub(crate) fn publish_message(&self, turn: &mut Turn, message: &Arc<Message>, retain: bool) {
        let mut scratch = std::mem::take(&mut turn.scratch);
        let mut outgoing = Outgoing::from_message(message, &mut scratch);
        if retain {
            self.retain(&mut outgoing);
        }
        let mut routes: Vec<Route<Arc<Client>>> = Vec::new();
        self.router.route(message.topic(), &mut routes);
        for route in &routes {
            self.deliver(turn, &route.subscriber, &mut outgoing, route.options.qos);
        }
        turn.scratch = scratch;
    }

    /// The will of a connection that ended without DISCONNECT.
    pub(crate) fn publish_will(&self, turn: &mut Turn, will: &Will) {
        if is_sys(will.message.topic()) {
            self.metrics.dropped.add("sys_topic", 1);
            return;
        }
        self.metrics.wills_published.add(1);
        self.publish_message(turn, &will.message, will.retain);
    }

    /// Makes it the topic's retained message, or with an empty payload removes that ([MQTT-3.3.1-5], [MQTT-3.3.1-10]).
    fn retain(&self, outgoing: &mut Outgoing<'_>) {
        if outgoing.payload().is_empty() {
            self.retained.remove(outgoing.topic());
        } else {
            let message = outgoing.message();
            self.retained.set(message.topic(), Arc::clone(&message));
        }
    }
}

fn is_sys(topic: &str) -> bool {
    topic.starts_with(SYS_PREFIX)
}
