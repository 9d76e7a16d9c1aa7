//! A few threads for work that keeps a core busy (password hashes), with a bounded and fair queue before them.
//!
//! [`Pool::submit`] never waits. Peers take turns: a peer with many jobs waiting delays itself, not others. At most
//! [`Limits::per_peer`] jobs of one peer wait, and at most [`Limits::waiting`] in all; when these are reached, a peer that has fewer than the one with
//! the most puts the last job of that one out. A job whose [`Pending`] is dropped before it began leaves the queue at once, so connections
//! that come and go hold no places.
//!
//! A job under way is not interrupted. One that panics ends with [`Lost`], and its thread goes on.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::throttle::AddressGroup;

/// How many jobs may wait; see [`Limits::default`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs waiting in all.
    pub waiting: usize,
    /// Jobs of one peer that wait.
    pub per_peer: usize,
}

impl Default for Limits {
    /// 1,024 in all, some 30 seconds of hashing on two cores; 64 of one peer, which may be a site behind one address that comes back
    /// after a power cut.
    fn default() -> Self {
        Self { waiting: 1_024, per_peer: 64 }
    }
}

/// No place in the queue; the client is to come back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many password checks are waiting")]
pub struct Busy;

/// A job had no result: it was put out for the job of another peer, it panicked, or the pool has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the password check was not made")]
pub struct Lost;

/// What has become of the jobs, counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounts {
    /// Ran to their end, panics included.
    pub done: u64,
    /// Given up by who submitted them, before they began.
    pub abandoned: u64,
    /// Refused with [`Busy`].
    pub refused: u64,
    /// Put out for the job of another peer.
    pub put_out: u64,
    /// Wait now.
    pub waiting: u64,
}

/// The threads and their queue. When it is dropped, what waits is lost, and the threads end after what they are at.
pub struct Pool {
    shared: Arc<Shared>,
}

/// The result of a job, when it is there.
pub struct Pending<T> {
    result: oneshot::Receiver<T>,
    peer: AddressGroup,
    id: u64,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// A job has come, or the end.
    changed: Condvar,
    limits: Limits,
}

struct Job {
    id: u64,
    run: Box<dyn FnOnce() + Send>,
}

/// `turns` has every peer of `jobs` once, and no queue in `jobs` is empty.
#[derive(Default)]
struct Queue {
    jobs: HashMap<AddressGroup, VecDeque<Job>, ahash::RandomState>,
    turns: VecDeque<AddressGroup>,
    next_id: u64,
    is_over: bool,
    counts: PoolCounts,
}

impl Pool {
    /// Half of the cores, and at least one: the rest is for those who are in already.
    pub fn default_threads() -> NonZeroUsize {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(threads: NonZeroUsize, limits: Limits) -> io::Result<Self> {
        let queue = Mutex::new(Queue::default());
        let pool = Self { shared: Arc::new(Shared { queue, changed: Condvar::new(), limits }) };
        for _ in 0..threads.get() {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new().name("ternmq-hash".to_owned()).spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Has `job` run for `peer`. Does not block.
    ///
    /// # Errors
    /// [`Busy`]: there is no place in the queue for this peer.
    pub fn submit<T: Send + 'static>(
        &self,
        peer: AddressGroup,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Pending<T>, Busy> {
        let (sender, result) = oneshot::channel();
        let run = Box::new(move || {
            // Whoever waited may have gone meanwhile.
            let _ = sender.send(job());
        });
        let mut queue = self.shared.queue.lock();
        let put_out =
            queue.make_room(peer, self.shared.limits).inspect_err(|Busy| queue.counts.refused += 1)?;
        let id = queue.next_id;
        queue.next_id += 1;
        queue.push(peer, Job { id, run });
        drop(queue);
        self.shared.changed.notify_one();
        // Outside of the lock: it wakes who waits for it.
        drop(put_out);
        Ok(Pending { result, peer, id, shared: Arc::clone(&self.shared) })
    }

    /// What has become of the jobs so far.
    pub fn counts(&self) -> PoolCounts {
        let queue = self.shared.queue.lock();
        PoolCounts { waiting: queue.waiting() as u64, ..queue.counts }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let lost = {
            let mut queue = self.shared.queue.lock();
            queue.is_over = true;
            queue.turns.clear();
            std::mem::take(&mut queue.jobs)
        };
        self.shared.changed.notify_all();
        drop(lost);
    }
}

impl Shared {
    /// A thread's life.
    fn work(&self) {
        let mut queue = self.queue.lock();
        while !queue.is_over {
            let Some(job) = queue.pop() else {
                self.changed.wait(&mut queue);
                continue;
            };
            drop(queue);
            // The sender goes with the closure, so whoever waits hears of a panic too.
            let _ = catch_unwind(AssertUnwindSafe(job.run));
            queue = self.queue.lock();
            queue.counts.done += 1;
        }
    }
}

impl Queue {
    fn waiting(&self) -> usize {
        self.jobs.values().map(VecDeque::len).sum()
    }

    /// Sees that one more job of `peer` has a place; gives back the job that had to go for it.
    fn make_room(&mut self, peer: AddressGroup, limits: Limits) -> Result<Option<Job>, Busy> {
        let own = self.jobs.get(&peer).map_or(0, VecDeque::len);
        if own >= limits.per_peer {
            return Err(Busy);
        }
        if self.waiting() < limits.waiting {
            return Ok(None);
        }
        let most = self.jobs.iter().max_by_key(|(_, jobs)| jobs.len());
        // Else two peers would put each other's jobs out in turns.
        let Some((most, _)) = most.filter(|(_, jobs)| jobs.len() > own + 1) else { return Err(Busy) };
        let most = *most;
        let job = self.jobs.get_mut(&most).and_then(VecDeque::pop_back);
        self.counts.put_out += u64::from(job.is_some());
        Ok(job)
    }

    fn push(&mut self, peer: AddressGroup, job: Job) {
        let jobs = self.jobs.entry(peer).or_default();
        if jobs.is_empty() {
            self.turns.push_back(peer);
        }
        jobs.push_back(job);
    }

    /// The next job of the peer whose turn it is.
    fn pop(&mut self) -> Option<Job> {
        let peer = self.turns.pop_front()?;
        let jobs = self.jobs.get_mut(&peer)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.jobs.remove(&peer);
        } else {
            self.turns.push_back(peer);
        }
        job
    }

    fn remove(&mut self, peer: AddressGroup, id: u64) -> Option<Job> {
        let jobs = self.jobs.get_mut(&peer)?;
        let at = jobs.binary_search_by_key(&id, |job| job.id).ok()?;
        let job = jobs.remove(at);
        if jobs.is_empty() {
            self.jobs.remove(&peer);
            self.turns.retain(|other| *other != peer);
        }
        self.counts.abandoned += u64::from(job.is_some());
        job
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Lost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(context).map_err(|_| Lost)
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        // Most often it has run already, and is not found.
        let job = self.shared.queue.lock().remove(self.peer, self.id);
        drop(job);
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("peer", &self.peer).field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    fn peer(n: u8) -> AddressGroup {
        AddressGroup::of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, n)))
    }

    fn wait<T>(pending: Pending<T>) -> Result<T, Lost> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        // Far longer than any of these takes.
        let patience = std::time::Duration::from_secs(30);
        runtime.block_on(async { tokio::time::timeout(patience, pending).await.expect("an answer") })
    }

    fn pool(threads: usize, waiting: usize, per_peer: usize) -> Pool {
        let threads = NonZeroUsize::new(threads).expect("not zero");
        Pool::start(threads, Limits { waiting, per_peer }).expect("threads")
    }

    /// Keeps one thread of the pool busy until the sender is used or dropped.
    fn block(pool: &Pool) -> (Pending<()>, Sender<()>) {
        let (started, has_started) = channel();
        let (release, released) = channel::<()>();
        let job = move || {
            started.send(()).expect("the test waits");
            let _ = released.recv();
        };
        let pending = pool.submit(peer(0), job).expect("room");
        has_started.recv().expect("it starts");
        (pending, release)
    }

    /// Submits a job that says its name when it runs.
    fn named(pool: &Pool, n: u8, name: &'static str, to: &Sender<&'static str>) -> Result<Pending<()>, Busy> {
        let to = to.clone();
        pool.submit(peer(n), move || to.send(name).expect("the test listens"))
    }

    fn all(names: Sender<&'static str>, ran: &Receiver<&'static str>) -> Vec<&'static str> {
        drop(names);
        ran.iter().collect()
    }

    #[test]
    fn results_come_back() {
        let pool = pool(2, 10, 10);
        let pending: Vec<_> =
            (0..10_u8).map(|n| pool.submit(peer(n), move || n * 2).expect("room")).collect();
        let results: Vec<_> = pending.into_iter().map(wait).collect();
        assert_eq!(results, (0..10).map(|n| Ok(n * 2)).collect::<Vec<_>>());
    }

    #[test]
    fn both_threads_work_at_one_time() {
        let pool = pool(2, 10, 10);
        // Returns only if the second starts while the first is under way.
        let blocked = [block(&pool), block(&pool)];
        assert_eq!(pool.counts().done, 0);
        for (pending, release) in blocked {
            drop(release);
            wait(pending).expect("done");
        }
    }

    #[test]
    fn peers_take_turns() {
        let pool = pool(1, 10, 10);
        let (_blocked, release) = block(&pool);
        let (names, ran) = channel();
        let jobs = [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")];
        let pending: Vec<_> =
            jobs.iter().map(|(n, name)| named(&pool, *n, name, &names).expect("room")).collect();
        drop(release);
        assert_eq!(all(names, &ran), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        drop(pending);
    }

    #[test]
    fn a_peer_has_so_many_places_and_no_more() {
        let pool = pool(1, 10, 2);
        let (_blocked, release) = block(&pool);
        let (names, ran) = channel();
        let _waiting =
            [named(&pool, 1, "a1", &names).expect("room"), named(&pool, 1, "a2", &names).expect("room")];
        assert_eq!(named(&pool, 1, "a3", &names).err(), Some(Busy));
        let _other = named(&pool, 2, "b1", &names).expect("room for others");
        assert_eq!(pool.counts(), PoolCounts { refused: 1, waiting: 3, ..PoolCounts::default() });
        drop(release);
        assert_eq!(all(names, &ran), ["a1", "b1", "a2"]);
    }

    #[test]
    fn when_all_is_full_the_greediest_gives_way() {
        let pool = pool(1, 3, 3);
        let (_blocked, release) = block(&pool);
        let (names, ran) = channel();
        let mut greedy: Vec<_> =
            ["a1", "a2", "a3"].map(|name| named(&pool, 1, name, &names).expect("room")).into();
        let _b = named(&pool, 2, "b1", &names).expect("the last of the first peer goes");
        assert_eq!(greedy.pop().map(wait), Some(Err(Lost)));
        // Two against one: no better off for having put it out.
        assert_eq!(named(&pool, 2, "b2", &names).err(), Some(Busy));
        let _c = named(&pool, 3, "c1", &names).expect("the next to last goes");
        assert_eq!(greedy.pop().map(wait), Some(Err(Lost)));
        // One each: nobody is greedy.
        assert_eq!(named(&pool, 4, "d1", &names).err(), Some(Busy));
        assert_eq!(pool.counts(), PoolCounts { refused: 2, put_out: 2, waiting: 3, ..PoolCounts::default() });
        drop(release);
        assert_eq!(all(names, &ran), ["a1", "b1", "c1"]);
    }

    #[test]
    fn what_nobody_waits_for_leaves_its_place_and_is_not_run() {
        let pool = pool(1, 2, 2);
        let (_blocked, release) = block(&pool);
        let (names, ran) = channel();
        let abandoned = [named(&pool, 1, "a1", &names), named(&pool, 1, "a2", &names)];
        drop(abandoned);
        assert_eq!(pool.counts(), PoolCounts { abandoned: 2, ..PoolCounts::default() });
        let _kept =
            [named(&pool, 1, "a3", &names).expect("room"), named(&pool, 1, "a4", &names).expect("room")];
        drop(release);
        assert_eq!(all(names, &ran), ["a3", "a4"]);
    }

    #[test]
    fn a_panic_is_one_jobs_matter() {
        let pool = pool(1, 2, 2);
        let panics = pool.submit(peer(1), || panic!("on purpose")).expect("room");
        assert_eq!(wait::<()>(panics), Err(Lost));
        assert_eq!(wait(pool.submit(peer(1), || 7).expect("room")), Ok(7));
    }

    #[test]
    fn with_the_pool_goes_what_waits() {
        let pool = pool(1, 2, 2);
        let (blocked, release) = block(&pool);
        let waiting = pool.submit(peer(1), || ()).expect("room");
        drop(pool);
        assert_eq!(wait(waiting), Err(Lost));
        // What is under way is finished.
        drop(release);
        assert_eq!(wait(blocked), Ok(()));
    }
}
