//! Bringing clients up: connect, CONNECT, CONNACK, SUBSCRIBE, SUBACK, a bounded number of them at a time.
//!
//! Each step waits for the answer to the one before, as client libraries do.

use std::time::{Duration, Instant};

use crate::error::{Error, Result, fault};
use crate::mqtt::{self, Packet};
use crate::net::{Id, Net, expect_packet};
use crate::relay::HELLO_BYTES;

/// How long nothing at all may happen before the run is given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often that is looked at.
pub const GLANCE: Duration = Duration::from_millis(100);
/// Clients on their way at the same time.
const ON_THE_WAY: usize = 64;
const FILTERS_PER_PACKET: usize = 100;

/// A client to bring up.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Client identifier.
    pub client_id: String,
    /// False keeps the session.
    pub clean_session: bool,
    /// What it subscribes to, if anything.
    pub filters: Vec<String>,
    /// The QoS it asks for.
    pub qos: u8,
    /// What to send to the relay in place of CONNECT.
    pub hello: Option<[u8; HELLO_BYTES]>,
}

impl Spec {
    /// A client with a clean session.
    pub fn clean(client_id: String, filters: Vec<String>, qos: u8) -> Self {
        Self { client_id, clean_session: true, filters, qos, hello: None }
    }
}

/// Gives up when a number does not change for too long.
#[derive(Debug)]
pub struct Watch {
    last: u64,
    since: Instant,
}

impl Watch {
    /// The time starts now.
    pub fn new() -> Self {
        Self { last: u64::MAX, since: Instant::now() }
    }

    /// Whether `progress` has stood still for too long.
    pub fn is_stuck(&mut self, progress: u64) -> bool {
        if progress != self.last {
            self.last = progress;
            self.since = Instant::now();
        }
        self.since.elapsed() > PATIENCE
    }
}

struct Coming {
    place: usize,
    subscribed: usize,
}

/// Brings all of `specs` up; the connections come back in the same order.
///
/// # Errors
/// A refused CONNECT or SUBSCRIBE, a closed connection, or silence.
pub fn bring_up(net: &mut Net, specs: &[Spec]) -> Result<Vec<Id>> {
    let mut ids = vec![usize::MAX; specs.len()];
    let mut coming: Vec<Option<Coming>> = Vec::new();
    let (mut started, mut done, mut steps) = (0, 0, 0u64);
    let mut watch = Watch::new();
    while done < specs.len() {
        while started < specs.len() && started - done < ON_THE_WAY {
            let id = net.open()?;
            let spec = &specs[started];
            match &spec.hello {
                None => mqtt::connect(net.out(id), &spec.client_id, spec.clean_session),
                Some(hello) => net.out(id).bytes.extend_from_slice(hello),
            }
            if coming.len() <= id {
                coming.resize_with(id + 1, || None);
            }
            coming[id] = Some(Coming { place: started, subscribed: 0 });
            ids[started] = id;
            started += 1;
        }
        net.turn(GLANCE, |net, id, event| {
            let packet = expect_packet(id, event)?;
            let Some(client) = coming.get_mut(id).and_then(Option::as_mut) else {
                return fault(format!("{packet:?} for a client that waits for nothing"));
            };
            match packet {
                Packet::Connack { code: 0, .. } | Packet::Suback(true) => {}
                other => return fault(format!("{} got {other:?}", specs[client.place].client_id)),
            }
            steps += 1;
            let spec = &specs[client.place];
            let rest = &spec.filters[client.subscribed..];
            if rest.is_empty() {
                coming[id] = None;
                done += 1;
                return Ok(());
            }
            let part = &rest[..rest.len().min(FILTERS_PER_PACKET)];
            client.subscribed += part.len();
            mqtt::subscribe(net.out(id), 1, part, spec.qos);
            Ok(())
        })?;
        if watch.is_stuck(steps) {
            return fault(format!("no answer: {done} of {} clients are up", specs.len()));
        }
    }
    Ok(ids)
}

/// DISCONNECT on each of `ids`, and waits until the broker has closed them.
///
/// # Errors
/// Silence.
pub fn take_down(net: &mut Net, ids: &[Id]) -> Result<()> {
    for id in ids {
        mqtt::disconnect(net.out(*id));
    }
    let ids: std::collections::HashSet<Id> = ids.iter().copied().collect();
    let mut left = ids.len() as u64;
    let mut watch = Watch::new();
    while left > 0 {
        net.turn(GLANCE, |_, id, event| {
            if matches!(event, crate::net::Event::Closed) && ids.contains(&id) {
                left -= 1;
            }
            Ok(())
        })?;
        if watch.is_stuck(left) {
            return Err(Error(format!("{left} connections stay open after DISCONNECT")));
        }
    }
    Ok(())
}
