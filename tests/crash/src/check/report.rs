//! Violations as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Violation;
use crate::history::{Event, What};
use crate::mqtt::Packet;

/// Lines of history shown for one violation.
const LINES_MAX: usize = 60;
/// Events of the same clients shown around each event that matters.
const AROUND: usize = 6;

/// How many violations of each invariant, as text.
pub fn counts(violations: &[Violation]) -> String {
    let mut counts: BTreeMap<u32, (&str, usize)> = BTreeMap::new();
    for violation in violations {
        let number = violation.invariant.trim_start_matches('I').parse().unwrap_or(0);
        counts.entry(number).or_insert((violation.invariant, 0)).1 += 1;
    }
    let counts: Vec<String> = counts.values().map(|(name, count)| format!("{name}: {count}")).collect();
    counts.join(", ")
}

/// A violation with the part of the history that shows it: what happened to the topic at the clients concerned.
pub fn explain(violation: &Violation, events: &[Event]) -> String {
    let topic = violation.topic.as_deref().unwrap_or("-");
    let mut text =
        format!("{} at {}, topic {topic}: {}\n", violation.invariant, violation.client, violation.text);
    let mut clients: Vec<&str> = vec![&violation.client];
    let concerned = violation.at.iter().filter_map(|at| events.get(*at)?.what.client());
    clients.extend(concerned.map(|(client, _)| &**client));
    let is_shown = |event: &Event| match event.what.client() {
        Some((client, _)) => {
            clients.contains(&&**client) && is_about(&event.what, violation.topic.as_deref())
        }
        None => true,
    };
    let shown: Vec<usize> = (0..events.len()).filter(|at| is_shown(&events[*at])).collect();
    let mut last = None;
    let mut lines = 0;
    for (place, at) in shown.iter().enumerate() {
        let near = &shown[place.saturating_sub(AROUND)..shown.len().min(place + AROUND + 1)];
        let is_near = violation.at.iter().any(|wanted| near.contains(wanted));
        if !is_near || lines >= LINES_MAX {
            continue;
        }
        if last.is_some_and(|last| last + 1 != place) {
            text.push_str("        ...\n");
        }
        let mark = if violation.at.contains(at) { '*' } else { ' ' };
        let _ = writeln!(text, "    {mark} [{at}] {}", events[*at]);
        last = Some(place);
        lines += 1;
    }
    text
}

/// Acknowledgements are shown always: they say with their id alone to which topic they belong.
fn is_about(what: &What, topic: Option<&str>) -> bool {
    match (what, topic) {
        (
            What::Sent(_, _, Packet::Publish(publish)) | What::Received(_, _, Packet::Publish(publish)),
            Some(topic),
        ) => *publish.topic == *topic,
        _ => true,
    }
}
