//! A group whose members come and go all the while: how long units stop that move, and that the others do not.
//!
//! Members are tasks of this process, each with a connection of its own to a node in another one. They join, leave, have
//! their streams broken, and are succeeded under their instance ids, in an order that is the same in every run. A phase
//! of that alternates with one in which nobody comes or goes; a producer writes at the same rate in both.
//!
//! What counts is the longest time between two deliveries to the same owner of a unit, in the one phase and in the other.
//! Every record is looked at as it comes, and it is an error, not a figure, if one is left out, if two members own a unit,
//! or if a unit that its owner has not lost comes to another.
#![expect(clippy::panic, reason = "a bench whose group does wrong has failed")]

mod crowd;
mod feed;
mod ledger;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logmill_bench::{Aim, Node, Row, Run, Series, Unit, compare, percentile};
use logmill_client::Client;
use logmill_log::env::{Clock as _, SystemClock};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crowd::{Book, Counts, Crowd};
use feed::Feed;
use ledger::{Figures, Ledger, Why};

const NODE: &str = env!("CARGO_BIN_EXE_logmill-bench-node");
const TOPIC: &str = "readings";
const GROUP: &str = "readers";
/// Between two records of a partition.
const RECORD_EVERY: Duration = Duration::from_millis(50);
const CHANGE_EVERY: Duration = Duration::from_millis(100);
/// Nothing that is waited for takes nearly as long.
const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    let run =
        Run::begin("a group whose members come and go", Path::new(env!("CARGO_TARGET_TMPDIR")), 1 << 28);
    let runtime = Runtime::new().expect("a runtime starts");
    let (members, partitions) = (run.pick(100, 10), run.pick(200, 20));
    let lasts = run.pick(Duration::from_secs(10), Duration::from_millis(500));
    let dir = run.directory();
    let node = Node::start(NODE, &dir.path().join("data"));
    let scene = RefCell::new(runtime.block_on(Scene::open(&node, members, partitions)));

    let (restless, quiet) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let phase = |with_changes, into: &RefCell<Vec<Phase>>| {
        let phase = runtime.block_on(scene.borrow_mut().phase(lasts, with_changes));
        let longest_ms = ms(phase.figures.longest_gaps.iter().max().copied().unwrap_or_default());
        into.borrow_mut().push(phase);
        longest_ms
    };
    let row = Row {
        title: "the longest time between two deliveries to one owner, of the worst unit",
        conditions: &format!(
            "{members} members with a connection each, {partitions} units with a record of 100 bytes every {} ms each, \
             written and not synced; a change every {} ms or nothing for {lasts:?}; all on the same two cores",
            RECORD_EVERY.as_millis(),
            CHANGE_EVERY.as_millis()
        ),
        unit: Unit::Milliseconds,
        aim: Aim::RatioAtMost(2.0),
    };
    let names = ("while others come and go", "while nobody does");
    compare(&run, &row, (names.0, || phase(true, &restless)), (names.1, || phase(false, &quiet)));
    println!("the same, of the unit in the middle");
    // The first phase of each warms up.
    print_middle(names.0, &restless.borrow()[1..]);
    print_middle(names.1, &quiet.borrow()[1..]);
    print_changes(&restless.borrow()[1..]);
    print_moves(&restless.borrow()[1..]);
    runtime.block_on(scene.into_inner().close());
}

/// A node with a group at work.
struct Scene {
    client: Client,
    book: Arc<Book>,
    crowd: Crowd,
    feed: Feed,
}

struct Phase {
    figures: Figures,
    counts: Counts,
}

impl Scene {
    async fn open(node: &Node, members: usize, partitions: u32) -> Self {
        let client = Client::connect(node.url()).await.expect("the node can be reached");
        // A sync for each record of each partition is not what this is about.
        let settings = [("durability", "relaxed")];
        client.create_topic_with(TOPIC, Some(partitions), &settings).await.expect("the topic is new");
        let ledger = Mutex::new(Ledger::new(partitions as usize));
        let book = Arc::new(Book { clock: SystemClock::new(), ledger });
        let crowd = Crowd::gather(node.url(), Arc::clone(&book), members).await;
        let feed = Feed::begin(&client, partitions, RECORD_EVERY);
        let scene = Self { client, book, crowd, feed };
        scene.settles().await;
        scene
    }

    /// From a balance to a balance: what is left of the changes is waited for, and is part of the figures.
    async fn phase(&mut self, lasts: Duration, with_changes: bool) -> Phase {
        let now = || self.book.clock.monotonic();
        let until = now() + lasts;
        self.crowd.take_counts();
        self.book.ledger.lock().begin_phase(now());
        if with_changes {
            while self.book.clock.monotonic() < until {
                self.crowd.change().await;
                sleep(CHANGE_EVERY).await;
            }
        } else {
            sleep(lasts).await;
        }
        self.settles().await;
        let figures = self.book.ledger.lock().end_phase(self.book.clock.monotonic());
        Phase { figures, counts: self.crowd.take_counts() }
    }

    async fn settles(&self) {
        let settled = async {
            while !self.book.ledger.lock().is_settled() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, settled).await.expect("the group comes to a balance");
    }

    /// Everything was read, and is committed.
    async fn close(self) {
        let Self { client, book, crowd, feed } = self;
        let sent = feed.stop().await;
        let all_read = async {
            while book.ledger.lock().read().any(|read| read < sent) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, all_read).await.expect("all is read");
        crowd.disperse().await;
        let group = client.describe_group(GROUP).await.expect("it is there");
        assert_eq!(group.offsets.len(), book.ledger.lock().read().count());
        assert!(group.offsets.iter().all(|of| of.offset.get() == sent), "{group:?}");
        println!("{sent} records of each unit were read, and all are committed");
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn print_middle(name: &str, phases: &[Phase]) {
    let middle = phases.iter().map(|phase| {
        let gaps = phase.figures.longest_gaps.iter().copied().map(ms).collect::<Vec<_>>();
        percentile(&gaps, 50)
    });
    println!("  {name:<52} {} {}", Series::new(middle.collect()), Unit::Milliseconds);
}

fn print_changes(phases: &[Phase]) {
    let sum = |count: fn(&Phase) -> usize| phases.iter().map(count).sum::<usize>();
    println!(
        "\nchanges: {} joined, {} left, {} were dropped, {} were succeeded; {} assignments",
        sum(|phase| phase.counts.joined),
        sum(|phase| phase.counts.left),
        sum(|phase| phase.counts.dropped),
        sum(|phase| phase.counts.succeeded),
        sum(|phase| phase.figures.assigned),
    );
}

fn print_moves(phases: &[Phase]) {
    println!(
        "units that moved, from the end of the one owner to the first record at the next, p50, p99, most"
    );
    for (why, name) in [
        (Why::Revoked, "revoked, for a member that has less"),
        (Why::Left, "left behind by a member that left"),
        (Why::Succeeded, "dropped, and succeeded under the same instance id"),
        (Why::Dropped, "dropped, with a session time-out of 1 s"),
    ] {
        let of_it = phases.iter().flat_map(|phase| &phase.figures.moves).filter(|(of, _)| *of == why);
        let took = of_it.map(|(_, took)| ms(*took)).collect::<Vec<_>>();
        if !took.is_empty() {
            let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(&took, percent));
            println!("  {name:<52} {p50:.1}, {p99:.1}, {most:.1} ms of {}", took.len());
        }
    }
}
