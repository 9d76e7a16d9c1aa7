//! One kind of setting: where its value lives, how it is read, what is expected of it, how it is written.
//!
//! A `Field<T>` speaks of a setting inside a `T` (the whole `Config`, or the draft of one listener). The same field
//! serves every source: a file has typed values, environment and flags have text only.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::ValueKind;
use hyper::header::{HeaderName, HeaderValue};

use super::auth::HttpHeaders;
use super::limits::MemoryMax;
use super::network::Network;
use super::types::LogConfig;
use super::units::{format_duration, format_size, parse_duration, parse_size};

/// Access to the value of a setting.
type At<T, V> = fn(&mut T) -> &mut V;

/// Smallest and largest value accepted.
pub(crate) type Range<V> = (V, V);

/// Whether a text will do, and what is expected of it.
pub(crate) type TextTest = (fn(&str) -> bool, &'static str);

/// What a setting is.
pub(crate) enum Field<T: 'static> {
    /// Bytes, with a unit or as a plain integer.
    Size(At<T, usize>, Range<usize>),
    /// A whole number.
    Count(At<T, usize>, Range<usize>),
    /// The same, or "none".
    OptionalSize(At<T, Option<usize>>, Range<usize>),
    /// A size, "auto" or "none".
    Memory(At<T, MemoryMax>, Range<usize>),
    /// A whole number, or "none".
    OptionalCount(At<T, Option<usize>>, Range<usize>),
    /// A list of addresses and networks.
    Networks(At<T, Vec<Network>>),
    /// A whole number of 16 bits.
    SmallCount(At<T, u16>, Range<u16>),
    /// A time with its unit.
    Time(At<T, Duration>, Range<Duration>),
    /// A time with its unit, or the word that stands for `None`.
    OptionalTime(At<T, Option<Duration>>, Range<Duration>, &'static str),
    /// A path; a relative one is taken from the directory of the source.
    Path(At<T, Option<PathBuf>>),
    /// An IP address and a port.
    Address(At<T, Option<SocketAddr>>),
    /// A list of texts.
    Texts(At<T, Option<Vec<String>>>),
    /// `true` or `false`.
    Switch(At<T, Option<bool>>),
    /// A log level or filter directives.
    Level(At<T, LogConfig>),
    /// `true` or `false`, where there is always a value.
    OnOff(At<T, bool>),
    /// Text that passes a test, and what the test asks for.
    Text(At<T, String>, TextTest),
    /// The same where there may be none.
    OptionalText(At<T, Option<String>>, TextTest),
    /// A list of paths, each as `Path`. (In a file only: no separator is safe in a path.)
    Paths(At<T, Vec<PathBuf>>),
    /// Names and values of HTTP headers: a table in a file, lines `Name: value` elsewhere. Values are not shown.
    Headers(At<T, HttpHeaders>),
    /// Some of some words, each once, in an order: a list in a file, with commas between them elsewhere. Set and get by their
    /// places; none is shown as not set.
    Words(&'static [&'static str], fn(&mut T, &[usize]), fn(&T) -> Option<Vec<usize>>),
    /// One of some words; set and get by their place in the list.
    Choice(&'static [&'static str], fn(&mut T, usize), fn(&T) -> usize),
}

/// A value as a source has it.
pub(crate) struct Written<'a> {
    /// The value; always `String` where the source is untyped.
    pub(crate) kind: &'a ValueKind,
    /// Whether the source has nothing but text, so that "64" may be a number and "true" a switch.
    pub(crate) untyped: bool,
    /// What a relative path starts from.
    pub(crate) directory: &'a Path,
}

impl Written<'_> {
    fn text(&self) -> Option<&str> {
        match self.kind {
            ValueKind::String(text) => Some(text),
            _ => None,
        }
    }

    fn texts(&self) -> Option<Vec<String>> {
        let ValueKind::Array(values) = self.kind else { return None };
        let text = |value: &config::Value| match &value.kind {
            ValueKind::String(text) => Some(text.clone()),
            _ => None,
        };
        values.iter().map(text).collect()
    }

    fn integer(&self) -> Option<u64> {
        match self.kind {
            ValueKind::I64(number) => u64::try_from(*number).ok(),
            ValueKind::U64(number) => Some(*number),
            // `u64::from_str` takes a leading plus; a setting does not.
            ValueKind::String(text) if self.untyped && !text.starts_with('+') => text.parse().ok(),
            _ => None,
        }
    }

    fn path(&self) -> Option<PathBuf> {
        let path = Path::new(self.text().filter(|text| !text.is_empty() && !text.contains('\0'))?);
        Some(self.directory.join(path))
    }

    /// The elements of a list; text of an untyped source is split at commas.
    fn list(&self) -> Option<Vec<ValueKind>> {
        match self.kind {
            ValueKind::Array(values) => Some(values.iter().map(|value| value.kind.clone()).collect()),
            ValueKind::String(text) if self.untyped => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Some(parts.map(|part| ValueKind::String(part.to_owned())).collect())
            }
            _ => None,
        }
    }

    /// Headers that HTTP can carry, sorted by name.
    fn headers(&self) -> Option<Vec<(String, String)>> {
        let mut headers: Vec<(String, String)> = match self.kind {
            ValueKind::Table(table) => {
                let text = |value: &ValueKind| match value {
                    ValueKind::String(text) => Some(text.clone()),
                    _ => None,
                };
                table.iter().map(|(name, v)| Some((name.clone(), text(&v.kind)?))).collect::<Option<_>>()?
            }
            ValueKind::String(text) if self.untyped => text
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(|line| {
                    line.split_once(':')
                        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
                })
                .collect::<Option<_>>()?,
            _ => return None,
        };
        headers.sort();
        let is_good = |(name, value): &(String, String)| {
            HeaderName::try_from(name.as_str()).is_ok() && HeaderValue::try_from(value.as_str()).is_ok()
        };
        headers.iter().all(is_good).then_some(headers)
    }

    fn size(&self, range: &Range<usize>) -> Option<usize> {
        let bytes = match self.kind {
            ValueKind::String(text) => parse_size(text)?,
            _ => self.integer()?,
        };
        within(usize::try_from(bytes).ok()?, range)
    }

    fn count(&self, range: &Range<usize>) -> Option<usize> {
        within(usize::try_from(self.integer()?).ok()?, range)
    }

    fn networks(&self) -> Option<Vec<Network>> {
        let ValueKind::Array(values) = self.kind else { return None };
        let network = |value: &config::Value| match &value.kind {
            ValueKind::String(text) => text.parse().ok(),
            _ => None,
        };
        values.iter().map(network).collect()
    }

    fn switch(&self) -> Option<bool> {
        match self.kind {
            ValueKind::Boolean(value) => Some(*value),
            ValueKind::String(text) if self.untyped => text.parse().ok(),
            _ => None,
        }
    }

    /// The value for a fault: strings quoted and escaped, so that nothing in them can imitate our own words.
    pub(crate) fn show(&self) -> String {
        match self.kind {
            ValueKind::String(text) => format!("{text:?}"),
            ValueKind::Table(_) => "{…}".to_owned(),
            ValueKind::Array(_) => "[…]".to_owned(),
            other => other.to_string(),
        }
    }
}

/// What stands for no bound.
const NONE: &str = "none";
/// What leaves a value to the machine.
const AUTO: &str = "auto";

fn within<V: PartialOrd + Copy>(value: V, range: &Range<V>) -> Option<V> {
    (range.0 <= value && value <= range.1).then_some(value)
}

impl<T> Field<T> {
    /// Reads a value into `target`; `None` leaves it as it was and means the value is not what `expects` says.
    pub(crate) fn read(&self, target: &mut T, written: &Written<'_>) -> Option<()> {
        match self {
            Field::Size(at, range) => *at(target) = written.size(range)?,
            Field::Count(at, range) => *at(target) = written.count(range)?,
            Field::OptionalSize(at, _) | Field::OptionalCount(at, _) if written.text() == Some(NONE) => {
                *at(target) = None;
            }
            Field::OptionalSize(at, range) => *at(target) = Some(written.size(range)?),
            Field::OptionalCount(at, range) => *at(target) = Some(written.count(range)?),
            Field::Memory(at, range) => {
                *at(target) = match written.text() {
                    Some(NONE) => MemoryMax::Unbounded,
                    Some(AUTO) => MemoryMax::Auto,
                    _ => MemoryMax::Bytes(written.size(range)?),
                }
            }
            Field::Networks(at) => *at(target) = written.networks()?,
            Field::SmallCount(at, range) => {
                *at(target) = within(u16::try_from(written.integer()?).ok()?, range)?;
            }
            Field::Time(at, range) => *at(target) = within(parse_duration(written.text()?)?, range)?,
            Field::OptionalTime(at, range, absent) => {
                let text = written.text()?.trim();
                // The word for "absent" may itself be a duration ("0s"): any way to write that duration will do.
                let time = parse_duration(text);
                let is_absent = text == *absent || (time.is_some() && time == parse_duration(absent));
                *at(target) = if is_absent { None } else { Some(within(time?, range)?) };
            }
            Field::Path(at) => {
                *at(target) = Some(written.path()?);
            }
            Field::Paths(at) => {
                let ValueKind::Array(values) = written.kind else { return None };
                let path = |value: &config::Value| Written { kind: &value.kind, ..*written }.path();
                *at(target) = values.iter().map(path).collect::<Option<_>>()?;
            }
            Field::OnOff(at) => *at(target) = written.switch()?,
            Field::Text(at, (test, _)) => {
                *at(target) = written.text().filter(|text| test(text))?.to_owned();
            }
            Field::OptionalText(at, (test, _)) => {
                *at(target) = Some(written.text().filter(|text| test(text))?.to_owned());
            }
            Field::Headers(at) => *at(target) = HttpHeaders(written.headers()?),
            Field::Words(names, set, _) => {
                let mut chosen = Vec::new();
                for word in written.list()? {
                    let ValueKind::String(word) = word else { return None };
                    let place = names.iter().position(|name| *name == word)?;
                    if chosen.contains(&place) {
                        return None;
                    }
                    chosen.push(place);
                }
                set(target, &chosen);
            }
            Field::Address(at) => *at(target) = Some(written.text()?.parse().ok()?),
            Field::Texts(at) => *at(target) = Some(written.texts()?),
            Field::Switch(at) => *at(target) = Some(written.switch()?),
            Field::Level(at) => {
                let log = at(target);
                let level = LogConfig { level: written.text()?.to_owned(), ..log.clone() };
                level.filter()?;
                *log = level;
            }
            Field::Choice(names, set, _) => {
                let text = written.text()?;
                set(target, names.iter().position(|name| *name == text)?);
            }
        }
        Some(())
    }

    /// What a fault says is expected.
    pub(crate) fn expects(&self) -> String {
        match self {
            Field::Size(_, range) => expects_size(range),
            Field::Count(_, range) => expects_count(range),
            Field::OptionalSize(_, range) => format!("{}, or \"{NONE}\"", expects_size(range)),
            Field::OptionalCount(_, range) => format!("{}, or \"{NONE}\"", expects_count(range)),
            Field::Memory(_, range) => format!("{}, \"{AUTO}\" or \"{NONE}\"", expects_size(range)),
            Field::Networks(_) => {
                "a list of IP addresses and networks, such as [\"127.0.0.1\", \"10.0.0.0/8\", \"fd00::/8\"]"
                    .to_owned()
            }
            Field::SmallCount(_, (min, max)) => format!("a whole number from {min} to {max}"),
            Field::Time(_, range) => expects_time(range),
            Field::OptionalTime(_, range, absent) => format!("{}, or \"{absent}\"", expects_time(range)),
            Field::Path(_) => "a path".to_owned(),
            Field::Address(_) => {
                "an IP address and a port, such as \"127.0.0.1:1883\" or \"[::1]:1883\"".to_owned()
            }
            Field::Texts(_) => "a list of texts, such as [\"a\", \"b\"]".to_owned(),
            Field::Switch(_) | Field::OnOff(_) => "true or false".to_owned(),
            Field::Text(_, (_, expected)) | Field::OptionalText(_, (_, expected)) => (*expected).to_owned(),
            Field::Paths(_) => "a list of paths".to_owned(),
            Field::Headers(_) => "a table of HTTP headers, names and values".to_owned(),
            Field::Words(names, ..) => {
                let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
                format!("a list in which each may stand once: {}", quoted.join(", "))
            }
            Field::Level(_) => {
                "error, warn, info, debug, trace, off, or directives such as \"info,ternmq=debug\"".to_owned()
            }
            Field::Choice(names, ..) => {
                let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
                quoted.join(" or ")
            }
        }
    }

    /// The value in `target` as a file would have it; `None` when it is not set.
    pub(crate) fn show(&self, target: &mut T) -> Option<String> {
        let quoted = |text: &str| format!("{text:?}");
        match self {
            Field::Size(at, _) => Some(quoted(&format_size(*at(target) as u64))),
            Field::Count(at, _) => Some(at(target).to_string()),
            Field::OptionalSize(at, _) => {
                Some(quoted(&at(target).map_or_else(|| NONE.to_owned(), |bytes| format_size(bytes as u64))))
            }
            Field::OptionalCount(at, _) => {
                Some(at(target).map_or_else(|| quoted(NONE), |count| count.to_string()))
            }
            Field::Memory(at, _) => Some(quoted(&match *at(target) {
                MemoryMax::Auto => AUTO.to_owned(),
                MemoryMax::Unbounded => NONE.to_owned(),
                MemoryMax::Bytes(bytes) => format_size(bytes as u64),
            })),
            Field::Networks(at) => {
                let networks: Vec<String> = at(target).iter().map(|n| quoted(&n.to_string())).collect();
                Some(format!("[{}]", networks.join(", ")))
            }
            Field::SmallCount(at, _) => Some(at(target).to_string()),
            Field::Time(at, _) => Some(quoted(&format_duration(*at(target)))),
            Field::OptionalTime(at, _, absent) => {
                Some(quoted(&at(target).map_or_else(|| (*absent).to_owned(), format_duration)))
            }
            Field::Path(at) => at(target).as_ref().map(|path| format!("{path:?}")),
            Field::Address(at) => at(target).map(|address| quoted(&address.to_string())),
            Field::Texts(at) => at(target).as_ref().map(|texts| format!("{texts:?}")),
            Field::Switch(at) => at(target).map(|value| value.to_string()),
            Field::OnOff(at) => Some(at(target).to_string()),
            Field::Text(at, _) => Some(quoted(at(target))),
            Field::OptionalText(at, _) => at(target).as_deref().map(quoted),
            Field::Paths(at) => Some(at(target)).filter(|paths| !paths.is_empty()).map(|p| format!("{p:?}")),
            Field::Headers(at) => {
                let names = at(target).0.iter().map(|(name, _)| format!("{name:?} = …"));
                let names: Vec<String> = names.collect();
                (!names.is_empty()).then(|| format!("{{ {} }}", names.join(", ")))
            }
            Field::Words(names, _, get) => {
                let words = get(target)?;
                let words: Vec<&&str> = words.iter().filter_map(|n| names.get(*n)).collect();
                Some(format!("{words:?}"))
            }
            Field::Level(at) => Some(quoted(&at(target).level)),
            Field::Choice(names, _, get) => names.get(get(target)).map(|name| quoted(name)),
        }
    }
}

/// A range in words; bounds that nobody meets are left out.
fn span(min: u64, max: u64, write: fn(u64) -> String) -> String {
    match (min, max) {
        (0, super::schema::UNBOUNDED) => String::new(),
        (min, super::schema::UNBOUNDED) => format!(", at least {}", write(min)),
        (min, max) => format!(" from {} to {}", write(min), write(max)),
    }
}

fn expects_size((min, max): &Range<usize>) -> String {
    format!("a size such as \"16MB\" or \"64KiB\"{}", span(*min as u64, *max as u64, format_size))
}

fn expects_count((min, max): &Range<usize>) -> String {
    format!("a whole number{}", span(*min as u64, *max as u64, |n| n.to_string()))
}

fn expects_time((min, max): &Range<Duration>) -> String {
    let (min, max) = (format_duration(*min), format_duration(*max));
    format!("a time with its unit (ms, s, m, h, d), such as \"10s\", from {min} to {max}")
}
