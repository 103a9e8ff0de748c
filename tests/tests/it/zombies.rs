//! Processes that are frozen until somebody else has taken their place, and then go on as if nothing had been: nothing of
//! what they still try counts. And processes that are killed again and again.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use logmill_client::{Client, GroupMember};
use logmill_tests::{Running, free_port};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::loops::{Commits, Feed, LIMIT, check_committed, check_steps, read_committed};
use crate::{node, node_at};

/// As short as a node allows.
const SESSION_MS: &str = "1000";
const PARTITIONS: u32 = 4;
/// So many at once that whoever is frozen in the middle of them has some left to try.
const AT_ONCE: u64 = 400;

fn step_loop(url: &str, instance_id: Option<&str>) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logmill-loop"));
    command.args(["steps", url, "g", "in", "out", SESSION_MS]).args(instance_id);
    Running::start(command)
}

/// A client, and the topics `in` and `out`.
fn topics(runtime: &Runtime, url: &str, partitions: u32) -> Client {
    runtime.block_on(async {
        let client = Client::connect(url).await.unwrap();
        for topic in ["in", "out"] {
            client.create_topic(topic, Some(partitions)).await.unwrap();
        }
        client
    })
}

/// What was written is everything once, and so is what is committed.
fn check_all(runtime: &Runtime, client: &Client, sent: u64) {
    runtime.block_on(async {
        for partition in 0..PARTITIONS {
            check_steps(&read_committed(client, "out", partition, sent).await, sent);
        }
        check_committed(client, "g", PARTITIONS, sent).await;
    });
}

#[test]
fn a_member_that_was_frozen_past_its_session_writes_no_step_and_joins_again() {
    let (_dir, node, _program) = node();
    let runtime = Runtime::new().unwrap();
    let client = topics(&runtime, node.url(), PARTITIONS);
    let feed = Feed::begin(&runtime, &client, "in", PARTITIONS, AT_ONCE);
    let commits = Commits::watch(&runtime, &client, "g");
    let first = step_loop(node.url(), None);
    first.wait_for("step", 3);
    first.freeze();
    let had = first.said("assigned");
    assert_eq!(had.len(), PARTITIONS as usize);

    let second = step_loop(node.url(), None);
    let units = PARTITIONS as usize;
    second.wait_for("assigned", units);
    second.wait_for("step", 20);
    first.resume();
    // It was in the middle of what it had been given.
    assert!(had.contains(&first.wait_for("refused", 1)[0]));
    assert_eq!(wait_until_without(&first, units), had.into_iter().collect(), "all that it had");
    works_again(&first, units);

    // The other way round, and at another moment: the two share the units now.
    let shared = second.wait_for("revoked", 2).len();
    second.freeze();
    first.wait_for("assigned", first.said("assigned").len() + units - shared);
    second.resume();
    wait_until_without(&second, units);
    works_again(&second, units);

    let sent = feed.stop(&runtime);
    check_all(&runtime, &client, sent);
    commits.stop(&runtime);
}

/// Waits until it has said of so many assignments that they are not its any more; gives them.
fn wait_until_without(member: &Running, count: usize) -> BTreeSet<String> {
    // Among what came while it was frozen it may find that it was to give a unit up, before it hears that it is lost.
    let gone =
        |member: &Running| [member.said("revoked"), member.said("lost")].concat().into_iter().collect();
    member.wait_until("the end of its assignments", |it| {
        let gone: BTreeSet<String> = gone(it);
        gone.len() >= count
    });
    gone(member)
}

/// Waits until it works on one of the assignments behind the first ones.
fn works_again(member: &Running, first: usize) {
    member.wait_until("a step of a new assignment", |it| {
        let (assigned, steps) = (it.said("assigned"), it.said("step"));
        assigned.iter().skip(first).any(|unit| steps.contains(unit))
    });
}

#[test]
fn step_loops_and_their_node_that_are_killed_leave_each_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let port = free_port();
    let mut node = node_at(&data, port);
    let url = node.url().to_owned();
    let runtime = Runtime::new().unwrap();
    let client = topics(&runtime, &url, PARTITIONS);
    let feed = Feed::begin(&runtime, &client, "in", PARTITIONS, AT_ONCE);
    let commits = Commits::watch(&runtime, &client, "g");

    // One comes again under its instance id, and has its units at once; the other's session has to run out.
    let who = [Some("one"), None];
    let mut loops = who.map(|instance_id| step_loop(&url, instance_id));
    for kill in 0..8 {
        let at = kill % 2;
        loops[at].wait_for("step", 10);
        if kill == 4 {
            // A node that starts awaits for 30 s whom it remembers: nobody of those may be dead.
            let are_there =
                |members: &[GroupMember]| members.len() == 2 && members.iter().all(|it| it.connected);
            runtime.block_on(members(&client, are_there));
            node.kill();
            node = node_at(&data, port);
            runtime.block_on(members(&client, are_there));
        }
        loops[at].kill();
        loops[at] = step_loop(&url, who[at]);
    }
    let sent = feed.stop(&runtime);
    check_all(&runtime, &client, sent);
    commits.stop(&runtime);
    drop(loops);
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_producer_of_transactions_that_was_frozen_is_fenced_by_its_successor() {
    let (_dir, node, program) = node();
    let runtime = Runtime::new().unwrap();
    let client = runtime.block_on(Client::connect(node.url())).unwrap();
    runtime.block_on(client.create_topic("out", Some(2))).unwrap();
    let start = |name: usize| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logmill-loop"));
        command.args(["transactions", node.url(), "billing", "out", &name.to_string()]);
        let producer = Running::start(command);
        // Each is frozen at another place in a transaction.
        producer.wait_for("stored", 20 + name);
        producer
    };
    let mut committed = Vec::new();
    let mut present = start(0);
    for name in 1..6 {
        present.freeze();
        let next = start(name);
        present.resume();
        assert_eq!(present.wait_for("over", 1), ["PRODUCER_FENCED"]);
        committed.push(present.said("committed").len());
        assert_ne!(present.wait(), 0, "who is fenced ends with a failure");
        present = next;
    }
    present.kill();
    committed.push(present.said("committed").len());
    program.ok(["txn", "abort", "billing"]);
    runtime.block_on(check_transactions(&client, &committed));
}

/// Of each producer that committed so many transactions, these are there whole, and in order behind those of the one
/// before; of the last one that was killed one more may be, whose answer nobody heard.
async fn check_transactions(client: &Client, committed: &[usize]) {
    for partition in 0..2 {
        let found = read_committed(client, "out", partition, 0).await;
        let mut expected = Vec::new();
        for (name, count) in committed.iter().enumerate() {
            let is_more = found.contains(&format!("{name} {count} {partition}"));
            for number in 0..count + usize::from(is_more) {
                expected.extend([0, 2, 4].map(|index| format!("{name} {number} {}", index + partition)));
            }
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn consume_that_was_frozen_past_its_session_commits_nothing_and_goes_on_with_another_share() {
    let (_dir, node, program) = node();
    let runtime = Runtime::new().unwrap();
    let client = topics(&runtime, node.url(), 2);
    let feed = Feed::begin(&runtime, &client, "in", 2, AT_ONCE);
    let commits = Commits::watch(&runtime, &client, "g");
    let start = || {
        let args = ["consume", "in", "--group", "g", "--json", "--session-timeout", "1"];
        Running::start(program.command(args))
    };
    let first = start();
    first.wait_for("", 2 * usize::try_from(AT_ONCE).unwrap() + 10);
    first.freeze();
    let second = start();
    second.wait_until("both partitions", |it| [0, 1].iter().all(|of| !numbers(it, *of).is_empty()));
    first.resume();
    let has_one = |member: &GroupMember| member.connected && member.units.len() == 1;
    runtime.block_on(members(&client, |members| members.len() == 2 && members.iter().all(has_one)));
    let sent = feed.stop(&runtime);
    let has_last = |member: &Running, partition| numbers(member, partition).last() == Some(&(sent - 1));
    let is_read = |partition| has_last(&first, partition) || has_last(&second, partition);
    first.wait_until("the last records", |_| is_read(0) && is_read(1));
    let mine = u64::from(has_last(&first, 1));
    assert!(has_last(&first, mine) && has_last(&second, 1 - mine));

    // What the one that was awake has read is without a gap: nobody has committed in its place. Where it had to give a
    // partition up, the other has gone on behind it.
    let [kept, taken] = [1 - mine, mine].map(|partition| numbers(&second, partition));
    for numbers in [&kept, &taken] {
        assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{numbers:?}");
    }
    let next = taken.last().unwrap() + 1;
    assert!(numbers(&first, mine).ends_with(&(next..sent).collect::<Vec<_>>()));
    runtime.block_on(check_committed(&client, "g", 2, sent));
    commits.stop(&runtime);
}

/// Waits until the group has such members.
async fn members(client: &Client, are_so: impl Fn(&[GroupMember]) -> bool) {
    let come = async {
        // A node that has just been killed does not answer.
        while !client.describe_group("g").await.is_ok_and(|group| are_so(&group.members)) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, come).await.unwrap();
}

/// The partition and the number of a record that was printed.
fn record(line: &str) -> (u64, u64) {
    let record: Value = serde_json::from_str(line).unwrap();
    (record["partition"].as_u64().unwrap(), record["value"].as_str().unwrap().parse().unwrap())
}

fn numbers(member: &Running, partition: u64) -> Vec<u64> {
    let lines = member.lines();
    let records = lines.iter().map(|line| record(line));
    records.filter(|(of, _)| *of == partition).map(|(_, number)| number).collect()
}
