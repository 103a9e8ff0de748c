//! What can go wrong in what is known of producers and their transactions.

use crate::{CRASH, Catcher, Mutant};

/// Histories of producers over crashes, held against what their batches say.
const HISTORIES: Catcher = Catcher {
    setting: Some(("LOGMILL_PRODUCER_SEEDS", "150")),
    ..Catcher::new("producers", "what_is_known_of_producers_follows_from_the_batches_whatever_happens")
};

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "producer-advanced-by-a-failed-write",
        breaks: "a batch whose write failed is answered as a duplicate when it is sent again",
        file: "log/src/log/append.rs",
        find: "        state.phase = Phase::Undoing;\n",
        replace: "        let first = state.written_end();
        state.producers.apply_all(group.batches, &group.notes, first, self.env.clock.now());
        state.phase = Phase::Undoing;\n",
        caught_by: Catcher::new("producers", "a_failed_append_counts_for_nothing"),
    },
    Mutant {
        name: "producer-duplicate-answered-before-sync",
        breaks: "a batch that is sent again is acknowledged while the first one is not on disk",
        file: "log/src/log/futures.rs",
        find: "        Pin::new(&mut self.on_disk).poll(context)\n",
        replace: "        if self.duplicate {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.on_disk).poll(context)\n",
        caught_by: Catcher::new("producers", "a_duplicate_is_answered_only_when_the_first_is_on_disk"),
    },
    Mutant {
        name: "producer-duplicates-not-looked-for",
        breaks: "a batch that is sent again is not recognised",
        file: "log/src/log/producers/check.rs",
        find: "if let Some(known) = self.known(notes)? {",
        replace: "if let Some(known) = self.known(notes)?.filter(|_| false) {",
        caught_by: HISTORIES,
    },
    Mutant {
        name: "producer-gap-taken",
        breaks: "a batch is taken although one before it was lost",
        file: "log/src/log/producers/check.rs",
        find: "            Self::Only(expected) if first == expected => Ok(()),\n",
        replace: "            Self::Only(expected) if first >= expected => Ok(()),\n",
        caught_by: HISTORIES,
    },
    Mutant {
        name: "producer-state-not-compared",
        breaks: "a .state is believed although it was written for other contents of its segment",
        file: "log/src/format/state.rs",
        find: "if !of.is(footer) {",
        replace: "if false {",
        caught_by: Catcher::new("sidecars", "what_was_known_of_producers_at_another_time_is_not_believed"),
    },
    Mutant {
        name: "producer-state-not-replayed",
        breaks: "batches since the last good .state are not known of",
        file: "log/src/log/sidecar.rs",
        find: "            replay_segment(dir, segment, &mut producers, &open_data)?;\n",
        replace: "",
        caught_by: HISTORIES,
    },
    Mutant {
        name: "producer-forgotten-by-compaction",
        breaks: "compaction takes out the batch that a producer's sequence follows from",
        file: "log/src/log/compact.rs",
        find: "before.next_offset() < segment.end() && !must_stay",
        replace: "before.next_offset() < segment.end()",
        caught_by: Catcher::new("producers", "compaction_keeps_what_is_known_of_producers"),
    },
    Mutant {
        name: "transaction-stable-before-its-marker",
        breaks: "a reader of committed records goes past a marker that a power cut can take back",
        file: "log/src/log/producers/mod.rs",
        find: "open.into_iter().chain(ended).min()",
        replace: "ended.and(open).or(open)",
        caught_by: Catcher::new("producers", "what_is_stable_moves_with_the_marker_on_disk"),
    },
    Mutant {
        name: "transaction-abort-forgotten-at-seal",
        breaks: "aborted records of a sealed segment are read as committed",
        file: "log/src/log/producers/mod.rs",
        find: "StateFile { producers: self.by_id.values().cloned().collect(), aborted: self.aborted.clone() }",
        replace: "StateFile { producers: self.by_id.values().cloned().collect(), aborted: Vec::new() }",
        caught_by: HISTORIES,
    },
    Mutant {
        name: "producer-batches-forgotten-at-open",
        breaks: "a batch that is sent again after a restart is taken for a new one, or refused",
        file: "log/src/log/producers/mod.rs",
        find: "        for producer in producers {\n            table.by_use",
        replace: "        for mut producer in producers {
            producer.batches.clear();
            table.by_use",
        caught_by: CRASH,
    },
    Mutant {
        name: "producer-found-in-the-tail-ignored",
        breaks: "a batch behind the checkpoint that is sent again after a crash is written twice",
        file: "log/src/log/recover/active.rs",
        find: "            replay.visit(header);\n",
        replace: "            if header.base_offset < floor.end {
                replay.visit(header);
            }
",
        caught_by: CRASH,
    },
    Mutant {
        name: "transaction-marker-ignored",
        breaks: "a transaction that was committed holds readers of committed records back for ever",
        file: "log/src/log/producers/mod.rs",
        find: "Kind::Commit => self.end(&mut producer, last_offset, false),",
        replace: "Kind::Commit => {}",
        caught_by: CRASH,
    },
    Mutant {
        name: "transaction-abort-counts-as-commit",
        breaks: "records of an aborted transaction are read as committed",
        file: "log/src/log/producers/mod.rs",
        find: "Kind::Abort => self.end(&mut producer, last_offset, true),",
        replace: "Kind::Abort => self.end(&mut producer, last_offset, false),",
        caught_by: CRASH,
    },
];
