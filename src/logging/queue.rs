//! `Queue`: lines on their way to whoever reads the log.
//!
//! Who logs puts a line here and goes on; one thread writes. So nobody else waits for the reader,
//! be it a pipe that is full or a disk that hangs. Lines stay in their order. [`QUEUE_BYTES`] bound
//! what waits; a line beyond that is lost, and counted, and so is one that cannot be written. As
//! soon as something can be written again, one line says how many were lost, where they would have
//! stood.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::metrics::Counter;

/// Bytes of lines that wait to be written, or are being written.
pub const QUEUE_BYTES: usize = 1024 * 1024;
/// Written at once, if a line is not longer: the system keeps as much together in a pipe that
/// others write to as well.
const PIECE: usize = 4096;
/// Buffers up to this size are used again.
const SPARE_BYTES: usize = 64 * 1024;

/// Makes the line that says how many were lost.
pub(super) type LossLine = fn(u64) -> String;

/// See the module's documentation.
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to write.
    news: Condvar,
    /// Something was written, or could not be.
    progress: Condvar,
    /// Lines.
    lost: &'static Counter,
    loss_line: LossLine,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Of what waits, and of what the thread has and has not written.
    bytes: usize,
    /// Lines lost since the last line that said so, and where in `waiting` they would stand.
    untold: u64,
    untold_at: usize,
    /// It was full: nothing more is taken until the thread has taken what waits, so that the line
    /// about the loss stands in its place.
    is_shut: bool,
    /// The last attempt to write has failed.
    is_failing: bool,
    /// The thread has something in its hands.
    is_busy: bool,
    /// Pieces written: the reader reads as long as this grows.
    written: u64,
}

impl State {
    fn is_over(&self) -> bool {
        let must_tell = self.untold > 0 && !self.is_failing;
        self.waiting.is_empty() && !self.is_busy && !must_tell
    }
}

impl Queue {
    /// Counts there what is lost.
    pub(super) fn new(lost: &'static Counter, loss_line: LossLine) -> Self {
        let (news, progress) = (Condvar::new(), Condvar::new());
        Self { state: Mutex::default(), news, progress, lost, loss_line }
    }

    /// Takes a line, or several, each with its line break. Never waits for the reader.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.is_shut || state.bytes + line.len() > QUEUE_BYTES {
            if state.untold == 0 {
                state.untold_at = state.waiting.len();
            }
            state.is_shut = !state.waiting.is_empty();
            self.lose(&mut state, line);
        } else {
            state.bytes += line.len();
            state.waiting.extend_from_slice(line);
        }
        drop(state);
        self.news.notify_one();
    }

    fn lose(&self, state: &mut State, bytes: &[u8]) {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        state.untold += lines;
        self.lost.add(lines);
    }

    /// Writes what comes, for ever: the work of the thread.
    pub(super) fn write_to(&self, writer: impl Write) {
        let mut out = Out { writer, is_torn: false };
        let mut batch = Vec::new();
        loop {
            let (lost, lost_at) = self.take(&mut batch);
            let (before, behind) = batch.split_at(lost_at.min(batch.len()));
            self.write_lines(&mut out, before);
            if lost > 0 {
                let is_told = out.write((self.loss_line)(lost).as_bytes()).is_ok();
                let mut state = self.state.lock();
                state.is_failing = !is_told;
                if !is_told {
                    state.untold += lost;
                    state.untold_at = 0;
                }
            }
            self.write_lines(&mut out, behind);
            batch.clear();
            batch.shrink_to(SPARE_BYTES);
            self.state.lock().is_busy = false;
            self.progress.notify_all();
        }
    }

    /// Waits for lines and takes them; gives how many were lost, and where among them.
    fn take(&self, batch: &mut Vec<u8>) -> (u64, usize) {
        let mut state = self.state.lock();
        // When nothing could be written, the next line is the next attempt.
        while state.waiting.is_empty() && (state.untold == 0 || state.is_failing) {
            self.news.wait(&mut state);
        }
        std::mem::swap(batch, &mut state.waiting);
        (state.is_shut, state.is_busy) = (false, true);
        (std::mem::take(&mut state.untold), std::mem::take(&mut state.untold_at))
    }

    fn write_lines(&self, out: &mut Out<impl Write>, mut lines: &[u8]) {
        while !lines.is_empty() {
            let (piece, behind) = lines.split_at(piece_len(lines));
            lines = behind;
            let result = out.write(piece);
            let mut state = self.state.lock();
            state.bytes -= piece.len();
            state.is_failing = result.is_err();
            match result {
                Ok(()) => state.written += 1,
                Err(unwritten) => {
                    // All that waits comes behind it.
                    state.untold_at = 0;
                    self.lose(&mut state, unwritten);
                }
            }
            drop(state);
            self.progress.notify_all();
        }
    }

    /// Waits until everything was written, or could not be: no longer than `patience` while nothing is written, and
    /// `most` in all. Whether nothing is left.
    pub(super) fn flush(&self, patience: Duration, most: Duration) -> bool {
        let end = Instant::now() + most;
        let mut state = self.state.lock();
        let mut written = state.written;
        let mut until = end.min(Instant::now() + patience);
        while !state.is_over() {
            if self.progress.wait_until(&mut state, until).timed_out() {
                return state.is_over();
            }
            if state.written != written {
                written = state.written;
                until = end.min(Instant::now() + patience);
            }
        }
        true
    }
}

/// So many bytes from the start are written at once: lines as a whole.
fn piece_len(lines: &[u8]) -> usize {
    let first = lines.get(..PIECE).unwrap_or(lines);
    let end = first.iter().rposition(|byte| *byte == b'\n');
    end.or_else(|| lines.iter().position(|byte| *byte == b'\n')).map_or(lines.len(), |end| end + 1)
}

/// Where lines go, and whether the last one was written in part: the next must not continue it.
struct Out<W> {
    writer: W,
    is_torn: bool,
}

impl<W: Write> Out<W> {
    /// Writes all of it; else gives what was not written.
    fn write<'a>(&mut self, piece: &'a [u8]) -> Result<(), &'a [u8]> {
        if self.is_torn {
            self.writer.write_all(b"\n").map_err(|_| piece)?;
            self.is_torn = false;
        }
        let mut rest = piece;
        while !rest.is_empty() {
            match self.writer.write(rest) {
                Ok(bytes) if bytes > 0 => {
                    self.is_torn = rest.get(bytes - 1) != Some(&b'\n');
                    rest = rest.get(bytes..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return Err(rest),
            }
        }
        self.is_torn = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    use super::*;

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Tells of each write, and does with it what it is told to.
    struct Reader {
        attempts: Sender<String>,
        answers: Receiver<io::Result<usize>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
            if self.attempts.send(text).is_err() {
                return Ok(bytes.len());
            }
            // Without a test that answers any more, everything is written.
            self.answers.recv().unwrap_or(Ok(usize::MAX)).map(|most| most.min(bytes.len()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct House {
        queue: Arc<Queue>,
        attempts: Receiver<String>,
        answers: Sender<io::Result<usize>>,
    }

    impl House {
        fn start() -> Self {
            let lost: &Counter = Box::leak(Box::default());
            let queue = Arc::new(Queue::new(lost, |lines| format!("{lines} lost\n")));
            let ((attempts, attempted), (answers, answered)) = (channel(), channel());
            let reader = Reader { attempts, answers: answered };
            let writing = Arc::clone(&queue);
            thread::spawn(move || writing.write_to(reader));
            Self { queue, attempts: attempted, answers }
        }

        fn attempt(&self) -> String {
            self.attempts.recv_timeout(PATIENCE).expect("something is written")
        }

        fn answer(&self, answer: io::Result<usize>) {
            self.answers.send(answer).expect("it waits");
        }

        fn read(&self) -> String {
            let text = self.attempt();
            self.answer(Ok(usize::MAX));
            text
        }
    }

    fn broken() -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    #[test]
    fn who_logs_does_not_wait_for_the_reader_and_what_does_not_fit_is_counted() {
        let house = House::start();
        house.queue.push(b"first\n");
        assert_eq!(house.attempt(), "first\n");
        let line = |n: usize| format!("{n:0>63}\n");
        let fit = (QUEUE_BYTES - "first\n".len()) / 64;
        (0..fit + 3).for_each(|n| house.queue.push(line(n).as_bytes()));
        // Shorter than what is left: it must not overtake the line about those before it.
        house.queue.push(b"s\n");
        assert_eq!(house.queue.lost.get(), 4);
        house.answer(Ok(usize::MAX));
        let mut read = String::new();
        while !read.ends_with("lost\n") {
            let piece = house.read();
            assert!(piece.len() <= PIECE && piece.ends_with('\n'), "{piece:?}");
            read.push_str(&piece);
        }
        let expected: String = (0..fit).map(line).collect();
        assert!(read == expected + "4 lost\n", "{:?}", &read[read.len() - 200..]);
        house.queue.push(b"again\n");
        assert_eq!(house.read(), "again\n");
        assert!(house.queue.flush(PATIENCE, PATIENCE));
        assert_eq!(house.queue.lost.get(), 4);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_before_what_comes_later() {
        let house = House::start();
        house.queue.push(b"1\n");
        assert_eq!(house.attempt(), "1\n");
        house.answer(broken());
        house.queue.push(b"2\n");
        // The line about the loss is the first attempt; it is lost in part, and not counted itself.
        assert_eq!(house.attempt(), "1 lost\n");
        house.answer(Ok(3));
        assert_eq!(house.attempt(), "ost\n");
        house.answer(broken());
        assert_eq!(house.attempt(), "\n");
        house.answer(broken());
        assert!(house.queue.flush(PATIENCE, PATIENCE), "nothing is waited for that cannot be written");
        assert_eq!(house.queue.lost.get(), 2);
        house.queue.push(b"3\n");
        assert_eq!([house.read(), house.read(), house.read()], ["\n", "2 lost\n", "3\n"]);
    }

    #[test]
    fn the_end_waits_for_a_reader_that_reads_and_not_for_one_that_does_not() {
        let house = House::start();
        let long = [b"x".repeat(PIECE - 1), b"\n".to_vec()].concat();
        (0..3).for_each(|_| house.queue.push(&long));
        assert_eq!(house.attempt().len(), PIECE);
        let short = Duration::from_millis(10);
        let began = Instant::now();
        assert!(!house.queue.flush(short, PATIENCE));
        assert!(!house.queue.flush(PATIENCE, short));
        assert!(began.elapsed() < PATIENCE, "it was waited for all the same");
        house.answer(Ok(usize::MAX));
        let queue = Arc::clone(&house.queue);
        let flushed = thread::spawn(move || queue.flush(PATIENCE, PATIENCE));
        house.read();
        house.read();
        assert!(flushed.join().expect("no panic"));
    }

    #[test]
    fn pieces_end_with_lines() {
        assert_eq!(piece_len(b"a\nb\n"), 4);
        let long = [b"x".repeat(PIECE), b"\n".to_vec()].concat();
        assert_eq!(piece_len(&[&long[..], b"b\n"].concat()), PIECE + 1);
        assert_eq!(piece_len(&[&b"a\n"[..], &long[..]].concat()), 2);
    }
}
