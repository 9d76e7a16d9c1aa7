//! The result of a run: one line of JSON for programs, one for people.

use std::fmt::Write;
use std::time::Duration;

use crate::error::Result;
use crate::payload::Faults;
use crate::probe::{Cpu, Process};

/// Clocks around the measured part of a run.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    broker: Process,
    own: Process,
    broker_cpu: Cpu,
    own_cpu: Cpu,
    began: std::time::Instant,
}

/// What passed between the two ends of a `Span`.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// CPU time of the broker.
    pub broker: Duration,
    /// CPU time of this program.
    pub own: Duration,
    /// Time on the clock.
    pub wall: Duration,
}

impl Span {
    /// Starts the clocks.
    pub fn begin(broker: Process) -> Result<Self> {
        let own = Process::new(std::process::id())?;
        let (broker_cpu, own_cpu) = (broker.cpu()?, own.cpu()?);
        Ok(Self { broker, own, broker_cpu, own_cpu, began: std::time::Instant::now() })
    }

    /// When they were started.
    pub fn began(&self) -> std::time::Instant {
        self.began
    }

    /// Reads the clocks.
    pub fn end(self) -> Result<Spent> {
        let wall = self.began.elapsed();
        let broker = self.broker.cpu()?.since(self.broker_cpu);
        Ok(Spent { broker, own: self.own.cpu()?.since(self.own_cpu), wall })
    }
}

/// Names and numbers in the order they were found.
#[derive(Debug)]
pub struct Report {
    scenario: &'static str,
    qos: u8,
    numbers: Vec<(String, f64)>,
    faults: Faults,
    notes: Vec<String>,
}

impl Report {
    /// An empty report.
    pub fn new(scenario: &'static str, qos: u8) -> Self {
        Self { scenario, qos, numbers: Vec::new(), faults: Faults::default(), notes: Vec::new() }
    }

    /// Adds a number; its name ends in its unit.
    pub fn number(&mut self, name: impl Into<String>, value: f64) {
        self.numbers.push((name.into(), value));
    }

    /// A number that was added before.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.numbers.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// CPU of broker and generator per `unit`, and units per second.
    pub fn per_unit(&mut self, unit: &str, count: u64, spent: Spent) {
        let count = count.max(1) as f64;
        self.number(format!("cpu_us_per_{unit}"), spent.broker.as_secs_f64() * 1e6 / count);
        self.number(format!("load_cpu_us_per_{unit}"), spent.own.as_secs_f64() * 1e6 / count);
        self.number(format!("{unit}_per_s"), count / spent.wall.as_secs_f64());
        self.number(format!("{unit}_seconds"), spent.wall.as_secs_f64());
    }

    /// 50th, 99th and 99.9th percentile and the largest of `nanos`, in microseconds.
    pub fn percentiles(&mut self, name: &str, nanos: &mut [u64]) {
        nanos.sort_unstable();
        for (label, per_mille) in [("p50", 500), ("p99", 990), ("p999", 999), ("max", 1000)] {
            let at = (nanos.len() * per_mille / 1000).min(nanos.len().saturating_sub(1));
            let value = nanos.get(at).copied().unwrap_or(0);
            self.number(format!("{name}_{label}_us"), value as f64 / 1e3);
        }
    }

    /// Adds what deliveries were wrong.
    pub fn faults(&mut self, faults: &Faults) {
        self.faults.missing += faults.missing;
        self.faults.disordered += faults.disordered;
        self.faults.corrupt += faults.corrupt;
    }

    /// Something that makes the run invalid.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Whether everything arrived as it must.
    pub fn is_clean(&self) -> bool {
        self.faults.is_clean() && self.notes.is_empty()
    }

    /// One line of JSON.
    pub fn json(&self) -> String {
        let mut line = format!(
            "{{\"scenario\":\"{}\",\"qos\":{},\"ok\":{},\"missing\":{},\"disordered\":{},\"corrupt\":{}",
            self.scenario,
            self.qos,
            self.is_clean(),
            self.faults.missing,
            self.faults.disordered,
            self.faults.corrupt
        );
        for (name, value) in &self.numbers {
            let value = if value.is_finite() { *value } else { 0.0 };
            // Writing into a String cannot fail.
            let _ = write!(line, ",\"{name}\":{value:.4}");
        }
        let notes: Vec<String> = self.notes.iter().map(|note| format!("\"{}\"", escape(note))).collect();
        let _ = write!(line, ",\"notes\":[{}]}}", notes.join(","));
        line
    }

    /// One line for people.
    pub fn human(&self) -> String {
        let mut line = format!("{} QoS {}:", self.scenario, self.qos);
        for (name, value) in &self.numbers {
            let digits = if value.abs() < 100.0 { 3 } else { 0 };
            let _ = write!(line, " {name}={value:.digits$}");
        }
        if !self.is_clean() {
            let Faults { missing, disordered, corrupt } = self.faults;
            let _ = write!(line, " WRONG: {missing} missing, {disordered} disordered, {corrupt} corrupt");
            self.notes.iter().for_each(|note| line.push_str(&format!("; {note}")));
        }
        line
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\\' => escaped.extend(['\\', character]),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped_and_says_whether_the_run_counts() {
        let mut report = Report::new("fan-in", 1);
        report.number("x_us", 1.5);
        assert!(report.is_clean());
        report.note("a \"b\"\\\n");
        assert!(!report.is_clean());
        assert_eq!(
            report.json(),
            "{\"scenario\":\"fan-in\",\"qos\":1,\"ok\":false,\"missing\":0,\"disordered\":0,\"corrupt\":0,\
             \"x_us\":1.5000,\"notes\":[\"a \\\"b\\\"\\\\ \"]}"
        );
    }

    #[test]
    fn percentiles_are_taken_from_the_sorted_values() {
        let mut report = Report::new("rate", 0);
        let mut nanos: Vec<u64> = (1..=1000).rev().map(|n| n * 1000).collect();
        report.percentiles("latency", &mut nanos);
        let values: Vec<f64> = report.numbers.iter().map(|(_, value)| *value).collect();
        assert_eq!(values, [501.0, 991.0, 1000.0, 1000.0]);
    }
}
