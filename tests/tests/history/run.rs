//! One history: producers and readers, each behind a proxy of its own, over a node to which a seed happens.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logmill_client::Client;
use logmill_log::sim::SimRandom;
use logmill_record::Offset;
use logmill_tests::history::{History, Place, Report, Visible};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::faults::Faults;
use crate::producers::{HABITS, produce};
use crate::proxy::Proxy;
use crate::readers::{fetch, read_whole, subscribe};
use crate::server::Server;
use crate::{LIMIT, logmill};

/// What everybody who takes part in a history knows.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) history: History,
    pub(crate) places: Vec<Place>,
    /// How many records were acknowledged so far.
    pub(crate) acknowledged: watch::Sender<u64>,
}

/// How much happens in a history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) faults: u32,
    /// The longest time that a fault lasts.
    pub(crate) longest: Duration,
}

type Settings = &'static [(&'static str, &'static str)];

/// Topics, their partitions, and their settings: several partitions, many small segments, readers that see
/// what is not synced.
const TOPICS: [(&str, u32, Settings); 3] = [
    ("plain", 2, &[]),
    ("rolling", 1, &[("segment.bytes", "65536")]),
    ("relaxed", 1, &[("durability", "relaxed"), ("flush.ms", "100")]),
];

impl Scene {
    /// Makes the topics of a new node.
    pub(crate) async fn create(url: &str) -> Arc<Self> {
        let (client, history) = (Client::connect(url).await.unwrap(), History::new());
        let mut places = Vec::new();
        for (topic, partitions, settings) in TOPICS {
            if settings.contains(&("durability", "relaxed")) {
                history.visible(topic, Visible::Written);
            }
            client.create_topic_with(topic, Some(partitions), settings).await.unwrap();
            places.extend((0..partitions).map(|partition| Place::new(topic, partition)));
        }
        Arc::new(Self { history, places, acknowledged: watch::Sender::new(0) })
    }

    /// Looks at what is there in the end, and at everything. The node is stopped and started before, so that
    /// readers can see what was answered as written.
    pub(crate) async fn check(&self, server: &mut Server) -> Report {
        assert_eq!(server.terminate().await, 0);
        server.resume().await;
        let client = Client::connect(server.url()).await.unwrap();
        for place in &self.places {
            let (start, records) = read_whole(&client, place).await;
            self.history.contents(place, start, records);
        }
        self.history.check()
    }

    async fn ends(&self, url: &str) -> Vec<Offset> {
        let client = Client::connect(url).await.unwrap();
        let mut ends = Vec::new();
        for (topic, ..) in TOPICS {
            let described = client.describe_topic(topic).await.unwrap();
            ends.extend(described.partitions.iter().map(|partition| partition.end_offset));
        }
        ends
    }
}

/// Lets a seed happen, over a node in `data`.
pub(crate) async fn run(seed: u64, plan: Plan, data: &Path) -> Report {
    let random = SimRandom::new(seed);
    let mut server = Server::start(logmill(), data).await;
    let scene = Scene::create(server.url()).await;
    let (stop, stopping) = watch::channel(false);
    let (ends, at_ends) = watch::channel(None);
    let (mut producers, mut readers, mut proxies) = (JoinSet::new(), JoinSet::new(), Vec::new());
    for habit in HABITS {
        let client = connect_through(&server, &mut proxies).await;
        producers.spawn(produce(client, habit, Arc::clone(&scene), random.fork(), stopping.clone()));
    }
    for _ in 0..2 {
        let client = connect_through(&server, &mut proxies).await;
        readers.spawn(subscribe(client, Arc::clone(&scene), at_ends.clone()));
        let client = connect_through(&server, &mut proxies).await;
        readers.spawn(fetch(client, Arc::clone(&scene), at_ends.clone()));
    }
    let faults = Faults {
        random,
        history: &scene.history,
        server: &mut server,
        proxies: &proxies,
        acknowledged: scene.acknowledged.subscribe(),
        longest: plan.longest,
    };
    faults.run(plan.faults).await;

    stop.send_replace(true);
    all(producers, "producers get their answers").await;
    ends.send_replace(Some(scene.ends(server.url()).await));
    all(readers, "readers come to the ends").await;
    let report = scene.check(&mut server).await;
    assert!(report.anomalies.is_empty(), "seed {seed}: {}", said(&report, &scene.history));
    report
}

/// A client that gives up sooner than most do, so that there are more who begin anew.
pub(crate) async fn connect_through(server: &Server, proxies: &mut Vec<Proxy>) -> Client {
    let proxy = server.proxy().await;
    let builder = Client::builder(&proxy.url()).request_timeout(Duration::from_secs(2));
    proxies.push(proxy);
    builder.connect().await.unwrap()
}

async fn all(tasks: JoinSet<()>, what: &str) {
    timeout(LIMIT, tasks.join_all()).await.expect(what);
}

/// What was found, and what came before.
fn said(report: &Report, history: &History) -> String {
    let anomalies: Vec<String> = report.anomalies.iter().map(ToString::to_string).collect();
    format!("{}\nthe last operations:\n{}", anomalies.join("\n"), history.last(50))
}
