//! What can go wrong from an append to its acknowledgement, and when a segment is sealed.

use crate::{CRASH, Catcher, Mutant};

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "append-undo-not-waited-for",
        breaks: "the undo of a failed append cuts what the log has acknowledged since it was opened again",
        file: "log/src/log/close.rs",
        find: "self.wait_until(|state| !state.task_queued && !state.parking && !state.undoing);\n    }",
        replace: "self.wait_until(|state| !state.task_queued && !state.parking);\n    }",
        caught_by: Catcher::new("undo", "a_log_is_not_opened_again_before_its_failed_append_is_taken_back"),
    },
    Mutant {
        name: "append-acknowledged-before-sync",
        breaks: "receipts resolve and readers see records before the sync has begun",
        file: "log/src/log/sync.rs",
        find: "        let begun = self.env.clock.monotonic();\n        file.sync_data()",
        replace: "        let begun = self.env.clock.monotonic();
        self.waiters.publish_durable(target.end, target.end);
        file.sync_data()",
        caught_by: CRASH,
    },
    Mutant {
        name: "append-never-synced",
        breaks: "data is acknowledged from the page cache",
        file: "log/src/log/sync.rs",
        find: "        file.sync_data()\n            .map_err(|error| Error::io(\"sync\", &path(&self.dir, target.active_base, DATA), error))?;",
        replace: "        drop(file);",
        caught_by: CRASH,
    },
    Mutant {
        name: "append-seen-before-sync",
        breaks: "readers of a durable log see what a power cut can take back",
        file: "log/src/log/append.rs",
        find: "        if relaxed {\n            state.show_written();",
        replace: "        if true {\n            state.show_written();",
        caught_by: CRASH,
    },
    Mutant {
        name: "append-sync-tried-again",
        breaks: "after a sync that failed the next one is believed, which the kernel answers with success",
        file: "log/src/log/sync.rs",
        find: "Err(error) => self.poison(&error),\n        }\n        let mut state",
        replace: "Err(error) => tracing::warn!(%error, \"once more\"),\n        }\n        let mut state",
        caught_by: CRASH,
    },
    Mutant {
        name: "append-sync-beside-an-undo-believed",
        breaks: "a sync counts although the undo of a failed append met the error that was meant for it",
        file: "log/src/log/sync.rs",
        find: "if state.poisoned || matches!(state.phase, Phase::Undoing) {",
        replace: "if false {",
        caught_by: Catcher::new("faults", "a_sync_that_was_not_told_of_an_error_is_not_believed"),
    },
    Mutant {
        name: "append-failed-write-not-cut",
        breaks: "the bytes of an append that was told to have failed stay in the file",
        file: "log/src/log/append.rs",
        find: "file.set_len(len).and_then(|()| file.sync_data())",
        replace: "{ let _ = len; file.sync_data() }",
        caught_by: CRASH,
    },
    Mutant {
        name: "append-undo-not-synced",
        breaks: "a power cut brings back what the caller was told is not there",
        file: "log/src/log/append.rs",
        find: "file.set_len(len).and_then(|()| file.sync_data())",
        replace: "file.set_len(len)",
        caught_by: CRASH,
    },
    Mutant {
        name: "append-dirty-file-closed",
        breaks: "a file is closed with unsynced bytes in it, and the error of their write-back is lost",
        file: "log/src/log/file.rs",
        find: "matches!(self.phase, Phase::Open) && self.unsynced_bytes() == 0",
        replace: "matches!(self.phase, Phase::Open)",
        caught_by: CRASH,
    },
    Mutant {
        name: "append-short-write-passes",
        breaks: "a write that was short is not carried on, and passes for whole",
        file: "log/src/format/atomic.rs",
        find: "                IoSlice::advance_slices(&mut parts, written);\n",
        replace: "                break;\n",
        caught_by: CRASH,
    },
    Mutant {
        name: "seal-before-sync",
        breaks: "the last bytes of a segment are sealed, and acknowledged, without a sync of their own",
        file: "log/src/log/sync.rs",
        find: "        file.sync_data()\n            .map_err(|error| Error::io(\"sync\", &path(&self.dir, target.active_base, DATA), error))?;",
        replace: "        if !matches!(self.state.lock().phase, Phase::Rolling) {
            file.sync_data()
                .map_err(|error| Error::io(\"sync\", &path(&self.dir, target.active_base, DATA), error))?;
        }",
        caught_by: CRASH,
    },
    Mutant {
        name: "seal-next-segment-not-synced",
        breaks: "the name of the next segment can go, with all that was acknowledged in it",
        file: "log/src/log/roll.rs",
        find: "        fs.sync_dir(&self.dir).map_err(|error| RollError::Sync(Error::io(\"sync\", &self.dir, error)))?;\n",
        replace: "",
        caught_by: CRASH,
    },
    Mutant {
        name: "seal-failed-directory-sync-forgiven",
        breaks: "a log goes on in a segment whose name may not be on disk",
        file: "log/src/log/roll.rs",
        find: "Err(RollError::Sync(error)) => self.poison(&error),",
        replace: "Err(RollError::Sync(error)) => self.roll_failed(error),",
        caught_by: Catcher::new(
            "faults",
            "a_log_whose_directory_could_not_be_synced_in_a_roll_takes_nothing_more",
        ),
    },
    Mutant {
        name: "checkpoint-ahead-of-sync",
        breaks: "the checkpoint promises what is written and not synced",
        file: "log/src/log/state.rs",
        find: "self.promised.unwrap_or(self.durable)",
        replace: "self.promised.unwrap_or(Durable {
            active_base: self.active.base(),
            end: self.written_end(),
            position: self.active.len(),
        })",
        caught_by: CRASH,
    },
    Mutant {
        name: "small-file-not-synced",
        breaks: "meta, checkpoint and set are renamed into place before their bytes are on disk",
        file: "log/src/format/atomic.rs",
        find: "write_all(&*file, &mut [IoSlice::new(bytes)], 0)?;\n    file.sync_data()",
        replace: "write_all(&*file, &mut [IoSlice::new(bytes)], 0)",
        caught_by: CRASH,
    },
    Mutant {
        name: "small-file-name-not-synced",
        breaks: "a power cut takes meta, checkpoint or set back to what they were before",
        file: "log/src/format/atomic.rs",
        find: "    fs.sync_dir(dir).map_err(|error| Error::io(\"sync\", dir, error))\n",
        replace: "    let _ = dir;\n    Ok(())\n",
        caught_by: CRASH,
    },
    Mutant {
        name: "append-keeps-a-file-for-nothing",
        breaks: "a log that waits for its turn to open a file waits for ever",
        file: "log/src/log/append.rs",
        find: "if !matches!(step, Ok(Step::Done(_))) {",
        replace: "if false {",
        caught_by: Catcher::new(
            "budgets",
            "a_file_that_was_opened_for_nothing_goes_to_the_log_that_waits_for_it",
        ),
    },
    Mutant {
        name: "seal-failure-not-told",
        breaks: "an append that no segment can be begun for waits for one roll after the other",
        file: "log/src/log/roll.rs",
        find: "            if state.roll_awaited {\n",
        replace: "            state.roll_error = None;\n            if state.roll_awaited {\n",
        caught_by: Catcher::new(
            "faults",
            "an_append_is_told_that_no_segment_can_be_begun_while_rolls_by_age_fail_too",
        ),
    },
];
