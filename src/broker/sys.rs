//! `$SYS`: the broker's counters as retained messages, under the names that mosquitto's users know.

use std::sync::Arc;
use std::time::Duration;

use super::{Core, Turn};
use crate::protocol::QoS;
use crate::session::Message;

/// Topics that clients must not write to; the broker does (MQTT 3.1.1 section 4.7.2).
pub(super) fn is_sys(topic: &str) -> bool {
    topic.starts_with("$SYS/")
}

/// Publishes the counters every `interval` until the broker shuts down.
pub(crate) async fn run(core: Arc<Core>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    publish(&core, "$SYS/broker/version", &format!("ternmq version {}", env!("CARGO_PKG_VERSION")));
    loop {
        tokio::select! {
            // So the queue of the background never holds more than one tick's.
            _ = ticks.tick() => if !core.is_behind() {
                publish_counters(&core);
            },
            () = core.shut_down() => return,
        }
    }
}

fn publish_counters(core: &Core) {
    let metrics = core.metrics();
    let total = metrics.clients_connected + metrics.sessions_offline;
    let numbers: [(&str, u64); 21] = [
        ("clients/connected", metrics.clients_connected),
        ("clients/disconnected", metrics.sessions_offline),
        ("clients/total", total),
        ("clients/expired", metrics.sessions_expired),
        ("subscriptions/count", metrics.subscriptions),
        ("retained messages/count", metrics.retained),
        ("bytes/received", metrics.bytes_received),
        ("bytes/sent", metrics.bytes_sent),
        ("messages/received", metrics.packets_received),
        ("publish/messages/received", metrics.publish_received),
        ("publish/messages/sent", metrics.publish_sent),
        ("publish/messages/queued", metrics.publish_queued),
        ("publish/messages/dropped", metrics.dropped.values().sum()),
        ("connections/total", metrics.connections),
        ("clients/quick take-overs", metrics.quick_take_overs),
        ("waiting/bytes", metrics.waiting_bytes),
        ("waiting/shortened", metrics.sheddings),
        ("turns/long", metrics.turns_long),
        ("unfinished/bytes", metrics.unfinished_bytes),
        ("memory/bytes", metrics.memory_bytes),
        ("log/lines lost", metrics.log_lines_lost),
    ];
    publish(core, "$SYS/broker/uptime", &format!("{} seconds", core.now().as_millis() / 1_000));
    for (name, value) in numbers {
        publish(core, &format!("$SYS/broker/{name}"), &value.to_string());
    }
    for (account, bytes) in &metrics.memory {
        publish(core, &format!("$SYS/broker/memory/{account}/bytes"), &bytes.to_string());
    }
    for (name, days) in
        [("certificate days left", metrics.certificate_days_left), ("crl days left", metrics.crl_days_left)]
    {
        if let Some(days) = days {
            publish(core, &format!("$SYS/broker/tls/{name}"), &days.to_string());
        }
    }
    if let Some(storage) = metrics.storage {
        for (name, value) in [
            ("failing", storage.failing),
            ("full", storage.full),
            ("files bytes", storage.files_bytes),
            ("bytes recorded", storage.bytes_recorded),
            ("bytes written", storage.bytes_written),
            ("syncs", storage.syncs),
            ("write failures", storage.write_failures),
            ("sync failures", storage.sync_failures),
        ] {
            publish(core, &format!("$SYS/broker/storage/{name}"), &value.to_string());
        }
    }
    for (area, counts) in [
        ("publish/messages/dropped", &metrics.dropped),
        ("connections/closed", &metrics.closed),
        ("connections/refused", &metrics.refused),
        ("connections/held", &metrics.held),
    ] {
        for (reason, value) in counts {
            publish(core, &format!("$SYS/broker/{area}/{reason}"), &value.to_string());
        }
    }
}

fn publish(core: &Core, topic: &str, value: &str) {
    // Unchanged values are not sent again: subscribers have them, and new ones get the retained message.
    if core.retained.get(topic).is_some_and(|last| last.message.payload() == value.as_bytes()) {
        return;
    }
    let message = Arc::new(Message::new(topic, value, QoS::AtMostOnce));
    let mut turn = Turn::new();
    turn.begin(core);
    let fan_out = core.publish_message(&mut turn, &message, true);
    turn.finish(core);
    if let Some(fan_out) = fan_out {
        core.complete_later(fan_out);
    }
}
