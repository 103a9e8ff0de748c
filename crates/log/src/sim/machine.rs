//! The simulated machine: a disk, what is wrong with it, and whether the power is on.

use std::collections::BTreeSet;
use std::io;

use rustix::io::Errno;

use super::disk::{Disk, InodeId};
use super::{Fault, Op, Rule, SimClock, SimRandom};

/// A disk has this capacity unless a test says otherwise: 1 TiB.
const CAPACITY_BYTES: u64 = 1 << 40;

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) disk: Disk,
    pub(super) clock: SimClock,
    pub(super) random: SimRandom,
    pub(super) rules: Vec<Rule>,
    pub(super) capacity_bytes: u64,
    pub(super) lies_about_sync: bool,
    pub(super) locks: BTreeSet<InodeId>,
    /// Which start of the machine this is. What was opened in an earlier one is dead.
    pub(super) boot: u64,
    off: bool,
    off_at: Option<u64>,
    /// At `off_at` the program dies and not the machine.
    dies: bool,
    /// The call in which it went off.
    pub(super) went_off_in: Option<(Op, String)>,
    pub(super) calls: [u64; Op::COUNT],
    pub(super) changes: u64,
    pub(super) faults: u64,
    pub(super) history: Digest,
}

impl Machine {
    pub(super) fn new(clock: SimClock, random: SimRandom) -> Self {
        Self {
            disk: Disk::new(),
            clock,
            random,
            rules: Vec::new(),
            capacity_bytes: CAPACITY_BYTES,
            lies_about_sync: false,
            locks: BTreeSet::new(),
            boot: 0,
            off: false,
            off_at: None,
            dies: false,
            went_off_in: None,
            calls: [0; Op::COUNT],
            changes: 0,
            faults: 0,
            history: Digest::new(),
        }
    }

    /// Every call to the file system passes here first. `Err` if the caller or the machine is
    /// dead; else what strikes the call.
    pub(super) fn strike(&mut self, boot: Option<u64>, op: Op, path: &str) -> io::Result<Option<Fault>> {
        if boot.is_some_and(|boot| boot != self.boot) {
            return Err(io::Error::other("the simulated machine has restarted since: open the file again"));
        }
        self.check_power()?;
        self.calls[op as usize] += 1;
        self.history.add(&[op as u8]);
        self.history.add(path.as_bytes());
        if op.changes() {
            self.changes += 1;
            if self.off_at == Some(self.changes) {
                self.off = true;
                self.went_off_in = Some((op, path.to_owned()));
            }
        }
        let fault = self.rules.iter_mut().find_map(|rule| rule.strike(op, path, &self.random));
        self.faults += u64::from(fault.is_some());
        tracing::trace!(?op, path, ?fault, off = self.off, "simulated call");
        if let Some(Fault::Stall(time)) = fault {
            self.clock.advance(time);
        }
        Ok(fault)
    }

    /// As `strike`, with errors returned. `Ok` holds how many bytes may be transferred.
    pub(super) fn begin(&mut self, boot: Option<u64>, op: Op, path: &str) -> io::Result<usize> {
        match self.strike(boot, op, path)? {
            Some(Fault::Io) => Err(Errno::IO.into()),
            Some(Fault::NoSpace) => Err(Errno::NOSPC.into()),
            Some(Fault::Short(bytes)) => Ok(bytes.max(1)),
            Some(Fault::Stall(_)) | None => Ok(usize::MAX),
        }
    }

    pub(super) fn check_power(&self) -> io::Result<()> {
        if self.off {
            let message = if self.dies {
                "the simulated program was killed: kill() ends what is left of it"
            } else {
                "the simulated machine has no power: crash() starts it again"
            };
            return Err(io::Error::other(message));
        }
        Ok(())
    }

    /// Whether a sync that no rule strikes does its work.
    pub(super) fn syncs(&self) -> bool {
        !self.off && !self.lies_about_sync
    }

    pub(super) fn is_off(&self) -> bool {
        self.off
    }

    pub(super) fn end_at(&mut self, nth: u64, dies: bool) {
        self.off_at = Some(self.changes.saturating_add(nth.max(1)));
        self.dies = dies;
    }

    pub(super) fn crash(&mut self) {
        self.restart();
        self.disk.crash(&self.random);
        self.turn_on();
    }

    pub(super) fn kill(&mut self) {
        self.restart();
        self.disk.close_all();
        if self.dies {
            self.turn_on();
        }
    }

    fn turn_on(&mut self) {
        self.off = false;
        self.off_at = None;
        self.dies = false;
    }

    fn restart(&mut self) {
        self.boot += 1;
        self.locks.clear();
    }

    pub(super) fn available_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.disk.used_bytes())
    }

    /// Up to where a file of `len` bytes can grow, of a wanted `end`.
    pub(super) fn fit(&self, len: usize, end: usize) -> usize {
        // Nothing held in memory fills the default; adding up all files at each write would show.
        if end <= len || self.capacity_bytes == CAPACITY_BYTES {
            return end;
        }
        let available = usize::try_from(self.available_bytes()).unwrap_or(usize::MAX);
        end.min(len.saturating_add(available))
    }
}

/// FNV-1a over parts, each ended by a byte of its own kind so that parts cannot run together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digest(u64);

impl Digest {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        let len = (bytes.len() as u64).to_le_bytes();
        for &byte in len.iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}
