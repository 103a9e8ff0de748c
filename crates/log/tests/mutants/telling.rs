//! What can go wrong in what a log tells of leader epochs, and shows without its lock.

use crate::{Catcher, Mutant};

const EPOCHS: Catcher =
    Catcher::new("epochs", "epochs_are_those_of_the_batches_and_readers_learn_of_what_was_lost");

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "epoch-gap-not-looked-for",
        breaks: "a place before the first batch that compaction left is given that batch's epoch",
        file: "log/src/segment/sealed_epochs.rs",
        find: "Ok(one.filter(|_| self.first_batch(&loaded) < offset))",
        replace: "Ok(one)",
        caught_by: EPOCHS,
    },
    Mutant {
        name: "epoch-of-the-batch-at-the-place",
        breaks: "a reader at the first batch of an epoch is told that it has lost what is before",
        file: "log/src/segment/epoch_search.rs",
        find: "rfind(|(begins, _)| *begins < offset)",
        replace: "rfind(|(begins, _)| *begins <= offset)",
        caught_by: EPOCHS,
    },
    Mutant {
        name: "epoch-ends-with-its-row",
        breaks: "a reader that has lost something goes on before what it still has",
        file: "log/src/segment/epoch_search.rs",
        find: ".map_or(self.begins, |(offset, _)| *offset)",
        replace: ".map_or(self.begins, |_| self.begins)",
        caught_by: EPOCHS,
    },
    Mutant {
        name: "epoch-of-this-opening-too-early",
        breaks: "what was there when the log was opened counts as appended since",
        file: "log/src/log/epochs.rs",
        find: "_ if offset > own_from => Some(view.epoch),",
        replace: "_ if offset >= own_from => Some(view.epoch),",
        caught_by: EPOCHS,
    },
    Mutant {
        name: "epoch-search-passes-the-start",
        breaks: "records that are not kept any more decide what a reader is told",
        file: "log/src/log/epochs.rs",
        find: "            if offset <= view.start_offset {\n",
        replace: "            if false {\n",
        caught_by: EPOCHS,
    },
    Mutant {
        name: "view-waits-for-a-write",
        breaks: "whoever asks where a log ends waits for the write of an append",
        file: "log/src/log/handle.rs",
        find: "self.inner.state.seen(|view| view.visible.end)",
        replace: "self.inner.state.lock().visible().end",
        caught_by: Catcher::new("waits", "what_a_log_shows_does_not_wait_for_a_write"),
    },
];
