//! What a case works with: connections, what has come on them, and when to begin.

use std::time::{Duration, Instant};

use super::bystanders::{Bystanders, Seen};
use crate::clients::{Spec, bring_up};
use crate::error::{Error, Result, fault};
use crate::mqtt::{self, Packet, Wishes};
use crate::net::{Event, Id, Net};
use crate::probe::Process;
use crate::report::Span;

/// How long preparing may take for each step.
const PATIENCE: Duration = Duration::from_secs(120);
const GLANCE: Duration = Duration::from_millis(20);
/// Publishes at QoS 1 that wait for their acknowledgement; all brokers allow as many.
const WINDOW: u64 = 20;
/// Clients on their way at the same time.
const ON_THE_WAY: usize = 64;

/// What a connection has got.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Got {
    pub(super) connacks: u64,
    pub(super) publishes: u64,
    pub(super) pubacks: u64,
    /// SUBACK and UNSUBACK.
    pub(super) subacks: u64,
    pub(super) is_closed: bool,
}

/// See the module's documentation.
pub(super) struct Stage {
    pub(super) net: Net,
    broker: Process,
    bystanders: Bystanders,
    span: Option<Span>,
    got: Vec<Got>,
}

impl Stage {
    pub(super) fn new(net: Net, broker: Process, bystanders: Bystanders) -> Self {
        Self { net, broker, bystanders, span: None, got: Vec::new() }
    }

    /// Everything is prepared: from here on it is measured.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.bystanders.count();
        self.span = Some(Span::begin(self.broker)?);
        Ok(())
    }

    /// The clocks that run since then.
    pub(super) fn begun(&self) -> Result<Span> {
        self.span.ok_or_else(|| Error("the case has not begun".to_owned()))
    }

    pub(super) fn finish(self) -> Result<(Seen, Span)> {
        let span = self.begun()?;
        Ok((self.bystanders.finish()?, span))
    }

    pub(super) fn got(&self, id: Id) -> Got {
        self.got.get(id).copied().unwrap_or_default()
    }

    /// Clients with clean sessions that subscribe at QoS 0, 100 filters in a packet.
    pub(super) fn subscribers(&mut self, filters: Vec<Vec<String>>, qos: u8, name: &str) -> Result<Vec<Id>> {
        let spec =
            |(n, filters): (usize, Vec<String>)| Spec::clean(format!("hostile-{name}-{n}"), filters, qos);
        let specs: Vec<Spec> = filters.into_iter().enumerate().map(spec).collect();
        let ids = bring_up(&mut self.net, &specs)?;
        ids.iter().for_each(|id| self.forget(*id));
        Ok(ids)
    }

    /// One client, connected.
    pub(super) fn client(&mut self, name: &str, wishes: Wishes) -> Result<Id> {
        Ok(self.clients(name, 1, wishes, None)?.remove(0))
    }

    /// Clients that wish the same, each with a subscription at QoS 1 if there is a filter.
    pub(super) fn clients(
        &mut self,
        name: &str,
        count: usize,
        wishes: Wishes,
        filter: Option<&str>,
    ) -> Result<Vec<Id>> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let batch = (count - ids.len()).min(ON_THE_WAY);
            let first = ids.len();
            for n in first..first + batch {
                let id = self.net.open()?;
                self.forget(id);
                mqtt::connect_v5(self.net.out(id), &format!("hostile-{name}-{n}"), wishes);
                if let Some(filter) = filter {
                    mqtt::subscribe(self.net.out(id), 1, &[filter.replace("{}", &n.to_string())], 1);
                }
                ids.push(id);
            }
            self.until(|stage| {
                ids[first..].iter().all(|id| {
                    let got = stage.got(*id);
                    got.connacks == 1 && got.subacks == u64::from(filter.is_some())
                })
            })?;
        }
        Ok(ids)
    }

    /// Publishes at QoS 1, as fast as the acknowledgements come.
    pub(super) fn publish_all(
        &mut self,
        id: Id,
        count: u64,
        mut write: impl FnMut(&mut mqtt::Output, u16, u64),
    ) -> Result<()> {
        let before = self.got(id).pubacks;
        let mut sent = 0;
        while sent < count {
            while sent < count && sent - (self.got(id).pubacks - before) < WINDOW {
                write(self.net.out(id), 1 + (sent % 60_000) as u16, sent);
                sent += 1;
            }
            let now = self.got(id).pubacks;
            self.until(|stage| stage.got(id).pubacks > now)?;
        }
        self.until(|stage| stage.got(id).pubacks - before >= count)
    }

    /// Lets things happen until it is so.
    ///
    /// # Errors
    /// It takes too long.
    pub(super) fn until(&mut self, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        if self.within(PATIENCE, is_so)? { Ok(()) } else { fault("what was waited for does not happen") }
    }

    /// The same; false if it takes longer than `patience`.
    pub(super) fn within(&mut self, patience: Duration, is_so: impl Fn(&Self) -> bool) -> Result<bool> {
        let begun = Instant::now();
        while !is_so(self) {
            if begun.elapsed() > patience {
                return Ok(false);
            }
            self.turn(GLANCE)?;
        }
        Ok(true)
    }

    /// Lets things happen for so long.
    pub(super) fn pass(&mut self, time: Duration) -> Result<()> {
        self.within(time, |_| false).map(drop)
    }

    /// Closes without a word.
    pub(super) fn close(&mut self, id: Id) {
        self.net.close(id);
        self.forget(id);
    }

    fn forget(&mut self, id: Id) {
        if let Some(got) = self.got.get_mut(id) {
            *got = Got::default();
        }
    }

    fn turn(&mut self, patience: Duration) -> Result<()> {
        let Self { net, got, .. } = self;
        net.turn(patience, |_, id, event| {
            if got.len() <= id {
                got.resize(id + 1, Got::default());
            }
            let got = &mut got[id];
            match event {
                Event::Packet(Packet::Connack { code: 0, .. }) => got.connacks += 1,
                Event::Packet(Packet::Publish(_)) => got.publishes += 1,
                Event::Packet(Packet::Puback(_)) => got.pubacks += 1,
                Event::Packet(Packet::Suback(_) | Packet::Unsuback) => got.subacks += 1,
                Event::Closed => got.is_closed = true,
                Event::Packet(other) => return fault(format!("{other:?} for a hostile client")),
            }
            Ok(())
        })
    }
}
