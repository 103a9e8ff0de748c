//! What a process costs: processor time and memory, as Linux tells them. On another
//! system there is nothing to read, and the figures are left out.

use std::fs;
use std::time::Duration;

/// The kernel counts processor time in ticks of 10 ms for user space, on every architecture.
const TICK_MS: u64 = 10;

/// What a process has in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// `RssAnon`: its own.
    pub(super) anonymous_bytes: u64,
    /// `RssFile`: pages of files that it has mapped.
    pub(super) file_bytes: u64,
}

impl Memory {
    /// The larger of each.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            anonymous_bytes: self.anonymous_bytes.max(other.anonymous_bytes),
            file_bytes: self.file_bytes.max(other.file_bytes),
        }
    }
}

/// A process that may be asked what it costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(u32);

impl Process {
    pub(super) fn own() -> Self {
        Self(std::process::id())
    }

    pub(super) fn other(pid: u32) -> Self {
        Self(pid)
    }

    /// User and system time since it started.
    pub(super) fn cpu_time(self) -> Option<Duration> {
        parse_stat(&fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?)
    }

    /// What it has now.
    pub(super) fn memory(self) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        Some(Memory {
            anonymous_bytes: parse_bytes(&status, "RssAnon:")?,
            file_bytes: parse_bytes(&status, "RssFile:")?,
        })
    }
}

/// The name of the program, in brackets, may hold anything: the fields count from its end.
fn parse_stat(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * TICK_MS))
}

/// Memory that programs could have without anybody giving up theirs: `MemAvailable`.
pub(super) fn free_memory_bytes() -> Option<u64> {
    parse_bytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// The value of a line such as `RssAnon:  12 kB`.
fn parse_bytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 99 0 0 0 250 50 0 0 20 0 4 0 1 2 3";
        assert_eq!(parse_stat(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_stat("7 (cut) S 1"), None);
    }

    #[test]
    fn the_peak_of_each_kind_of_memory_is_kept() {
        let memory = |anonymous_bytes, file_bytes| Memory { anonymous_bytes, file_bytes };
        assert_eq!(memory(1, 9).max(memory(5, 2)), memory(5, 9));
    }

    #[test]
    fn this_process_costs_something() {
        assert!(Process::own().cpu_time().is_some());
        let memory = Process::own().memory().expect("it can be read");
        assert!(memory.anonymous_bytes > 0 && memory.file_bytes > 0, "{memory:?}");
        assert_eq!(parse_bytes("Name:\tx\nRssAnon:\t    12 kB\n", "RssAnon:"), Some(12 * 1024));
    }
}
