//! The network between the two ends: late, and cut at any byte. And the random numbers that decide when.

use std::collections::VecDeque;

/// A small generator (xorshift64*): one seed, one history.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// How long bytes are on their way.
const LATENCY_MS: u64 = 40;

/// One direction.
#[derive(Default)]
struct Pipe(VecDeque<(u64, Vec<u8>)>);

impl Pipe {
    fn receive(&mut self, now: u64) -> Vec<u8> {
        let arrived = self.0.iter().take_while(|(at, _)| *at <= now).count();
        self.0.drain(..arrived).flat_map(|(_, bytes)| bytes).collect()
    }

    /// The bytes on their way that still arrive when the connection is cut.
    fn cut(&mut self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.0.drain(..).flat_map(|(_, bytes)| bytes).collect();
        bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
        bytes
    }
}

/// Which end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

/// A connection between the ends.
#[derive(Default)]
pub(super) struct Connection {
    to_client: Pipe,
    to_server: Pipe,
    /// Bytes vanish, and neither end is told.
    pub(super) stalled: bool,
    /// The server has taken a CONNECT from it.
    pub(super) attached: bool,
}

impl Connection {
    pub(super) fn send(&mut self, to: End, now: u64, bytes: Vec<u8>) {
        if !self.stalled && !bytes.is_empty() {
            self.pipe(to).0.push_back((now + LATENCY_MS, bytes));
        }
    }

    pub(super) fn receive(&mut self, at: End, now: u64) -> Vec<u8> {
        self.pipe(at).receive(now)
    }

    pub(super) fn cut(&mut self, at: End, rng: &mut Rng) -> Vec<u8> {
        self.pipe(at).cut(rng)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.to_client.0.is_empty() && self.to_server.0.is_empty()
    }

    fn pipe(&mut self, to: End) -> &mut Pipe {
        match to {
            End::Client => &mut self.to_client,
            End::Server => &mut self.to_server,
        }
    }
}
