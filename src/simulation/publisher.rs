//! A publisher with a persistent session: what was not acknowledged it sends again, with the same ids.

use std::collections::BTreeMap;

use super::account::{Account, Register, Uid, text_of};
use super::broker::Dead;
use super::receiver::Receiver;
use super::support::server_packet::ServerPacket;
use super::support::wire::{self, Connect};
use super::wire_client::Wire;
use super::world::{Known, Life, receivers_of};
use crate::storage::simulated::Random;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Sent,
    /// PUBREC came, and counts as never received.
    Ignored,
    Received,
    Released,
}

struct Flight {
    id: u16,
    uid: Uid,
    topic: String,
    qos: u8,
    payload: Vec<u8>,
    /// Its place among the values of its topic, if it is retained.
    value: Option<usize>,
    stage: Stage,
}

/// See the module's documentation.
pub(super) struct Publisher {
    name: &'static str,
    session: Known,
    flights: Vec<Flight>,
    numbers: u64,
    wire: Option<Wire>,
}

type Retained = BTreeMap<String, Register>;

impl Publisher {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, session: Known::No, flights: Vec::new(), numbers: 0, wire: None }
    }

    pub(super) fn dies(&mut self) {
        self.wire = None;
    }

    fn connect(&mut self, life: &Life, account: &mut Account, receivers: &[Receiver]) -> Result<(), Dead> {
        account.note(format!("{} connects", self.name));
        let known = self.session;
        if known == Known::No {
            self.session = Known::Maybe;
        }
        let (mut wire, present) = life.open(&Connect::persistent(self.name))?;
        match (known, present) {
            (Known::Yes, false) => account.fail(&format!("the session of {} is lost", self.name)),
            (Known::No, true) => account.fail(&format!("{} has a session and should not", self.name)),
            _ => {}
        }
        self.session = Known::Yes;
        if !present {
            self.flights.clear();
        }
        for flight in &mut self.flights {
            match flight.stage {
                Stage::Sent | Stage::Ignored => {
                    account.note(format!("{} > {:?} id {} again", self.name, flight.uid, flight.id));
                    account.sent_again(&flight.uid, receivers_of(receivers, &flight.topic).1);
                    flight.stage = Stage::Sent;
                    let flags = 8 | flight.qos << 1 | u8::from(flight.value.is_some());
                    wire.send(&wire::raw_publish(flags, &flight.topic, Some(flight.id), &flight.payload))?;
                }
                Stage::Received | Stage::Released => {
                    account.note(format!("{} > PUBREL {} again", self.name, flight.id));
                    flight.stage = Stage::Released;
                    wire.send(&wire::pubrel(flight.id))?;
                }
            }
        }
        self.wire = Some(wire);
        Ok(())
    }

    /// Sends some messages one behind the other, and waits for what they are answered with. `true`: the disk was needed for it.
    pub(super) fn publish(
        &mut self,
        life: &Life,
        account: &mut Account,
        retained: &mut Retained,
        receivers: &[Receiver],
        random: &mut Random,
    ) -> Result<bool, Dead> {
        if self.wire.is_none() {
            self.connect(life, account, receivers)?;
        }
        let mut durable = false;
        for _ in 0..1 + random.below(5) {
            let (topic, qos) = match random.below(5) {
                0 | 1 => (format!("one/{}", self.name), 1 + (random.below(4) == 0) as u8),
                2 | 3 => (format!("two/{}", self.name), 2),
                _ => (format!("ret/{}", self.name), random.below(3) as u8),
            };
            durable |= self.send(account, retained, receivers, random, topic, qos)?;
        }
        // It may leave some of it for later, or lose a PUBREC and then the connection.
        match random.below(6) {
            0 => {
                self.answers(account, retained, true)?;
                account.note(format!("{} has lost its PUBRECs and is gone", self.name));
                self.wire = None;
            }
            1 => self.receive(account, retained, false)?,
            _ => self.finish(account, retained)?,
        }
        Ok(durable)
    }

    fn send(
        &mut self,
        account: &mut Account,
        retained: &mut Retained,
        receivers: &[Receiver],
        random: &mut Random,
        topic: String,
        qos: u8,
    ) -> Result<bool, Dead> {
        self.numbers += 1;
        let uid = (self.name.to_owned(), self.numbers);
        let is_retained = topic.starts_with("ret/");
        let mut payload = Vec::new();
        if !is_retained || random.below(4) > 0 {
            payload.extend(text_of(&uid).bytes());
            // At times more than a segment holds.
            let padding = if random.below(12) == 0 { 1_500 + random.below(3_000) } else { random.below(120) };
            payload.resize(payload.len() + padding, b'.');
        }
        let value = is_retained.then(|| retained.entry(topic.clone()).or_default().sent(&payload));
        let id = (1..).find(|id| self.flights.iter().all(|flight| flight.id != *id)).unwrap_or(1);
        account.note(format!("{} > {uid:?} {topic} q{qos} id {id} ({} bytes)", self.name, payload.len()));
        let (must, may) = receivers_of(receivers, &topic);
        let durable = !must.is_empty() && qos > 0;
        account.sent(&uid, &topic, qos, &payload, must, may);
        let flags = qos << 1 | u8::from(is_retained);
        let bytes = wire::raw_publish(flags, &topic, (qos > 0).then_some(id), &payload);
        if qos > 0 {
            self.flights.push(Flight { id, uid, topic, qos, payload, value, stage: Stage::Sent });
        }
        self.wire.as_mut().map_or(Err(Dead), |wire| wire.send(&bytes))?;
        Ok(durable)
    }

    /// Everything is taken to its end.
    pub(super) fn finish(&mut self, account: &mut Account, retained: &mut Retained) -> Result<(), Dead> {
        if self.wire.is_none() { Ok(()) } else { self.receive(account, retained, true) }
    }

    /// Waits until everything is received, and (`release`) until everything is over.
    fn receive(&mut self, account: &mut Account, retained: &mut Retained, release: bool) -> Result<(), Dead> {
        self.answers(account, retained, false)?;
        if !release {
            return Ok(());
        }
        let Some(wire) = &mut self.wire else { return Err(Dead) };
        for flight in self.flights.iter_mut().filter(|flight| flight.stage == Stage::Received) {
            flight.stage = Stage::Released;
            wire.send(&wire::pubrel(flight.id))?;
        }
        self.answers(account, retained, false)
    }

    /// Takes answers until none is due.
    fn answers(&mut self, account: &mut Account, retained: &mut Retained, ignore: bool) -> Result<(), Dead> {
        while self.flights.iter().any(|flight| matches!(flight.stage, Stage::Sent | Stage::Released)) {
            let Some(wire) = &mut self.wire else { return Err(Dead) };
            let packet = wire.expect()?;
            account.note(format!("  {} < {packet:?}", self.name));
            let mut acked = |flight: &Flight| {
                account.acked(&flight.uid);
                if let Some(value) = flight.value {
                    retained.entry(flight.topic.clone()).or_default().acked(value);
                }
            };
            match packet {
                ServerPacket::PubAck(id) => {
                    let flight = due(&mut self.flights, 1, Stage::Sent).filter(|flight| flight.id == id);
                    acked(flight.unwrap_or_else(|| panic!("PUBACK {id} out of order")));
                    self.flights.retain(|flight| flight.id != id);
                }
                ServerPacket::PubRec(id) => {
                    let flight = due(&mut self.flights, 2, Stage::Sent).filter(|flight| flight.id == id);
                    let flight = flight.unwrap_or_else(|| panic!("PUBREC {id} out of order"));
                    if ignore {
                        flight.stage = Stage::Ignored;
                    } else {
                        flight.stage = Stage::Received;
                        acked(flight);
                    }
                }
                ServerPacket::PubComp(id) => {
                    let released =
                        due(&mut self.flights, 2, Stage::Released).filter(|flight| flight.id == id);
                    assert!(released.is_some(), "PUBCOMP {id} out of order");
                    self.flights.retain(|flight| flight.id != id);
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
        Ok(())
    }

    pub(super) fn leave(&mut self, account: &mut Account, politely: bool) -> Result<(), Dead> {
        let Some(wire) = self.wire.take() else { return Ok(()) };
        account.note(format!("{} leaves, politely: {politely}", self.name));
        if politely { wire.leave(&wire::DISCONNECT) } else { Ok(()) }
    }
}

/// What is to be answered next: in the order of what is answered ([MQTT-4.6.0-2], [MQTT-4.6.0-3]).
fn due(flights: &mut [Flight], qos: u8, stage: Stage) -> Option<&mut Flight> {
    flights.iter_mut().find(|flight| flight.qos == qos && flight.stage == stage)
}
