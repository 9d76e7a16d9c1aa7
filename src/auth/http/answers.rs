//! Answers that are remembered for a while, and questions under way, so that each is asked once.
//!
//! Of a question there is only its keyed hash. Answers have a bound; when it is reached, those that end soonest go. Refusals end
//! sooner than permissions, so that a flood of wrong passwords puts out its own entries first. Questions under way have a bound,
//! too; there is no bound on who waits for one, other than that of connections.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::HttpAnswer;
use crate::config::HttpConfig;

/// The keyed hash of a question.
pub(super) type Digest = [u8; 32];

/// What waits for an answer; `None` until it is there.
pub(super) type Receiver = watch::Receiver<Option<HttpAnswer>>;

/// See the module's documentation.
pub(super) struct Answers {
    cache_time: Duration,
    cache_time_denied: Duration,
    entries_max: usize,
    under_way_max: usize,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    known: HashMap<Digest, (HttpAnswer, Instant)>,
    /// When each entry of `known` ends.
    ends: BTreeSet<(Instant, Digest)>,
    under_way: HashMap<Digest, Receiver>,
}

/// What is known of a question.
pub(super) enum Lookup {
    /// The answer.
    Known(HttpAnswer),
    /// It is being asked.
    Wait(Receiver),
    /// The caller asks, and waits like others.
    Ask(Asking, Receiver),
    /// There are too many questions.
    Full,
}

/// The duty to ask. Dropped without an answer it lets those who wait know that there will be none.
pub(super) struct Asking {
    answers: Arc<Answers>,
    digest: Digest,
    sender: watch::Sender<Option<HttpAnswer>>,
}

impl Answers {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Answers {
            cache_time: config.cache_time,
            cache_time_denied: config.cache_time_denied,
            entries_max: config.cache_entries_max,
            under_way_max: config.requests_max.saturating_add(config.waiting_max),
            tables: Mutex::default(),
        }
    }

    pub(super) fn look_up(self: &Arc<Self>, digest: Digest, now: Instant) -> Lookup {
        let mut tables = self.tables.lock();
        if let Some((answer, end)) = tables.known.get(&digest)
            && *end > now
        {
            return Lookup::Known(answer.clone());
        }
        if let Some(receiver) = tables.under_way.get(&digest) {
            return Lookup::Wait(receiver.clone());
        }
        if tables.under_way.len() >= self.under_way_max {
            return Lookup::Full;
        }
        let (sender, receiver) = watch::channel(None);
        tables.under_way.insert(digest, receiver.clone());
        Lookup::Ask(Asking { answers: Arc::clone(self), digest, sender }, receiver)
    }

    fn remember(&self, tables: &mut Tables, digest: Digest, answer: &HttpAnswer, now: Instant) {
        let time = match answer {
            HttpAnswer::Allowed => self.cache_time,
            HttpAnswer::Denied => self.cache_time_denied,
            // The server may be back with the next question.
            HttpAnswer::Unavailable(_) => Duration::ZERO,
        };
        tables.forget(digest);
        if time.is_zero() || self.entries_max == 0 {
            return;
        }
        while tables.known.len() >= self.entries_max {
            let Some((_, oldest)) = tables.ends.first().copied() else { break };
            tables.forget(oldest);
        }
        let end = now + time;
        tables.known.insert(digest, (answer.clone(), end));
        tables.ends.insert((end, digest));
    }
}

impl Tables {
    fn forget(&mut self, digest: Digest) {
        if let Some((_, end)) = self.known.remove(&digest) {
            self.ends.remove(&(end, digest));
        }
    }
}

impl Asking {
    /// Gives the answer to all who wait for it, and back.
    pub(super) fn finish(self, answer: HttpAnswer, now: Instant) -> HttpAnswer {
        self.answers.remember(&mut self.answers.tables.lock(), self.digest, &answer, now);
        self.sender.send_replace(Some(answer.clone()));
        answer
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.answers.tables.lock().under_way.remove(&self.digest);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Unavailable;
    use super::*;

    fn answers(entries_max: usize) -> Arc<Answers> {
        Arc::new(Answers::new(&HttpConfig {
            cache_entries_max: entries_max,
            requests_max: 2,
            waiting_max: 1,
            ..HttpConfig::default()
        }))
    }

    fn learn(answers: &Arc<Answers>, n: u8, answer: HttpAnswer, now: Instant) {
        let Lookup::Ask(asking, _) = answers.look_up([n; 32], now) else { panic!("{n} is known") };
        asking.finish(answer, now);
    }

    fn known(answers: &Arc<Answers>, n: u8, now: Instant) -> Option<HttpAnswer> {
        match answers.look_up([n; 32], now) {
            Lookup::Known(answer) => Some(answer),
            _ => None,
        }
    }

    #[test]
    fn answers_end_at_their_time() {
        let answers = answers(10);
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        learn(&answers, 1, HttpAnswer::Allowed, start);
        learn(&answers, 2, HttpAnswer::Denied, start);
        learn(&answers, 3, HttpAnswer::Unavailable(Unavailable::TimedOut), start);
        assert_eq!(known(&answers, 1, start), Some(HttpAnswer::Allowed));
        assert_eq!(known(&answers, 3, start), None);
        assert_eq!(known(&answers, 2, after(4_999)), Some(HttpAnswer::Denied));
        assert_eq!(known(&answers, 2, after(5_000)), None);
        assert_eq!(known(&answers, 1, after(59_999)), Some(HttpAnswer::Allowed));
        assert_eq!(known(&answers, 1, after(60_000)), None);
        // A second answer to a question takes the place of the first.
        learn(&answers, 1, HttpAnswer::Denied, after(60_000));
        assert_eq!(known(&answers, 1, after(60_001)), Some(HttpAnswer::Denied));
        let tables = answers.tables.lock();
        assert_eq!((tables.known.len(), tables.ends.len()), (2, 2));
    }

    #[test]
    fn a_flood_of_refusals_does_not_put_out_permissions() {
        let answers = answers(4);
        let start = Instant::now();
        learn(&answers, 0, HttpAnswer::Allowed, start);
        for n in 1..100 {
            let now = start + Duration::from_millis(u64::from(n) * 10);
            learn(&answers, n, HttpAnswer::Denied, now);
            assert!(answers.tables.lock().known.len() <= 4);
        }
        let now = start + Duration::from_secs(1);
        assert_eq!(known(&answers, 0, now), Some(HttpAnswer::Allowed));
        assert_eq!(known(&answers, 99, now), Some(HttpAnswer::Denied));
        assert_eq!(known(&answers, 1, now), None);
    }

    #[tokio::test]
    async fn questions_under_way_are_bounded_and_end_when_given_up() {
        let answers = answers(4);
        let now = Instant::now();
        let asked: Vec<Lookup> = (0..3).map(|n| answers.look_up([n; 32], now)).collect();
        assert!(asked.iter().all(|lookup| matches!(lookup, Lookup::Ask(..))));
        assert!(matches!(answers.look_up([3; 32], now), Lookup::Full));
        let Lookup::Wait(mut waiting) = answers.look_up([0; 32], now) else { panic!("0 is not under way") };
        drop(asked);
        assert!(waiting.wait_for(Option::is_some).await.is_err());
        assert!(matches!(answers.look_up([3; 32], now), Lookup::Ask(..)));
    }
}
