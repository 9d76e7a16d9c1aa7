//! Where log lines go: standard error, as text or as JSON, filtered by level.
//!
//! A line of the text form is one event, whatever the values in it are. tracing writes a value handed over as
//! `Display` as it is, line breaks included; so control characters are escaped here for every field, and a value with
//! blanks or quotes in it is put in quotes, its own ones escaped: neither a second line nor a second field can be
//! forged. JSON does the same by its nature. What a client sent goes through `escape` before, which
//! also bounds its length.
//!
//! Whoever logs puts a line into a queue, which one thread writes (`queue`): nobody who serves
//! clients waits for the log's reader. What was lost meanwhile is counted ([`lines_lost`]), and
//! told when the log can be written again. Who ends the process calls [`flush`] first.

mod queue;

use std::fmt::{self, Write};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt as log_format;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};
use crate::metrics::LOG_LINES_LOST;

pub use self::queue::QUEUE_BYTES;
use self::queue::Queue;

/// What this process logs, once [`init`] has been called.
static LOG: OnceLock<Arc<Queue>> = OnceLock::new();

/// The end of the process waits for the reader of the log as long while nothing is read...
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// ...and as long in all.
const FLUSH_MOST: Duration = Duration::from_secs(5);

/// Sends the log lines of the whole process to standard error, from a thread of its own: no other
/// waits until they are read. [`QUEUE_BYTES`] of lines can wait; what is beyond is lost and
/// counted.
///
/// # Errors
/// [`LogError::Filter`] if the level is neither a level nor directives (a loaded configuration has none such),
/// [`LogError::Twice`] if the process has a logger already, [`LogError::Start`] if the thread cannot be started.
pub fn init(log: &LogConfig) -> Result<LogControl, LogError> {
    let filter = log.filter().ok_or_else(|| LogError::Filter(log.level.clone()))?;
    let is_colored = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let queue = Arc::new(Queue::new(
        &LOG_LINES_LOST,
        match log.format {
            LogFormat::Text => text_loss,
            LogFormat::Json => json_loss,
        },
    ));
    let writer = {
        let queue = Arc::clone(&queue);
        move || Line(Arc::clone(&queue))
    };
    let lines = match log.format {
        LogFormat::Text => text(writer, is_colored).boxed(),
        LogFormat::Json => json(writer).boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    // A handle of its own: that of the standard library has a lock, and who wants to write there
    // without the queue would wait for the reader with the thread.
    let stderr = io::stderr().as_fd().try_clone_to_owned().map_err(LogError::Start)?;
    subscriber.try_init().map_err(|_| LogError::Twice)?;
    let writing = Arc::clone(&queue);
    let thread = std::thread::Builder::new().name("log".to_owned());
    thread.spawn(move || writing.write_to(Patient(File::from(stderr)))).map_err(LogError::Start)?;
    let _ = LOG.set(queue);
    let set = move |filter| handle.reload(filter).is_ok();
    Ok(LogControl(Box::new(set)))
}

/// Writes this, and a line break, among the lines of the log as it is, whatever `log.level` and
/// `log.format` say; before [`init`], at once, and for a second at most. Control characters are the
/// caller's business.
pub fn print(what: &dyn fmt::Display) {
    let text = format!("{what}\n");
    match LOG.get() {
        Some(queue) => queue.push(text.as_bytes()),
        // Whoever does not read it has nothing to be told, and must not keep the process.
        None => {
            let (done, is_done) = mpsc::channel();
            std::thread::spawn(move || {
                let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
                let _ = done.send(());
            });
            let _ = is_done.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

/// Waits until every line logged so far is written; a second at most while nothing is read, five in
/// all. To be called before the process ends.
pub fn flush() {
    if let Some(queue) = LOG.get() {
        queue.flush(FLUSH_PATIENCE, FLUSH_MOST);
    }
}

/// Lines of this process's log that were lost because nobody read what was written before, or
/// because writing failed. 0 without [`init`].
pub fn lines_lost() -> u64 {
    LOG_LINES_LOST.get()
}

/// Takes one line.
struct Line(Arc<Queue>);

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for its reader also where the one who started the program has set `O_NONBLOCK` on the
/// pipe.
struct Patient(File);

impl io::Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a line about lost lines says. It is made here and not by tracing, so that `log.level`
/// cannot leave it out.
const LOSS: &str = "lines of the log were lost: nobody read it, or it could not be written";

fn text_loss(lines: u64) -> String {
    format!("{}  WARN {}: {LOSS} lines={lines}\n", time(), module_path!())
}

fn json_loss(lines: u64) -> String {
    let (time, target) = (time(), module_path!());
    format!(
        "{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\"{LOSS}\",\"lines\":{lines},\"target\":\"{target}\"}}\n"
    )
}

/// Now, as it stands in other lines.
fn time() -> String {
    let mut time = String::new();
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

/// Changes what is logged while the process runs.
pub struct LogControl(Box<dyn Fn(EnvFilter) -> bool + Send + Sync>);

impl LogControl {
    /// Sets `log.level` anew; the form of the lines stays.
    ///
    /// # Errors
    /// [`LogError::Filter`]; the level is then what it was.
    pub fn set_level(&self, log: &LogConfig) -> Result<(), LogError> {
        let filter = log.filter().ok_or_else(|| LogError::Filter(log.level.clone()))?;
        if (self.0)(filter) { Ok(()) } else { Err(LogError::Filter(log.level.clone())) }
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogControl")
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is none.
    #[error("log.level = {0:?} is neither a level nor a list of directives")]
    Filter(String),
    /// Something else in this process receives the log already.
    #[error("this process has a logger already")]
    Twice,
    /// Its thread cannot be started.
    #[error("the thread that writes the log cannot be started: {0}")]
    Start(io::Error),
}

fn text<S, W>(writer: W, is_colored: bool) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    log_format::layer()
        .with_writer(writer)
        .with_ansi(is_colored)
        // Its way to report an error is to print on standard error, which panics if that is what
        // failed.
        .log_internal_errors(false)
        .fmt_fields(TextFields)
}

fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    log_format::layer().with_writer(writer).log_internal_errors(false).json().flatten_event(true)
}

/// Writes `message name=value name="a value"`.
struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = TextLine { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct TextLine<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    result: fmt::Result,
}

impl TextLine<'_> {
    fn write(&mut self, name: &str, value: &str) -> fmt::Result {
        if !self.is_empty {
            self.writer.write_char(' ')?;
        }
        self.is_empty = false;
        if name == "message" {
            return one_line(value, &mut self.writer);
        }
        write!(self.writer, "{name}=")?;
        let needs_quotes = value.is_empty() || value.contains([' ', '"', '=']);
        if !needs_quotes || is_quoted(value) {
            return one_line(value, &mut self.writer);
        }
        self.writer.write_char('"')?;
        let mut after_backslash = false;
        for c in value.chars() {
            if c == '"' && !after_backslash {
                self.writer.write_char('\\')?;
            }
            one_line(c.encode_utf8(&mut [0; 4]), &mut self.writer)?;
            after_backslash = c == '\\' && !after_backslash;
        }
        // A backslash at the end would make our quote one of the value's.
        self.writer.write_str(if after_backslash { "\\\"" } else { "\"" })
    }
}

impl Visit for TextLine<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // What events of the `log` crate carry besides their message; the line has it already.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.write(field.name(), &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // One word needs no quotes; all else gets those of `Debug`.
        let is_word = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '=');
        if !value.is_empty() && value.chars().all(is_word) {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }
}

/// Whether `value` is one quoted string, as `Debug` writes it, and not something that only begins
/// like one.
fn is_quoted(value: &str) -> bool {
    let Some(inner) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else { return false };
    let mut after_backslash = false;
    for c in inner.chars() {
        if c == '"' && !after_backslash {
            return false;
        }
        after_backslash = c == '\\' && !after_backslash;
    }
    !after_backslash
}

/// Writes `value` with what could end a line, move a cursor or turn the writing around escaped.
fn one_line(value: &str, writer: &mut impl Write) -> fmt::Result {
    for c in value.chars() {
        // Quotes and backslashes are nobody's business here; all else that `Debug` escapes is not
        // for a log.
        if matches!(c, '"' | '\'' | '\\') {
            writer.write_char(c)?;
        } else {
            write!(writer, "{}", c.escape_debug())?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::Registry;

    use super::*;
    use crate::escape::escape;

    /// A place for log lines.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).expect("UTF-8")
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `log` makes in text form, without their time, and in JSON.
    fn logged(log: impl Fn()) -> (Vec<String>, Vec<String>) {
        let (text_lines, json_lines) = (Lines::default(), Lines::default());
        let (text_writer, json_writer) = (text_lines.clone(), json_lines.clone());
        tracing::subscriber::with_default(
            Registry::default().with(text(move || text_writer.clone(), false)),
            &log,
        );
        tracing::subscriber::with_default(Registry::default().with(json(move || json_writer.clone())), &log);
        let lines = |of: Lines| -> Vec<String> { of.text().lines().map(str::to_owned).collect() };
        let text = lines(text_lines).into_iter();
        (
            text.map(|l| l.split_once(": ").map_or_else(|| l.clone(), |(_, rest)| rest.to_owned())).collect(),
            lines(json_lines),
        )
    }

    #[test]
    fn a_line_has_message_and_fields() {
        let (text, json) = logged(|| {
            tracing::info!(client = %escape("sensor-1"), packets = 3, how = "kept", cause = "closed by peer", "disconnected");
        });
        assert_eq!(text, ["disconnected client=sensor-1 packets=3 how=kept cause=\"closed by peer\""]);
        assert_eq!(json.len(), 1);
        assert!(json[0].contains("\"client\":\"sensor-1\""), "{json:?}");
        assert!(json[0].contains("\"message\":\"disconnected\""), "{json:?}");
    }

    #[test]
    fn no_value_makes_a_second_line_or_a_second_field() {
        let forged = "x\n2026-01-01T00:00:00Z  INFO ternmq: client=admin \u{1b}[2K\r\u{9b}2K\u{2028}\u{202e}";
        let (text, json) = logged(|| {
            tracing::info!(client = %forged, again = forged, debug = ?Some(forged), safe = %escape(forged), "{forged}");
            tracing::info!(client = %"a\" admin=\"1", "quote");
            tracing::info!(client = %"a b\\", admin = 0, "backslash at the end");
            tracing::info!(client = %"\"a\" admin=\"1\"", "quotes around");
            tracing::info!(client = %escape("a\" admin=\"1"), "escaped");
            tracing::info!(client = %"", "empty");
        });
        assert_eq!(text.len(), 6, "{text:#?}");
        assert_eq!(json.len(), 6, "{json:#?}");
        for line in &text {
            assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        }
        for line in &json {
            assert!(!line.contains(|c: char| c.is_ascii_control()), "{line:?}");
        }
        assert!(!text[0].contains(['\u{202e}', '\u{2028}']), "{:?}", text[0]);
        assert_eq!(text[1], r#"quote client="a\" admin=\"1""#);
        assert_eq!(text[2], r#"backslash at the end client="a b\\" admin=0"#);
        assert_eq!(text[3], r#"quotes around client="\"a\" admin=\"1\"""#);
        assert_eq!(text[4], r#"escaped client="a\" admin=\"1""#);
        assert_eq!(text[5], r#"empty client="""#);
    }

    #[test]
    fn the_line_about_lost_lines_is_like_others() {
        let (text, json) = logged(|| tracing::warn!(lines = 7, "{LOSS}"));
        let shape = |line: &str| line.split_once(": ").map(|(_, rest)| rest.trim_end().to_owned());
        assert_eq!(shape(&text_loss(7)).as_deref(), Some(text[0].as_str()));
        let keys = |line: &str| -> serde_json::Map<String, serde_json::Value> {
            let mut keys: serde_json::Map<_, _> = serde_json::from_str(line).expect("JSON");
            assert!(
                keys.remove("timestamp").is_some_and(|time| time.as_str().is_some_and(|t| t.len() == 27))
            );
            // The test's own.
            keys.remove("target");
            keys
        };
        assert_eq!(keys(&json_loss(7)), keys(&json[0]));
    }

    #[test]
    fn a_writer_that_fails_is_borne() {
        struct Broken;
        impl io::Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let subscriber = Registry::default().with(text(|| Broken, false));
        tracing::subscriber::with_default(subscriber, || tracing::error!("nobody reads this"));
    }
}
