//! A full disk: which messages go on.

use std::sync::Arc;

use super::Budget;
use super::{Client, Core, Publisher};
use crate::protocol::{Publish, QoS};
use crate::router::{Route, RouteCursor};

/// Steps for finding out who gets a message. What takes longer counts as in need of the disk.
const STEPS_MAX: usize = 4_096;

impl Core {
    /// Whether a PUBLISH would make the log grow: it is retained, its QoS 2 packet id has to outlive a
    /// crash, or somebody gets it whose session is kept.
    pub(crate) fn needs_disk(
        &self,
        budget: &mut Budget,
        client: &Client,
        publisher: &Publisher,
        publish: &Publish<'_>,
    ) -> bool {
        if publish.retain {
            return true;
        }
        if publish.qos == QoS::AtMostOnce {
            return false;
        }
        if publish.qos == QoS::ExactlyOnce && client.lock().session.is_durable() {
            return true;
        }
        // Without a topic it is refused.
        let Some(topic) = publisher.topic_of(publish) else { return false };
        let (mut cursor, mut routes) = (RouteCursor::default(), Vec::new());
        let mut steps = STEPS_MAX;
        let is_whole = self.router.route_from(topic, &mut cursor, &mut steps, &mut routes);
        let looks = STEPS_MAX - steps + routes.len();
        budget.spend(u32::try_from(looks).unwrap_or(u32::MAX));
        !is_whole || routes.iter().any(stores)
    }
}

/// Whether what goes there may have to be stored. Of a group any member may get it.
fn stores(route: &Route<Arc<Client>>) -> bool {
    let client = &route.subscriber;
    client.group.is_some() || route.options.qos != QoS::AtMostOnce && client.lock().session.is_durable()
}
