//! What can go wrong when segments go or are replaced.

use crate::{CRASH, Catcher, Mutant};

const REMOVAL: Catcher = Catcher::new("retention", "a_crash_at_any_point_of_a_removal_leaves_the_log_whole");
const COMPACTION: Catcher =
    Catcher::new("compaction", "a_crash_at_any_point_of_a_compaction_leaves_each_key_its_last_value");

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "retention-unlinks-before-the-start-is-on-disk",
        breaks: "after a power cut the log begins with segments that are gone",
        file: "log/src/log/retention.rs",
        find: "            self.persist_start(&mut kept, offset)?;
        }
        self.drop_below_start(&mut kept)?;",
        replace: "            self.state.lock().start_offset = offset;
        }
        self.drop_below_start(&mut kept)?;
        if offset > start {
            self.persist_start(&mut kept, offset)?;
        }",
        caught_by: REMOVAL,
    },
    Mutant {
        name: "retention-start-not-on-disk",
        breaks: "records that the owner had removed come back, or their segments are missed",
        file: "log/src/log/retention.rs",
        find: "            atomic::replace(&*self.env.fs, &self.dir.join(meta::FILE), &meta.encode())?;\n",
        replace: "",
        caught_by: CRASH,
    },
    Mutant {
        name: "retention-not-finished-at-open",
        breaks: "what a crash left of removed segments stays for ever",
        file: "log/src/log/recover/mod.rs",
        find: "        doomed.extend(bases.drain(..below));\n",
        replace: "        bases.drain(..below);\n",
        caught_by: REMOVAL,
    },
    Mutant {
        name: "compaction-names-not-synced-before",
        breaks: "new data takes the old one's place while the name of its index can still go",
        file: "log/src/log/replace.rs",
        find: "        sync()?;\n        let mut replaced",
        replace: "        let mut replaced",
        caught_by: COMPACTION,
    },
    Mutant {
        name: "compaction-data-name-not-synced",
        breaks: "the new index can stand beside the old data after a power cut",
        file: "log/src/log/replace.rs",
        find: "let data_synced = sync();",
        replace: "let data_synced = Ok(());",
        caught_by: COMPACTION,
    },
    Mutant {
        name: "compaction-data-not-synced",
        breaks: "a segment is replaced by one whose bytes are not on disk",
        file: "log/src/compaction/rewrite.rs",
        find: "            out.sync_data().map_err(|error| self.failed(error))?;\n",
        replace: "            let _ = out;\n",
        caught_by: CRASH,
    },
    Mutant {
        name: "compaction-gaps-not-announced",
        breaks: "offsets that compaction took out count as damage when the index has to be made anew",
        file: "log/src/log/replace.rs",
        find: "|meta| meta.gaps_below = meta.gaps_below.max(end)",
        replace: "|meta| meta.gaps_below = meta.gaps_below.max(end.min(Offset::ZERO))",
        caught_by: Catcher::new("compaction", "what_compaction_took_out_is_no_damage_when_the_index_is_lost"),
    },
    Mutant {
        name: "compaction-not-settled-at-open",
        breaks: "what a crash left of a compaction is neither finished nor taken back",
        file: "log/src/log/recover/mod.rs",
        find: "            settle(&*self.fs, self.dir, *base)?;\n",
        replace: "            let _ = base;\n",
        caught_by: COMPACTION,
    },
    Mutant {
        name: "compaction-settles-an-index-of-other-data",
        breaks: "an index takes its place beside data that it was not written for",
        file: "log/src/log/replace.rs",
        find: "Ok(found.damage.is_none() && index.footer().headers_crc == footer.headers_crc)",
        replace: "Ok(found.damage.is_none() || index.footer().headers_crc == footer.headers_crc)",
        caught_by: Catcher::new("compaction", "an_index_of_data_that_never_took_its_place_does_not_either"),
    },
    Mutant {
        name: "compaction-of-the-active-end",
        breaks: "what supersedes a record is not on disk, or not decided, when the record goes",
        file: "log/src/log/compact.rs",
        find: "segment.end() <= state.durable.end.min(state.last_stable())",
        replace: "true",
        caught_by: Catcher::new("compaction", "what_may_still_be_taken_back_is_left_alone"),
    },
    Mutant {
        name: "compaction-drops-tombstones-at-once",
        breaks: "a reader that was away learns nothing of a deletion",
        file: "log/src/compaction/clean.rs",
        find: "let gone = counts && self.is_over(header);",
        replace: "let gone = counts;",
        caught_by: Catcher::new("compaction", "a_tombstone_goes_when_readers_have_had_time_to_see_it"),
    },
    Mutant {
        name: "compaction-aborted-takes-the-place",
        breaks: "the last value of a key goes for one that a transaction wrote which was aborted",
        file: "log/src/compaction/clean.rs",
        find: "if header.attributes.is_control() || is_aborted(header, aborted) {",
        replace: "if header.attributes.is_control() || is_aborted(header, &[]) && !aborted.is_empty() {",
        caught_by: Catcher::new(
            "compacted_transactions",
            "readers_of_committed_records_see_the_same_before_and_after",
        ),
    },
    Mutant {
        name: "compaction-aborted-tombstones-go",
        breaks: "a tombstone of an aborted transaction goes, and its batch is read as if it had been committed",
        file: "log/src/compaction/clean.rs",
        find: "let counts = !is_aborted(header, &self.aborted);",
        replace: "let counts = true;",
        caught_by: Catcher::new("compaction", "an_aborted_record_takes_no_value_away"),
    },
    Mutant {
        name: "compaction-drops-the-last-batch",
        breaks: "a segment loses its end, and offsets are missed",
        file: "log/src/log/compact.rs",
        find: "after.record_count == 0 && before.next_offset() < segment.end() && !must_stay",
        replace: "after.record_count == 0 && !must_stay",
        caught_by: CRASH,
    },
    Mutant {
        name: "compaction-forgets-where-epochs-rise",
        breaks: "a reader of lost records is not told that they are gone",
        file: "log/src/log/compact.rs",
        find: "epochs.rises_at(before) || producers",
        replace: "producers",
        caught_by: Catcher::new(
            "epochs",
            "a_reader_of_lost_records_is_found_out_also_where_little_is_left_of_what_replaced_them",
        ),
    },
    Mutant {
        name: "compaction-goes-on-behind-damage",
        breaks: "a record goes because of a later one, and damage is copied as if it were whole",
        file: "log/src/segment/sealed.rs",
        find: "if crc == self.footer.headers_crc {",
        replace: "if crc == self.footer.headers_crc || true {",
        caught_by: Catcher::new("compaction", "compaction_stops_at_damage_and_says_so"),
    },
    Mutant {
        name: "repair-names-not-synced",
        breaks: "a power cut in a repair makes a torn write of damage to what was acknowledged",
        file: "log/src/inspect/repair/mod.rs",
        find: "            fs.sync_dir(dir).map_err(|error| Error::io(\"sync\", dir, error))?;\n",
        replace: "            let _ = dir;\n",
        caught_by: Catcher::new("damage", "repairing::the_names_that_a_repair_goes_by_outlast_it"),
    },
    Mutant {
        name: "repair-takes-the-batch-behind-too",
        breaks: "a repair takes out what is whole",
        file: "log/src/inspect/repair/plan.rs",
        find: "        gone.retain(|gone| !gone.is_empty());\n",
        replace: "        gone.retain(|gone| !gone.is_empty());
        gone.iter_mut().for_each(|gone| gone.end = gone.end.next());
",
        caught_by: Catcher::new("damage", "repairing::a_repair_loses_exactly_the_offsets_that_it_names"),
    },
];
