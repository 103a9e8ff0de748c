//! What can go wrong when segments become one.

use crate::{Catcher, Mutant};

const CRASHES: Catcher =
    Catcher::new("merging", "a_crash_at_any_point_leaves_the_old_segments_or_the_new_one");
const KNOWN: Catcher = Catcher::new("merging", "producers_and_aborted_transactions_are_known_as_before");

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "merge-renames-what-is-rotten",
        breaks: "a damaged new segment takes the place of a whole old one",
        file: "log/src/log/merge/settle.rs",
        find: "if !is_new(&cleaned_path(dir, base, DATA))? {",
        replace: "if false && !is_new(&cleaned_path(dir, base, DATA))? {",
        caught_by: Catcher::new("merging", "what_rots_before_it_has_its_name_costs_nothing"),
    },
    Mutant {
        name: "merge-record-not-synced",
        breaks: "a power cut leaves the new segment and the old ones, and nothing that says which is to stay",
        file: "log/src/log/merge/mod.rs",
        find: "        fs.sync_dir(dir).map_err(|error| Error::io(\"sync\", dir, error))?;\n        self.rename_merged",
        replace: "        self.rename_merged",
        caught_by: CRASHES,
    },
    Mutant {
        name: "merge-record-removed-first",
        breaks: "the old segments stay beside the one that they were merged into",
        file: "log/src/log/merge/settle.rs",
        find: "    remove_segments(fs, dir, &mut record.doomed().to_vec())?;\n    let file = path(dir, base, MERGE);
    atomic::remove_left_over(fs, &file).map_err(|error| Error::io(\"remove\", &file, error))?;\n",
        replace: "    let file = path(dir, base, MERGE);
    atomic::remove_left_over(fs, &file).map_err(|error| Error::io(\"remove\", &file, error))?;
    remove_segments(fs, dir, &mut record.doomed().to_vec())?;\n",
        caught_by: CRASHES,
    },
    Mutant {
        name: "merge-record-ignored-at-open",
        breaks: "a merging that was cut off is not finished",
        file: "log/src/log/recover/mod.rs",
        find: "                settle_merge(&*self.fs, self.dir, base, self.meta.start_offset)?;\n",
        replace: "                let _ = (base, settle_merge);\n",
        caught_by: CRASHES,
    },
    Mutant {
        name: "merge-believes-any-data",
        breaks: "segments go though the one in their place is damaged",
        file: "log/src/log/merge/settle.rs",
        find: "start < next_offset && !is_new(&data)?",
        replace: "false && !is_new(&data)? && start < next_offset",
        caught_by: Catcher::new("merging", "nothing_is_removed_while_the_new_segment_is_damaged"),
    },
    Mutant {
        name: "merge-loses-a-producers-last-batch",
        breaks: "what is known of a producer cannot be made anew from the data",
        file: "log/src/log/merge/mod.rs",
        find: " || producers.contains(&header.last_offset())",
        replace: " || (false && producers.contains(&header.last_offset()))",
        caught_by: KNOWN,
    },
    Mutant {
        name: "merge-forgets-aborted-transactions",
        breaks: "a reader of committed records is given aborted ones",
        file: "log/src/log/merge/mod.rs",
        find: "                before.aborted.extend(state.aborted);\n",
        replace: "",
        caught_by: KNOWN,
    },
];
