//! What the kernel knows about a process: CPU time of all its threads, and the memory it holds.

use std::fs;
use std::time::Duration;

use crate::error::{Error, Result};

/// One tick of `/proc/PID/stat`: USER_HZ is 100 on every Linux platform we run on.
const TICK: Duration = Duration::from_millis(10);

/// A process under observation.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pid: u32,
}

/// CPU time at one moment, by both of the kernel's accounts.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    /// utime + stime of `stat`: includes threads that have ended, but counts in ticks.
    ticks: Duration,
    /// Sum over the living threads, to nanoseconds.
    threads: Duration,
}

impl Process {
    /// The process with this number; it must exist.
    pub fn new(pid: u32) -> Result<Self> {
        let process = Self { pid };
        process.cpu()?;
        Ok(process)
    }

    /// CPU time used so far.
    pub fn cpu(self) -> Result<Cpu> {
        let stat = self.read("stat")?;
        let ticks = cpu_ticks(&stat).ok_or_else(|| Error("/proc/PID/stat cannot be read".to_owned()))?;
        let mut threads = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            // A thread may end between the listing and here.
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
            threads += Duration::from_nanos(nanos.unwrap_or(0));
        }
        Ok(Cpu { ticks: TICK * ticks, threads })
    }

    /// Resident memory in bytes: exact, where the kernel offers an exact count.
    pub fn rss(self) -> Result<u64> {
        let kilobytes = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let exact = self.read("smaps_rollup").ok().and_then(|text| kilobytes(&text, "Rss:"));
        let kilobytes = match exact {
            Some(found) => found,
            None => kilobytes(&self.read("status")?, "VmRSS:")
                .ok_or_else(|| Error("/proc/PID/status has no VmRSS".to_owned()))?,
        };
        Ok(kilobytes * 1024)
    }

    /// Resident memory once it stopped changing: allocators and workers settle a moment after the load ends.
    pub fn settled_rss(self) -> Result<u64> {
        let mut last = self.rss()?;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.rss()?;
            if now.abs_diff(last) <= 4096 {
                return Ok(now);
            }
            last = now;
        }
        Ok(last)
    }

    fn read(self, file: &str) -> Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid))
            .map_err(|error| Error(format!("process {}: {file}: {error}", self.pid)))
    }
}

impl Cpu {
    /// CPU time used between two moments. The precise account loses threads that ended; the other does not.
    pub fn since(self, earlier: Self) -> Duration {
        let ticks = self.ticks.saturating_sub(earlier.ticks);
        let threads = self.threads.saturating_sub(earlier.threads);
        if ticks > threads + 2 * TICK { ticks } else { threads }
    }
}

/// Fields 14 and 15, counted after the name: that may contain spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace().skip(11);
    let user: u32 = words.next()?.parse().ok()?;
    let system: u32 = words.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_does_not_shift_the_fields() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 140 26 0 0 20 0 5 0 99";
        assert_eq!(cpu_ticks(stat), Some(166));
    }

    #[test]
    fn own_work_is_seen() {
        let process = Process::new(std::process::id()).unwrap();
        let before = process.cpu().unwrap();
        let mut sum = 0u64;
        while process.cpu().unwrap().since(before) < Duration::from_millis(5) {
            sum = (0..100_000).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
        }
        let memory = vec![1u8; 32 << 20];
        assert!(process.rss().unwrap() > 32 << 20, "{}", memory[sum as usize % 2]);
    }
}
