//! What can go wrong between a producer, its acknowledgement and what readers see.

use crate::SIMULATION;
use crate::harness::{Catcher, Mutant};

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "duplicate-answered-before-durable",
        breaks: "an answer says where a batch is that a power cut can take from there",
        file: "broker/src/produce/mod.rs",
        find: "if acks == Acks::Durable || duplicate {",
        replace: "if acks == Acks::Durable && !duplicate {",
        caught_by: SIMULATION,
    },
    Mutant {
        name: "duplicate-of-what-is-lost-acknowledged",
        breaks: "a batch that is sent again is acknowledged although the sync of the first time has failed",
        file: "broker/src/produce/mod.rs",
        find: "durable.confirm(&self.lane).await?;
                }
                Ok(",
        replace: "let on_disk = durable.confirm(&self.lane).await;
                    if !duplicate {
                        on_disk?;
                    }
                }
                Ok(",
        caught_by: SIMULATION,
    },
    Mutant {
        name: "forgotten-answered-before-durable",
        breaks: "a producer is told that a batch was stored that a power cut can still take",
        file: "broker/src/produce/mod.rs",
        find: "if let Some(durable) = stored {",
        replace: "if let Some(durable) = stored.filter(|_| acks == Acks::None) {",
        caught_by: Catcher::new(
            "behaviour",
            "idempotence::what_is_forgotten_is_answered_only_when_it_is_on_disk_whatever_was_asked_for",
        ),
    },
    Mutant {
        name: "acknowledged-at-written",
        breaks: "what was to be on disk is acknowledged when it is written",
        file: "broker/src/produce/mod.rs",
        find: "if acks == Acks::Durable || duplicate {",
        replace: "if duplicate {",
        caught_by: SIMULATION,
    },
    Mutant {
        name: "preceding-failed-not-enforced",
        breaks: "what is behind a failed request of a stream is stored before it",
        file: "broker/src/produce/order.rs",
        find: "Some(failed) if failed.ticket < self.here.ticket => Err(preceding_failed(name, failed.sequence)),",
        replace: "Some(failed) if failed.ticket > self.here.ticket => Err(preceding_failed(name, failed.sequence)),",
        caught_by: SIMULATION,
    },
    Mutant {
        name: "preceding-failed-not-seen-in-a-group",
        breaks: "a failure in a group does not hold back what is behind it in the same group",
        file: "broker/src/produce/lane/append_group.rs",
        find: "for ready in self.admit(vec![ready], &serving) {",
        replace: "for ready in [ready] {",
        caught_by: Catcher::new(
            "behaviour",
            "idempotence::a_failure_in_the_middle_of_a_group_holds_back_those_behind_it_of_the_same_stream",
        ),
    },
    Mutant {
        name: "first-lost-holds-nothing-back",
        breaks: "the first batch that a failed sync has lost does not hold back what was sent behind it",
        file: "broker/src/produce/order.rs",
        find: "is_some_and(|from| self.first_offset >= from)",
        replace: "is_some_and(|from| self.first_offset > from)",
        caught_by: Catcher::new(
            "behaviour",
            "idempotence::a_failed_sync_holds_back_what_follows_also_when_the_partition_is_open_again",
        ),
    },
    Mutant {
        name: "after-failure-with-a-wrong-sequence",
        breaks: "who knows of a failure may go on behind it, and leave out what failed",
        file: "broker/src/produce/order.rs",
        find: "&& !self.here.goes_on_from(failed)",
        replace: "&& self.here.sequence.is_some_and(|next| next.id < 0)",
        caught_by: Catcher::new(
            "behaviour",
            "idempotence::a_failed_sync_holds_back_what_follows_also_when_the_partition_is_open_again",
        ),
    },
    Mutant {
        name: "reopened-partition-keeps-its-old-lane",
        breaks: "a partition that was opened again is served from the log that has ended",
        file: "broker/src/produce/reopen.rs",
        find: "state.serving = Serving { log: log.clone(), generation, openings };",
        replace: "state.serving = Serving { log: state.serving.log.clone(), generation, openings };",
        caught_by: SIMULATION,
    },
    Mutant {
        name: "offset-of-another-record",
        breaks: "the second batch of a group is answered with an offset of the first",
        file: "broker/src/produce/lane/append_group.rs",
        find: "            first_offset = next;",
        replace: "            first_offset = last_offset;",
        caught_by: SIMULATION,
    },
    Mutant {
        name: "state-kept-after-a-failed-write",
        breaks: "a batch of which the write failed passes for stored when it is sent again",
        file: "log/src/log/append.rs",
        find: "        match self.write(&mut state, group.batches) {
            Ok(appended_at) => {
                state.producers.apply_all(group.batches, &group.notes, first, appended_at);",
        replace:
            "        state.producers.apply_all(group.batches, &group.notes, first, self.env.clock.now());
        match self.write(&mut state, group.batches) {
            Ok(appended_at) => {",
        caught_by: SIMULATION,
    },
    Mutant {
        name: "refused-for-all-and-stored-in-part",
        breaks: "a request of which one partition refuses its part fails as a whole, and the others store theirs",
        file: "broker/src/produce/mod.rs",
        find: "            && let Some(error) = parts.first().and_then(|part| part.answer.as_ref().err())
            && parts.iter().all(|part| part.answer.is_err())",
        replace: "            && let Some(error) = parts.iter().find_map(|part| part.answer.as_ref().err())",
        caught_by: Catcher::new(
            "behaviour",
            "faults::what_one_partition_refuses_at_once_is_told_also_where_nobody_waits_for_the_rest",
        ),
    },
    Mutant {
        name: "truncation-not-told",
        breaks: "a reader of a relaxed topic goes on behind records that were lost, and keeps those",
        file: "broker/src/fetch/place.rs",
        find: "before.is_none_or(|before| before <= epoch)",
        replace: "before.is_none_or(|before| before <= epoch.max(before))",
        caught_by: SIMULATION,
    },
    Mutant {
        name: "reader-past-durable-end",
        breaks: "readers of a durable topic see what a power cut can take back",
        file: "log/src/log/append.rs",
        find: "        if relaxed {\n            state.show_written();",
        replace: "        if true {\n            state.show_written();",
        caught_by: SIMULATION,
    },
    Mutant {
        name: "sequence-off-by-one-at-wrap",
        breaks: "after the largest sequence 0 is not taken",
        file: "log/src/log/producers/note.rs",
        find: "i32::try_from(sum & i64::from(i32::MAX))",
        replace: "i32::try_from(sum % i64::from(i32::MAX))",
        caught_by: Catcher::new("behaviour", "idempotence::sequences_go_on_at_zero_after_the_largest"),
    },
    Mutant {
        name: "reopened-behind-what-is-durable",
        breaks: "a log that is opened again forgets what its producers have on disk",
        file: "log/src/log/recover/active.rs",
        find: "        let mut producers = replay.finish().map_err(read_failed)?;",
        replace: "        replay.finish().map_err(read_failed)?;
        let mut producers = Producers::default();",
        caught_by: SIMULATION,
    },
];
