//! Whether the broker keeps going.

use std::time::Duration;

use super::{Analysis, Violation};
use crate::history::What;
use crate::mqtt::short;

/// From CONNECT to CONNACK at most.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// I16, liveness (sections 4.1, 4.8): CONNECT is answered within 5 s; at the end of the round, when every publisher has sent
/// a whole window once more, every message is acknowledged; and the broker never ends by itself.
pub(super) fn i16_liveness(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for connection in &a.connections {
        let at = |index: usize| a.events[index].at;
        let late = match connection.connack {
            Some((connack, _)) => at(connack) - at(connection.connect) > CONNECT_MAX,
            None => {
                let killed = a.kills.iter().any(|kill| *kill > connection.connect);
                let given_up = connection.end().min(a.events.len() - 1);
                !killed && at(given_up) - at(connection.connect) > CONNECT_MAX
            }
        };
        if late {
            let text = "CONNECT is not answered within 5 s".to_owned();
            violations.push(Violation::new("I16", &connection.client, text, &[connection.connect]));
        }
        if connection.connack.is_none()
            && connection.closed.is_some_and(|end| !dies_around(a, connection.connect, end))
        {
            let text = "the broker closed instead of answering CONNECT".to_owned();
            violations.push(Violation::new("I16", &connection.client, text, &[connection.connect]));
        }
    }
    for message in a.messages.iter().filter(|m| !m.is_will && !m.is_abandoned && m.done.is_none()) {
        let name = short(&message.publish.payload);
        let text = format!("\"{name}\", id {}, never got its last acknowledgement", message.publish.id);
        let violation = Violation::new("I16", &message.client, text, &message.sends);
        violations.push(violation.of_topic(&message.publish.topic));
    }
    for (at, event) in a.events.iter().enumerate() {
        if let What::Died(text) = &event.what {
            violations.push(Violation::new("I16", &"broker".into(), text.clone(), &[at]));
        }
    }
    violations
}

/// Whether the broker died between CONNECT and what the client saw of it, or just before.
fn dies_around(a: &Analysis<'_>, connect: usize, end: usize) -> bool {
    let alive_since = a.starts.iter().rfind(|start| **start < connect).copied().unwrap_or(0);
    a.kills.iter().any(|kill| alive_since < *kill && *kill < end)
}
