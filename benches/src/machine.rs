//! The machine that the figures belong to, and the memory of a process on it.

use std::fs;
use std::hint::black_box;
use std::path::Path;

/// One line on what the figures were taken on.
#[must_use]
pub fn describe_machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} × {model}, Linux {}", kernel.trim())
}

/// The file system that `dir` is on, and its device.
#[must_use]
pub fn describe_file_system(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        Some((words.next()?, words.next()?, words.next()?))
    };
    let holding = mounts.lines().filter_map(mount).filter(|(_, at, _)| dir.starts_with(at));
    holding
        .max_by_key(|(_, at, _)| at.len())
        .map_or_else(|| "an unknown file system".into(), |(device, _, kind)| format!("{kind} on {device}"))
}

/// How busy the machine was in the last minute, as the number of runnable tasks.
#[must_use]
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("unknown").to_owned()
}

/// Writes to as much memory as a bench is about to fill with files, and gives it back: on a machine
/// whose memory nobody has used yet, the first page-cache writes cost several times more.
pub fn touch_memory(bytes: usize) {
    let mut memory = vec![0_u8; bytes];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    black_box(memory);
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it: `VmRSS`.
    pub resident_bytes: u64,
    /// What nobody else can have: `RssAnon`.
    pub anonymous_bytes: u64,
    /// Mapped files, the program's own code among them: `RssFile`.
    pub mapped_bytes: u64,
}

/// The memory of a process now; `None` if there is no such process, or no /proc.
#[must_use]
pub fn memory_of(pid: u32) -> Option<Memory> {
    parse_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_status(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Some(Memory {
        resident_bytes: bytes("VmRSS")?,
        anonymous_bytes: bytes("RssAnon")?,
        mapped_bytes: bytes("RssFile")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processs_memory_adds_up() {
        let status = "Name:\tx\nVmRSS:\t    3072 kB\nRssAnon:\t    1024 kB\nRssFile:\t    2048 kB\n";
        let memory = parse_status(status).expect("it is complete");
        assert_eq!(memory.resident_bytes, memory.anonymous_bytes + memory.mapped_bytes);
        assert_eq!(parse_status("Name:\tx\n"), None);
        assert!(memory_of(std::process::id()).is_some());
    }
}
