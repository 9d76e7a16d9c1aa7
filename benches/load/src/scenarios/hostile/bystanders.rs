//! Clients that have nothing to do with the load, on a thread of their own, and what they wait: a
//! pair that talks, an idle client that pings, and new ones that connect.
//!
//! A wait runs from the moment at which something was meant to be sent. In each of these moments a
//! packet also goes to an *echo*, a thread of this program that sends back what it gets: what that
//! takes is the generator's own lateness and the machine's. It is reported beside the waits, and
//! subtracted from each wait of the same moment.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clients::{GLANCE, Spec, bring_up};
use crate::error::{Error, Result, fault};
use crate::mqtt::{self, Packet, Wishes};
use crate::net::{Event, Id, Link, Net, expect_packet};

/// The pair's topic.
const TOPIC: &str = "quiet/hostile";
/// A message of the pair and an echo in each of these.
const INTERVAL: Duration = Duration::from_millis(5);
/// A ping, and a new client, each so many intervals.
const PINGS: usize = 4;
const CONNECTS: usize = 10;
/// How long to wait for what is still on its way at the end; then its age is its wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pair,
    Ping,
    Connect,
}

/// What the bystanders have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) pair: Waits,
    pub(super) ping: Waits,
    pub(super) connect: Waits,
    /// Of the echo.
    pub(super) lateness: Vec<u64>,
}

/// Nanoseconds; the second list is the first without the lateness of the same moment.
#[derive(Debug, Default)]
pub(super) struct Waits {
    pub(super) raw: Vec<u64>,
    pub(super) net: Vec<u64>,
    /// That had not ended at the end.
    pub(super) unanswered: usize,
}

/// See the module's documentation.
pub(super) struct Bystanders {
    switches: Arc<Switches>,
    thread: JoinHandle<Result<Seen>>,
}

#[derive(Default)]
struct Switches {
    is_counting: AtomicBool,
    is_over: AtomicBool,
}

impl Bystanders {
    /// Brings them up. The pair's receiver subscribes to `also` as well, if there is one: it is not
    /// quite uninvolved then.
    pub(super) fn start(link: &Link, also: Option<&str>) -> Result<Self> {
        let switches = Arc::new(Switches::default());
        let theirs = Arc::clone(&switches);
        let (link, also) = (link.clone(), also.map(str::to_owned));
        let (up, is_up) = channel();
        let thread = std::thread::spawn(move || watch(link, also, &theirs, &up));
        let bystanders = Self { switches, thread };
        if is_up.recv().is_err() {
            return bystanders.join().and_then(|_| fault("the bystanders ended before they began"));
        }
        Ok(bystanders)
    }

    /// Measures from here on.
    pub(super) fn count(&self) {
        self.switches.is_counting.store(true, Ordering::Relaxed);
    }

    /// Stops, and waits for what is on its way.
    pub(super) fn finish(self) -> Result<Seen> {
        self.switches.is_over.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(self) -> Result<Seen> {
        self.thread.join().map_err(|_| Error("the bystanders' thread panicked".to_owned()))?
    }
}

/// Moments by their number, and what is on its way.
struct Watch {
    start: Instant,
    is_counted: Vec<bool>,
    /// How late the echo was, when it came.
    echoes: Vec<Option<u64>>,
    waits: Vec<(Kind, usize, u64)>,
    echo_at: usize,
    pair_at: usize,
    lost: usize,
    pings: VecDeque<usize>,
    connecting: HashMap<Id, usize>,
}

impl Watch {
    fn intended(&self, moment: usize) -> Duration {
        INTERVAL * moment as u32
    }

    fn age(&self, moment: usize) -> u64 {
        self.start.elapsed().saturating_sub(self.intended(moment)).as_nanos() as u64
    }

    fn note(&mut self, kind: Kind, moment: usize) {
        self.waits.push((kind, moment, self.age(moment)));
    }

    fn is_settled(&self) -> bool {
        let sent = self.is_counted.len();
        self.echo_at == sent && self.pair_at == sent && self.pings.is_empty() && self.connecting.is_empty()
    }

    fn seen(mut self) -> Seen {
        let mut seen = Seen::default();
        let mut unanswered: Vec<(Kind, usize)> =
            (self.pair_at..self.is_counted.len()).map(|moment| (Kind::Pair, moment)).collect();
        unanswered.extend(self.pings.iter().map(|moment| (Kind::Ping, *moment)));
        unanswered.extend(self.connecting.values().map(|moment| (Kind::Connect, *moment)));
        let answered = self.waits.len();
        for (kind, moment) in unanswered {
            self.note(kind, moment);
        }
        for (index, (kind, moment, wait)) in self.waits.iter().enumerate() {
            if !self.is_counted[*moment] {
                continue;
            }
            let waits = match kind {
                Kind::Pair => &mut seen.pair,
                Kind::Ping => &mut seen.ping,
                Kind::Connect => &mut seen.connect,
            };
            waits.raw.push(*wait);
            waits.net.push(wait.saturating_sub(self.echoes[*moment].unwrap_or(0)));
            waits.unanswered += usize::from(index >= answered);
        }
        let counted = self.echoes.iter().zip(&self.is_counted).filter(|(_, is_counted)| **is_counted);
        seen.pair.unanswered += self.lost;
        seen.lateness = counted.filter_map(|(echo, _)| *echo).collect();
        seen
    }
}

fn watch(link: Link, also: Option<String>, switches: &Switches, up: &Sender<()>) -> Result<Seen> {
    let mut net = Net::new(link)?;
    let filters = std::iter::once(TOPIC.to_owned()).chain(also).collect();
    let specs = [
        Spec::clean("hostile-quiet-sub".to_owned(), filters, 0),
        Spec::clean("hostile-quiet-pub".to_owned(), Vec::new(), 0),
        Spec::clean("hostile-quiet-ping".to_owned(), Vec::new(), 0),
    ];
    let ids = bring_up(&mut net, &specs)?;
    let &[subscriber, publisher, pinger] = ids.as_slice() else { return fault("three clients") };
    let echo = net.open_to(start_echo()?)?;
    // Whoever started this is not there any more only if the run is over.
    let _ = up.send(());
    let mut watch = Watch {
        start: Instant::now(),
        is_counted: Vec::new(),
        echoes: Vec::new(),
        waits: Vec::new(),
        echo_at: 0,
        pair_at: 0,
        lost: 0,
        pings: VecDeque::new(),
        connecting: HashMap::new(),
    };
    let mut over_since = None;
    loop {
        if switches.is_over.load(Ordering::Relaxed) {
            let since = *over_since.get_or_insert_with(Instant::now);
            if watch.is_settled() || since.elapsed() > PATIENCE {
                return Ok(watch.seen());
            }
        }
        while over_since.is_none() && watch.start.elapsed() >= watch.intended(watch.is_counted.len()) {
            let moment = watch.is_counted.len();
            watch.is_counted.push(switches.is_counting.load(Ordering::Relaxed));
            watch.echoes.push(None);
            mqtt::publish(net.out(publisher), TOPIC, 0, false, 0, &(moment as u64).to_be_bytes());
            // To whoever reads it here it is an acknowledgement.
            net.out(echo).bytes.extend_from_slice(&[0x40, 2, 0, 1]);
            if moment % PINGS == 0 {
                watch.pings.push_back(moment);
                mqtt::ping(net.out(pinger));
            }
            if moment % CONNECTS == 0 {
                let id = net.open()?;
                let wishes = Wishes { clean_start: true, ..Wishes::default() };
                mqtt::connect_v5(net.out(id), &format!("hostile-new-{moment}"), wishes);
                watch.connecting.insert(id, moment);
            }
        }
        if over_since.is_none() {
            net.wake_at(watch.start + watch.intended(watch.is_counted.len()))?;
        }
        net.turn(GLANCE, |net, id, event| {
            if matches!(event, Event::Closed) && ![subscriber, publisher, pinger, echo].contains(&id) {
                return match watch.connecting.remove(&id) {
                    Some(_) => fault("a new client was not let in"),
                    None => Ok(()),
                };
            }
            match expect_packet(id, event)? {
                Packet::Publish(publish) if id == subscriber && publish.topic == TOPIC.as_bytes() => {
                    let told: [u8; 8] = publish.payload.try_into().unwrap_or_default();
                    let moment = u64::from_be_bytes(told) as usize;
                    if moment < watch.pair_at || moment >= watch.is_counted.len() {
                        return fault("the pair's messages came out of order");
                    }
                    // Those that were passed over never come.
                    watch.lost += moment - watch.pair_at;
                    watch.note(Kind::Pair, moment);
                    watch.pair_at = moment + 1;
                }
                Packet::Puback(_) if id == echo => {
                    watch.echoes[watch.echo_at] = Some(watch.age(watch.echo_at));
                    watch.echo_at += 1;
                }
                Packet::Pingresp => {
                    if let Some(moment) = watch.pings.pop_front() {
                        watch.note(Kind::Ping, moment);
                    }
                }
                Packet::Connack { code: 0, .. } => {
                    if let Some(moment) = watch.connecting.remove(&id) {
                        watch.note(Kind::Connect, moment);
                    }
                    mqtt::disconnect(net.out(id));
                }
                // What the pair's receiver hears of the others.
                Packet::Publish(_) => {}
                other => return fault(format!("{other:?} for a bystander")),
            }
            Ok(())
        })?;
    }
}

/// Sends back what it gets from one client, until that goes.
fn start_echo() -> Result<SocketAddrV4> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let SocketAddr::V4(address) = listener.local_addr()? else { return fault("IPv4 was asked for") };
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        // Without it two small packets in a row would wait for each other.
        let _ = stream.set_nodelay(true);
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
    Ok(address)
}
