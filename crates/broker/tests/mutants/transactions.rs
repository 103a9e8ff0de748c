//! What can go wrong with transactions, with the units of groups, and with both at once.

use crate::harness::{Catcher, Mutant};

/// The simulation of groups, with fewer seeds than the default suite has.
const GROUPS: Catcher = Catcher {
    setting: Some(("LOGMILL_SIMULATION_SEEDS", "400")),
    ..Catcher::new("simulation_groups", "transactions_are_whole_units_have_one_owner_and_steps_one_effect")
};

/// The same with more seeds, for what takes a disk that fails in a certain moment.
const MANY_GROUPS: Catcher = Catcher { setting: Some(("LOGMILL_SIMULATION_SEEDS", "1500")), ..GROUPS };

const DELETED: Catcher =
    Catcher::new("behaviour", "groups::no_epoch_of_a_group_that_was_deleted_comes_again_also_after_a_start");

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "txn-marker-before-decision",
        breaks: "a partition is told that a transaction is committed, and a power cut takes the decision",
        file: "broker/src/transaction/end.rs",
        find: "        log.write(batch_about(name, &known), &core.timer, &core.closing).await?;
        mark_all(core, &ending.touched, self.next.markers, self.outcome).await?;",
        replace: "        mark_all(core, &ending.touched, self.next.markers, self.outcome).await?;
        log.write(batch_about(name, &known), &core.timer, &core.closing).await?;",
        caught_by: GROUPS,
    },
    Mutant {
        name: "txn-decided-before-its-records-are-on-disk",
        breaks: "a transaction is committed, and a power cut takes records of it that were written",
        file: "broker/src/transaction/end.rs",
        find: "lost = all_durable(&ending.touched).await.err();",
        replace: "lost = None::<Error>;",
        caught_by: GROUPS,
    },
    Mutant {
        name: "txn-step-decided-before-its-records-are-on-disk",
        breaks: "a step is committed, and a failed sync takes records of it that were written",
        file: "broker/src/transaction/step/commit.rs",
        find: "Ok(appends) => all_durable(&touched).await.map(|()| appends),",
        replace: "Ok(appends) => Ok(appends),",
        caught_by: GROUPS,
    },
    Mutant {
        name: "txn-only-the-last-log-is-asked",
        breaks: "what a partition has lost when it was opened again is not missed by the transaction that goes on there",
        file: "broker/src/transaction/admit.rs",
        find: "for (generation, last) in written {",
        replace: "if let Some((generation, last)) = written.into_iter().next_back() {",
        caught_by: Catcher::new(
            "behaviour",
            "transactions::what_was_lost_is_missed_also_where_the_transaction_went_on_in_the_partition",
        ),
    },
    Mutant {
        name: "txn-stable-before-its-marker",
        breaks: "readers see what a transaction wrote whose marker a failed sync takes",
        file: "log/src/log/producers/mod.rs",
        find: "open.into_iter().chain(ended).min()",
        replace: "ended.and(open).or(open)",
        caught_by: GROUPS,
    },
    Mutant {
        name: "txn-offsets-count-before-the-decision",
        breaks: "a group goes on behind what a transaction has read that is aborted",
        file: "broker/src/transaction/end.rs",
        find: "    let ended = decision.carry_out(core, name, &ending).await;",
        replace: "    for AddedOffsets { at, commits, .. } in &ending.offsets {
        core.offsets.apply(*at, commits.clone());
    }
    let ended = decision.carry_out(core, name, &ending).await;",
        caught_by: GROUPS,
    },
    Mutant {
        name: "txn-replaced-producer-goes-on",
        breaks: "a producer that another has replaced writes under the transactional id, and ends the transaction",
        file: "broker/src/transaction/entry.rs",
        find: "if producer == self.producer {",
        replace: "if producer.id == self.producer.id {",
        caught_by: GROUPS,
    },
    Mutant {
        name: "group-commit-goes-back-after-a-restart",
        breaks: "a slow worker's commit takes back what its member had committed before the node was restarted",
        file: "broker/src/offsets/record.rs",
        find: "TAG_UNIT_EPOCH => unit_epoch = Some(field.i32(\"epoch of the unit\")?),",
        replace: "TAG_UNIT_EPOCH => _ = field.i32(\"epoch of the unit\")?,",
        caught_by: Catcher::new(
            "behaviour",
            "groups::within_an_assignment_a_group_only_goes_forward_also_over_a_restart",
        ),
    },
    Mutant {
        name: "txn-ends-by-marks-where-nothing-was-written",
        breaks: "a transaction that a damaged partition has refused never ends",
        file: "broker/src/transaction/end.rs",
        find: "if marked.is_ok() || touched.has_nothing_of(producer.id) {",
        replace: "if marked.is_ok() {",
        caught_by: Catcher::new(
            "behaviour",
            "damage::a_transaction_or_step_that_a_damaged_partition_refuses_ends_all_the_same",
        ),
    },
    Mutant {
        name: "step-unit-has-many-names",
        breaks: "a step that is sent again by another spelling of its unit has a second effect",
        file: "broker/src/group/coordinator.rs",
        find: "number.parse().ok().filter(|partition: &u32| partition.to_string() == number)?;",
        replace: "number.parse().ok()?;",
        caught_by: Catcher::new("behaviour", "steps::a_unit_has_one_name"),
    },
    Mutant {
        name: "group-describe-takes-every-thread",
        breaks: "who looks at a group while a disk does not answer keeps readers of all others waiting",
        file: "broker/src/group/describe.rs",
        find: "let _turn = partition?.reads().try_take()?;",
        replace: "partition?;",
        caught_by: Catcher::new(
            "behaviour",
            "stalls::a_read_that_stalls_leaves_threads_to_those_who_read_elsewhere",
        ),
    },
    Mutant {
        name: "txn-epoch-is-asked-while-it-is-written",
        breaks: "a disk that does not answer holds up every timer and every marker",
        file: "log/src/set/handle.rs",
        find: "self.inner.epoch.load(Ordering::Acquire)",
        replace: "epoch_of(self.inner.file.lock().open_counter)",
        caught_by: Catcher::new(
            "behaviour",
            "stalls::an_epoch_that_is_being_written_holds_up_no_timer_and_no_marker",
        ),
    },
    Mutant {
        name: "txn-begin-not-written",
        breaks: "a transactional id that was given out is not known after a start",
        file: "broker/src/transaction/operations.rs",
        find: "let written = core.transactions.log.write(batch_about(name, &known), &core.timer, &core.closing).await;",
        replace: "let _ = batch_about(name, &known);
    let written: Result<(), Error> = Ok(());",
        caught_by: GROUPS,
    },
    Mutant {
        name: "txn-goes-on-after-a-start",
        breaks: "a producer goes on in a transaction of which a power cut took what was acknowledged as written",
        file: "broker/src/transaction/recover.rs",
        find: "    core.transactions.table.lock().fence_all(|| core.fresh_producer_id());\n",
        replace: "",
        caught_by: GROUPS,
    },
    Mutant {
        name: "txn-recovery-takes-what-came-after-the-decision",
        breaks: "a start commits records of the transaction after the one that was decided",
        file: "broker/src/transaction/recover.rs",
        find: "Status::Decided(outcome) if decides(known, open) => Some(outcome),",
        replace: "Status::Decided(outcome) if decides(known, open) || true => Some(outcome),",
        caught_by: GROUPS,
    },
    Mutant {
        name: "txn-recovery-forgets-a-partition",
        breaks: "a decision is complete for a start that could not open one of its partitions",
        file: "broker/src/transaction/recover.rs",
        find: "self.of.filter(|(_, known)| self.decided.is_none() || !has_unavailable_partition(core, known));",
        replace: "self.of;",
        caught_by: MANY_GROUPS,
    },
    Mutant {
        name: "txn-take-over-tells-the-new-epoch",
        breaks: "whoever was taken over asks again how its last transaction ended, and is told who writes now",
        file: "broker/src/transaction/table.rs",
        find: "(entry.last, entry.producer_before_restart) = (None, None);",
        replace: "entry.producer_before_restart = None;",
        caught_by: Catcher::new(
            "behaviour",
            "transactions::who_begins_anew_fences_who_wrote_before_and_aborts_what_it_left",
        ),
    },
    Mutant {
        name: "txn-take-over-takes-late-records",
        breaks: "a record of the old producer begins the first transaction of the new one, and is committed with it",
        file: "broker/src/transaction/table.rs",
        find: "                entry.state = State::Ending { outcome: Outcome::Abort, started_at: now };
                Ok(Some(entry.producer))",
        replace: "                let _ = now;
                Ok(Some(entry.producer))",
        caught_by: GROUPS,
    },
    Mutant {
        name: "txn-ends-with-records-under-way",
        breaks: "a record is acknowledged as written while its transaction is being committed, and a failed sync takes it",
        file: "broker/src/transaction/end.rs",
        find: "    let _ = ending.under_way.empty().await;\n",
        replace: "",
        caught_by: Catcher::new(
            "behaviour",
            "beside_the_end::what_was_answered_beside_the_end_is_committed_with_the_rest_or_nothing_is_whatever_sync_fails",
        ),
    },
    Mutant {
        name: "group-assigned-before-persisted",
        breaks: "a unit is a member's, and a power cut takes that: its epoch is given out once more",
        file: "broker/src/group/coordinator.rs",
        find: "            let written = written.await;
            if let Err(error) = &written {",
        replace: "            coordinator.update(&again, |state, now| {
                rows.iter().for_each(|row| state.machine.persisted(now, &row.unit, row.epoch));
            });
            let written = written.await;
            if let Err(error) = &written {",
        caught_by: GROUPS,
    },
    Mutant {
        name: "group-does-not-settle",
        breaks: "a unit is another's while its former owner's commit is on its way",
        file: "broker/src/group/coordinator.rs",
        find: "            let _ = under_way.empty().await;",
        replace: "            drop(under_way);",
        caught_by: GROUPS,
    },
    Mutant {
        name: "group-epochs-of-deleted-groups-come-again",
        breaks: "who had a unit of a group that was deleted commits for one of the same name",
        file: "broker/src/offsets/mod.rs",
        find: "*highest = highest.max(epoch);",
        replace: "let _ = epoch;",
        caught_by: DELETED,
    },
    Mutant {
        name: "group-forgotten-epochs-not-read",
        breaks: "the same, if the node was started in between",
        file: "broker/src/offsets/mod.rs",
        find: "self.forget_up_to(units.forgotten);",
        replace: "",
        caught_by: DELETED,
    },
    Mutant {
        name: "group-who-left-is-awaited",
        breaks: "a member that has left keeps its units for a session time-out after a start",
        file: "broker/src/group/machine/drive.rs",
        find: "(Stage::Free, None) if unit.names_member => self.persist(id, None),",
        replace: "",
        caught_by: Catcher::new("behaviour", "groups::who_has_left_before_a_start_is_not_awaited_after_it"),
    },
    Mutant {
        name: "group-stale-epoch-accepted",
        breaks: "whoever has lost a unit commits, and makes steps",
        file: "broker/src/group/hold.rs",
        find: "state.machine.check(None, &id, AssignmentEpoch(epoch)).map_err(",
        replace: "state.machine.check(None, &id, AssignmentEpoch(epoch)).or_else(|_| Ok::<_, Stale>(())).map_err(",
        caught_by: GROUPS,
    },
    Mutant {
        name: "group-succeeded-keeps-its-units",
        breaks: "a static member has come for another, whose steps go on to count",
        file: "broker/src/group/machine/join.rs",
        find: "            self.remove_member(&former);
            for unit",
        replace: "            self.members.remove(&former);
            for unit",
        caught_by: GROUPS,
    },
    Mutant {
        name: "group-succession-moves-units",
        breaks: "what a static member had goes to whoever has least when another comes for it",
        file: "broker/src/group/machine/join.rs",
        find: "unit.target = Some(join.member.clone());",
        replace: "unit.target = None;",
        caught_by: GROUPS,
    },
    Mutant {
        name: "group-change-that-failed-stands-after-a-start",
        breaks: "an operator is told that a deletion failed, members are told where the group was, and a start forgets it",
        file: "broker/src/offsets/rewrite.rs",
        find: "                Err(_) => {
                    let keys = changes.into_iter().map(|(key, _)| key).collect();
                    core.offsets.write_current(&core, keys).await;
                }",
        replace: "                Err(_) => (),",
        caught_by: Catcher::new(
            "behaviour",
            "groups::a_deletion_that_failed_and_is_on_disk_is_taken_back_there",
        ),
    },
    Mutant {
        name: "group-dry-reset-resets",
        breaks: "an operator who asks what a reset would do has done it",
        file: "broker/src/group/rewrite.rs",
        find: "            if !execute {",
        replace: "            if !execute && resets.is_empty() {",
        caught_by: GROUPS,
    },
    Mutant {
        name: "group-reset-unseen-by-who-joins",
        breaks: "whoever joins while a group is reset goes on where it was, and takes the group there again",
        file: "broker/src/group/coordinator.rs",
        find: "            again.offsets.rewritten(&coordinator.name).await;",
        replace: "            drop(again.offsets.rewritten(&coordinator.name));",
        caught_by: Catcher::new(
            "behaviour",
            "groups::who_joins_while_a_group_is_reset_goes_on_where_the_reset_says",
        ),
    },
    Mutant {
        name: "group-growth-untold",
        breaks: "nobody reads the new partitions of a topic until somebody joins",
        file: "broker/src/catalog/grow.rs",
        find: "    core.groups.topic_exists(core, &grown);\n",
        replace: "",
        caught_by: GROUPS,
    },
    Mutant {
        name: "group-offsets-read-to-the-first-open-transaction",
        breaks: "a start whose disk fails forgets commits that were acknowledged",
        file: "broker/src/internal/mod.rs",
        find: "(log.start_offset(), log.end_offset());",
        replace: "(log.start_offset(), log.last_stable_offset());",
        caught_by: Catcher::new(
            "behaviour",
            "steps_cut_off::a_start_whose_disk_fails_knows_what_was_committed_behind_a_transaction_that_it_cannot_end",
        ),
    },
    Mutant {
        name: "group-commit-applied-out-of-order",
        breaks: "a transaction's offsets, which were written before a commit, count after it",
        file: "broker/src/offsets/mod.rs",
        find: "if of.get(&place).is_none_or(|entry| entry.at <= at) {",
        replace: "if of.get(&place).is_none_or(|entry| entry.at <= at || entry.at > at) {",
        caught_by: Catcher::new("behaviour", "steps::what_counts_is_what_was_written_last"),
    },
    Mutant {
        name: "step-of-other-content-passes-for-the-last",
        breaks: "who makes another step of more under the number of one that was committed loses the rest",
        file: "broker/src/transaction/table.rs",
        find: "if step.input_checksum != header.input_checksum() {",
        replace: "if false {",
        caught_by: Catcher::new(
            "behaviour",
            "steps::another_step_under_the_number_of_the_last_one_is_refused",
        ),
    },
    Mutant {
        name: "step-repeated-runs-again",
        breaks: "a step whose answer was lost has a second effect",
        file: "broker/src/transaction/table.rs",
        find: "return Ok(StepCheck::Repeated(step.appended.clone()));",
        replace: "drop(step.appended.clone());
            return Ok(StepCheck::Fresh(entry.producer));",
        caught_by: GROUPS,
    },
    Mutant {
        name: "step-after-one-without-markers",
        breaks: "a step comes after one that was decided and could not be marked, and its markers end both",
        file: "broker/src/transaction/step/commit.rs",
        find: "        if ended.is_err() {",
        replace: "        if ended.is_err() && false {",
        caught_by: Catcher::new(
            "behaviour",
            "steps_cut_off::a_step_that_comes_twice_at_once_is_whole_when_the_node_closes_before_its_markers",
        ),
    },
];
