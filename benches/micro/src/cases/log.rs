//! A message into the durable log, as the end of a turn puts it there: its frame, and the lock and copy of `submit`.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::Thread;

use tempfile::TempDir;

use super::{PAYLOAD, TOPIC};
use crate::protocol::QoS;
use crate::storage::{
    Batch, DeliverRecord, DirFiles, Log, LogOptions, MessageRecord, Numbers, Record, Recovered, Sync, Urgency,
};
use crate::{Case, Operation};

pub(crate) const CASES: &[Case] = &[Case::new("log_submit", 1_000, |_| Box::new(Submitting::new()))];

/// One message for one durable session. Nobody waits for it, so the log's thread sleeps while it is measured; files are in memory where
/// the system has a place for that, for they are not the subject.
struct Submitting {
    log: Arc<Log>,
    batch: Batch,
    sequence: u64,
    _directory: TempDir,
}

impl Submitting {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let directory = directory.expect("a directory");
        let files = Arc::new(DirFiles::new(directory.path()).expect("the directory can be opened"));
        let options = LogOptions { sync: Sync::Never, ..LogOptions::default() };
        let (log, _) =
            Log::open(files, options, Arc::default(), &mut Recovered::default()).expect("an empty log");
        let mut submitting = Self { log, batch: Batch::default(), sequence: 0, _directory: directory };
        // The log's two buffers have their size afterwards.
        for _ in 0..2 {
            submitting.run(2_000);
            submitting.ready();
        }
        submitting
    }

    fn submit(&mut self, urgency: Urgency) -> crate::ledger::Position {
        self.sequence += 1;
        self.batch.begin();
        let body = self.batch.body();
        Record::Message(MessageRecord {
            qos: QoS::AtLeastOnce,
            expires_at: None,
            topic: TOPIC,
            properties: &[],
            payload: &PAYLOAD,
        })
        .write(body);
        Record::Deliver(DeliverRecord {
            session: 1,
            sequence: self.sequence,
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: Numbers::Slice(&[]),
            shared: None,
        })
        .write(body);
        self.batch.end();
        self.log.submit(&mut self.batch, urgency).end
    }
}

impl Operation for Submitting {
    fn ready(&mut self) {
        let end = self.submit(Urgency::Waited);
        wait(self.log.wait(end));
    }

    fn run(&mut self, times: u32) {
        for _ in 0..times {
            self.submit(Urgency::Lazy);
        }
    }
}

impl Drop for Submitting {
    fn drop(&mut self) {
        self.log.close();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait(future: impl Future<Output = ()>) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    while future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        std::thread::park();
    }
}
