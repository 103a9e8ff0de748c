//! Writing the checkpoint: at most a second or 64 MiB behind what is durable.
//!
//! One timer at most is set, by the first sync that the file does not speak for; many bytes bring a
//! write forward and leave the timer alone, which then finds less to do, or nothing. A write that
//! fails sets it again by itself: the log that was synced last may never be synced again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::SetInner;
use crate::env::Work;
use crate::error::Error;
use crate::format::{atomic, checkpoint};

/// The checkpoint is never further behind than this, in time or in bytes.
const INTERVAL: Duration = Duration::from_secs(1);
const BYTES: u64 = 64 << 20;

/// The file's name.
pub(crate) const FILE: &str = "checkpoint";

/// What is known of the checkpoint's file.
#[derive(Debug, Default)]
pub(super) struct Checkpointer {
    /// The right to write it.
    pub(super) write: Mutex<()>,
    /// Something was synced that it does not speak for.
    is_stale: AtomicBool,
    /// A timer is set to write it.
    is_armed: AtomicBool,
    synced_since: AtomicU64,
}

impl SetInner {
    /// Some log has more durable bytes: a checkpoint is due in a second, or now if many came.
    pub(crate) fn note_synced(self: &Arc<Self>, bytes: u64) {
        let checkpointer = &self.checkpointer;
        checkpointer.is_stale.store(true, Ordering::Release);
        let since = checkpointer.synced_since.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if since >= BYTES && since - bytes < BYTES {
            let set = Arc::downgrade(self);
            let write = move || {
                if let Some(set) = set.upgrade() {
                    set.write_if_stale();
                }
            };
            self.env.scheduler.spawn(Work::Checkpoint, Box::new(write));
        }
        self.arm_checkpoint();
    }

    fn arm_checkpoint(self: &Arc<Self>) {
        if self.checkpointer.is_armed.swap(true, Ordering::AcqRel) {
            return;
        }
        // The task must not keep a set alive whose handles are gone.
        let set = Arc::downgrade(self);
        let write = move || {
            let Some(set) = set.upgrade() else { return };
            // Cleared first: what becomes durable from here on asks for the next one.
            set.checkpointer.is_armed.store(false, Ordering::Release);
            set.write_if_stale();
        };
        self.env.scheduler.spawn_after(Work::Checkpoint, INTERVAL, Box::new(write));
    }

    /// A late task must not write into a directory that was given back: the closer writes last.
    fn write_if_stale(self: &Arc<Self>) {
        let _turn = self.checkpointer.write.lock();
        if self.closed.load(Ordering::Acquire) || !self.checkpointer.is_stale.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.write_in_turn() {
            tracing::warn!(
                %error,
                "cannot write the checkpoint and tries again in a second; an open would check more until then"
            );
            self.arm_checkpoint();
        }
    }

    /// Writes how far every log is durable.
    pub(super) fn write_checkpoint(&self) -> Result<(), Error> {
        let _turn = self.checkpointer.write.lock();
        self.write_in_turn()
    }

    fn write_in_turn(&self) -> Result<(), Error> {
        // Both before the look at the logs: what they sync after it counts again.
        self.checkpointer.is_stale.store(false, Ordering::Release);
        self.checkpointer.synced_since.store(0, Ordering::Relaxed);
        let rows = {
            let logs = self.logs.lock();
            let mut table = self.table.lock();
            for log in logs.values() {
                table.insert(log.id, log.row());
            }
            table.clone()
        };
        let written = atomic::replace(&*self.env.fs, &self.dir.join(FILE), &checkpoint::encode(&rows));
        if written.is_err() {
            self.checkpointer.is_stale.store(true, Ordering::Release);
        }
        written
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use logmill_record::{Batch, BatchBuilder, NewRecord, TimestampMs};

    use crate::format::checkpoint;
    use crate::sim::{Fault, Op, Rule, Sim};
    use crate::{Log, LogOptions, SetOptions};

    const FILE: &str = "/data/checkpoint";
    const PIECE: usize = 1 << 20;
    const SECOND: Duration = Duration::from_secs(1);
    const MOST_BYTES: u64 = 64 << 20;

    fn batch(bytes: usize) -> Batch {
        let value = vec![b'x'; bytes];
        let mut builder = BatchBuilder::new();
        let record = NewRecord { timestamp: TimestampMs(0), key: None, value: Some(&value), headers: &[] };
        builder.push(&record).expect("a small record");
        builder.build().expect("one record")
    }

    fn open(sim: &Sim) -> Log {
        let options = LogOptions::default().segment_bytes(LogOptions::MAX_SEGMENT_BYTES);
        Log::open("/data", SetOptions::new(sim.env()), options).expect("an empty disk")
    }

    fn append(log: &Log, batch: &Batch) {
        log.append(std::slice::from_ref(batch)).and_then(crate::Receipt::wait).expect("no fault");
    }

    /// Bytes that the log has on disk, and the checkpoint does not say so.
    fn behind(sim: &Sim, log: &Log) -> u64 {
        let durable = log.inner().row().durable.position;
        let Ok(file) = sim.fs.read_file(FILE) else { return durable };
        let rows = checkpoint::decode(Path::new(FILE), &file).expect("written by this version");
        durable - rows.get(&log.id()).map_or(0, |row| row.durable.position)
    }

    #[test]
    fn a_checkpoint_is_at_most_a_second_behind() {
        let sim = Sim::new(1);
        let log = open(&sim);
        for pause_ms in [0, 300, 999, 1_000, 5_000, 61_000] {
            append(&log, &batch(10));
            sim.scheduler.run_for(Duration::from_millis(pause_ms));
            append(&log, &batch(10));
            sim.scheduler.run_for(SECOND);
            assert_eq!(behind(&sim, &log), 0, "after a pause of {pause_ms} ms");
        }
    }

    #[test]
    fn a_checkpoint_is_at_most_64_mib_behind() {
        let sim = Sim::new(1);
        let log = open(&sim);
        let piece = batch(PIECE);
        for _ in 0..3 * MOST_BYTES / 2 / PIECE as u64 {
            append(&log, &piece);
            sim.scheduler.run_until_idle();
            assert!(
                behind(&sim, &log) < MOST_BYTES,
                "no time has passed, and it is {} behind",
                behind(&sim, &log)
            );
        }
        assert!(renames(&sim) > 1 && sim.env().clock.monotonic() < SECOND);
    }

    #[test]
    fn a_checkpoint_that_could_not_be_written_is_tried_again_without_another_append() {
        for (op, fault) in [(Op::Create, Fault::NoSpace), (Op::SyncData, Fault::Io), (Op::Rename, Fault::Io)]
        {
            let sim = Sim::new(1);
            let log = open(&sim);
            append(&log, &batch(10));
            sim.fs.inject(Rule::new(fault).on(op).path("/data/checkpoint*").times(3));
            sim.scheduler.run_for(3 * SECOND);
            assert!(behind(&sim, &log) > 0, "{op:?} failed");
            sim.scheduler.run_for(SECOND);
            assert_eq!(behind(&sim, &log), 0, "{op:?} works again");
        }
    }

    /// A timer that outlived its second would be set again by the next sync, beside the one that
    /// many bytes set, and so on: more checkpoints each second for as long as the load lasts.
    #[test]
    fn checkpoints_under_load_are_as_many_as_its_seconds_and_bytes_ask_for() {
        let sim = Sim::new(1);
        let log = open(&sim);
        let before = renames(&sim);
        let (seconds, syncs_a_second) = (20, 100);
        for _ in 0..seconds * syncs_a_second {
            log.set().inner.note_synced(1 << 20);
            sim.scheduler.run_for(Duration::from_millis(1_000 / syncs_a_second));
        }
        let written = renames(&sim) - before;
        let most = seconds + ((seconds * syncs_a_second) << 20) / MOST_BYTES + 1;
        assert!((seconds..=most).contains(&written), "{written} checkpoints, and {most} are due");
    }

    /// Only checkpoints are renamed in these tests.
    fn renames(sim: &Sim) -> u64 {
        sim.fs.calls(Op::Rename)
    }
}
