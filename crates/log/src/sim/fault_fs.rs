//! The controls of a simulated disk: what a test does to it from outside the machine.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use super::disk::{self, FileImage, Side};
use super::machine::{Digest, Machine};
use super::{Op, Rule, SimClock, SimRandom};
use crate::env::{Clock, Fs};

/// A file system in memory that loses power, breaks and fills up when told to.
///
/// It is an [`Fs`], and the controls of one: clones share the disk. It keeps what programs see
/// and what the device has apart, for the bytes of each file and for the names in directories.
///
/// **What lasts.** `sync_data` makes the bytes and the length of a file last, not its name;
/// `sync_dir` the names in that directory. [`crash`](Self::crash) keeps of all the rest what the
/// seed says: of each 512-byte sector any version since the last sync, one of them torn at any
/// byte; the length of any moment since, with zeros where bytes are missing; of each name any
/// state since. Three things hold as they do on journalling file systems: a file that is renamed
/// is there under its old name, its new one or both, and a name that it replaces never points
/// to nothing; a directory that is renamed has one name; what was cut off does not come back
/// once the cut has lasted. Nothing orders one file with another.
///
/// **A failed sync** marks the pages clean, as Linux does: the bytes stay readable, some have
/// reached the device, and no later sync carries the others there unless they are written again.
/// [`drop_caches`](Self::drop_caches) makes the loss visible without a crash. A length not synced
/// stays unsynced, and so do names after a `sync_dir` that failed.
///
/// **Space** is counted by the lengths of the files; a hole takes its space.
///
/// ```
/// use std::io::IoSlice;
/// use std::path::Path;
/// use logmill_log::env::{Fs, OpenMode};
/// use logmill_log::sim::Sim;
///
/// # fn main() -> std::io::Result<()> {
/// let sim = Sim::new(42);
/// let file = sim.fs.open(Path::new("/note"), OpenMode::CreateNew)?;
/// file.write_at(&[IoSlice::new(b"kept")], 0)?;
/// file.sync_data()?;
/// sim.fs.sync_dir(Path::new("/"))?;
/// file.write_at(&[IoSlice::new(b" or not")], 4)?;
///
/// sim.fs.crash();
/// assert!(file.status().is_err(), "a handle from before the crash");
/// assert!(sim.fs.read_file("/note")?.starts_with(b"kept"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FaultFs {
    /// Lock order: a leaf, but for the clock's.
    pub(super) machine: Arc<Mutex<Machine>>,
    /// Works only while the machine has not restarted; `None` always works.
    pub(super) boot: Option<u64>,
}

impl FaultFs {
    /// An empty disk: a root directory.
    #[must_use]
    pub fn new(clock: SimClock, random: SimRandom) -> Self {
        Self { machine: Arc::new(Mutex::new(Machine::new(clock, random))), boot: None }
    }

    /// The file system as the programs of this start of the machine have it. After a
    /// [`crash`](Self::crash) or [`kill`](Self::kill) all its calls fail, so that what is left of
    /// a dead program cannot touch the disk.
    #[must_use]
    pub fn mount(&self) -> Arc<dyn Fs> {
        let boot = Some(self.lock_machine().boot);
        Arc::new(Self { machine: Arc::clone(&self.machine), boot })
    }

    /// The power goes and comes back. Handles, mounts and locks from before are dead; rules stay.
    pub fn crash(&self) {
        self.lock_machine().crash();
    }

    /// All programs are killed, but the machine runs on: nothing written is lost. Handles, mounts
    /// and locks from before are dead. A machine without power stays so.
    pub fn kill(&self) {
        self.lock_machine().kill();
    }

    /// Lets the power go during the `nth` call from now that changes the disk (1 is the next; see
    /// [`Op::changes`]). That call and all after it fail until [`crash`](Self::crash).
    pub fn power_off_at(&self, nth: u64) {
        self.lock_machine().end_at(nth, false);
    }

    /// Kills the program during the `nth` call from now that changes the disk. That call has done
    /// its work, unless it was a sync, and is not answered; it and all after it fail until
    /// [`kill`](Self::kill) or [`crash`](Self::crash).
    pub fn die_at(&self, nth: u64) {
        self.lock_machine().end_at(nth, true);
    }

    /// The call in which the power went last, or the program was killed: its kind and its path.
    #[must_use]
    pub fn went_off_in(&self) -> Option<(Op, PathBuf)> {
        let machine = self.lock_machine();
        machine.went_off_in.as_ref().map(|(op, path)| (*op, path.into()))
    }

    /// Whether the power has gone, or the program was killed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock_machine().is_off()
    }

    /// Adds a rule. Of several that could strike a call the one added first does, and the others
    /// do not count that call.
    pub fn inject(&self, rule: Rule) {
        self.lock_machine().rules.push(rule);
    }

    /// Ends all rules.
    pub fn clear_rules(&self) {
        self.lock_machine().rules.clear();
    }

    /// How many faults have struck.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.lock_machine().faults
    }

    /// Sets the size of the device. Bytes above it are refused with ENOSPC.
    pub fn set_capacity_bytes(&self, capacity_bytes: u64) {
        self.lock_machine().capacity_bytes = capacity_bytes;
    }

    /// Lets syncs return `Ok` without doing anything: a planted fault, by which a checker of
    /// durability proves that it can fail.
    pub fn lie_about_sync(&self, lie: bool) {
        self.lock_machine().lies_about_sync = lie;
    }

    /// Lets the page cache forget what is clean, as the kernel does when memory is short. What a
    /// failed sync lost then reads as the device has it.
    pub fn drop_caches(&self) {
        self.lock_machine().disk.drop_caches();
    }

    /// How many calls of a kind were made.
    #[must_use]
    pub fn calls(&self, op: Op) -> u64 {
        self.lock_machine().calls[op as usize]
    }

    /// How many calls were made that change the disk. A test of every crash point runs once
    /// without a crash to learn it, then with [`power_off_at`](Self::power_off_at) 1 and on.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lock_machine().changes
    }

    /// A digest of the whole disk, what programs see and what the device has.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let machine = self.lock_machine();
        let mut digest = Digest::new();
        for side in [Side::Live, Side::Durable] {
            for (path, bytes) in machine.disk.walk(side) {
                digest.add(path.as_bytes());
                digest.add(&bytes.map_or([0; 4], |bytes| crc32fast::hash(bytes).to_le_bytes()));
                digest.add(&bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
            }
        }
        digest.value()
    }

    /// A digest of all calls so far, their kinds and paths, in order: two runs of one seed agree.
    #[must_use]
    pub fn history(&self) -> u64 {
        self.lock_machine().history.value()
    }

    /// The files there are, with their directories, in order.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let machine = self.lock_machine();
        let files = machine.disk.walk(Side::Live).into_iter().filter(|(_, bytes)| bytes.is_some());
        files.map(|(path, _)| path.into()).collect()
    }

    /// The bytes of a file.
    pub fn read_file(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let machine = self.lock_machine();
        let inode = machine.disk.lookup_file(path.as_ref())?;
        Ok(machine.disk.file(inode).live().to_vec())
    }

    /// Puts a file there with these bytes, replacing those it has. It lasts, and so do its name
    /// and its directories, which are created.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let mut machine = self.lock_machine();
        let now = machine.clock.now();
        let inode = machine.disk.plant_file(path.as_ref(), now)?;
        let image = machine.disk.file_mut(inode);
        image.set_len(0, now);
        image.write(bytes.as_ref(), 0, now);
        image.settle();
        Ok(())
    }

    /// Damages a file: turns over one bit (0 to 7) of the byte at a position. This is damage to
    /// bytes at rest: what is unsynced in the file is made to last first. Maps made earlier do
    /// not show it.
    pub fn flip(&self, path: impl AsRef<Path>, position: u64, bit: u8) -> io::Result<()> {
        self.damage(path.as_ref(), |image| {
            let position = usize::try_from(position).map_err(|_| Errno::INVAL)?;
            let byte = *image.live().get(position).ok_or(Errno::INVAL)? ^ (1 << (bit % 8));
            image.write(&[byte], position, image.modified());
            Ok(())
        })
    }

    /// Damages a file: cuts it to `len` bytes, or extends it with zeros, as [`flip`](Self::flip)
    /// does.
    pub fn truncate(&self, path: impl AsRef<Path>, len: u64) -> io::Result<()> {
        self.damage(path.as_ref(), |image| {
            let len = usize::try_from(len).ok().filter(|len| *len <= disk::FILE_LIMIT_BYTES);
            image.set_len(len.ok_or(Errno::FBIG)?, image.modified());
            Ok(())
        })
    }

    fn damage(&self, path: &Path, damage: impl FnOnce(&mut FileImage) -> io::Result<()>) -> io::Result<()> {
        let mut machine = self.lock_machine();
        let inode = machine.disk.lookup_file(path)?;
        let image = machine.disk.file_mut(inode);
        damage(image)?;
        image.settle();
        Ok(())
    }

    pub(super) fn lock_machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock()
    }
}

impl fmt::Debug for FaultFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.lock_machine();
        f.debug_struct("FaultFs")
            .field("boot", &self.boot.unwrap_or(machine.boot))
            .field("off", &machine.is_off())
            .field("changes", &machine.changes)
            .finish_non_exhaustive()
    }
}
