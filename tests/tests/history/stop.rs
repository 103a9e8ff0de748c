//! SIGTERM under load: what was acknowledged is there, and the next start has nothing to recover.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logmill_log::sim::SimRandom;
use logmill_log::{LogOptions, LogSet, Recovered, SetOptions};
use logmill_tests::history::Cut;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::disk::Disk;
use crate::producers::{HABITS, produce};
use crate::proxy::{Pace, Proxy, Weather};
use crate::readers::subscribe;
use crate::run::{Scene, connect_through};
use crate::server::Server;
use crate::{LIMIT, logmill};

/// What the next start of a node over `data` finds to do: bytes of segments that it has to read, and what it mends.
async fn recovery(data: &Path) -> (u64, Recovered) {
    let data = data.to_owned();
    let look = move || {
        let set = LogSet::open(&data, SetOptions::default()).unwrap();
        let mut logs = vec![PathBuf::from("internal/metadata")];
        for topic in std::fs::read_dir(data.join("topics")).unwrap() {
            let topic = PathBuf::from("topics").join(topic.unwrap().file_name());
            let partitions = std::fs::read_dir(data.join(&topic)).unwrap();
            logs.extend(partitions.map(|partition| topic.join(partition.unwrap().file_name())));
        }
        let mut scanned_bytes = 0;
        let opened =
            set.open_logs(logs, LogOptions::default(), |so_far| scanned_bytes = so_far.scanned_bytes);
        opened.into_iter().for_each(|log| drop(log.unwrap()));
        let recovered = set.stats().recovered;
        set.close().unwrap();
        (scanned_bytes, recovered)
    };
    spawn_blocking(look).await.unwrap()
}

/// A node and clients that keep it busy.
struct Busy {
    server: Server,
    scene: Arc<Scene>,
    proxies: Vec<Proxy>,
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Busy {
    async fn start(data: &Path) -> Self {
        Self::of(Server::start(logmill(), data).await).await
    }

    async fn of(server: Server) -> Self {
        let scene = Scene::create(server.url()).await;
        let (stop, stopping) = watch::channel(false);
        let mut busy = Self { server, scene, proxies: Vec::new(), clients: JoinSet::new(), stop };
        for (seed, habit) in (0..).zip(HABITS) {
            let client = connect_through(&busy.server, &mut busy.proxies).await;
            let (scene, random) = (Arc::clone(&busy.scene), SimRandom::new(seed));
            busy.clients.spawn(produce(client, habit, scene, random, stopping.clone()));
        }
        let mut acknowledged = busy.scene.acknowledged.subscribe();
        timeout(LIMIT, acknowledged.wait_for(|count| *count > 500)).await.unwrap().unwrap();
        busy
    }

    /// Starts the node again and holds it to all that was said.
    async fn check(mut self) {
        self.server.resume().await;
        self.stop.send_replace(true);
        timeout(LIMIT, self.clients.join_all()).await.expect("producers get their answers");
        let report = self.scene.check(&mut self.server).await;
        assert!(report.anomalies.is_empty(), "{:#?}", report.anomalies);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stopped_under_load_exits_0_and_its_next_start_recovers_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut busy = Busy::start(&data).await;
    assert_eq!(busy.server.terminate().await, 0);
    assert_eq!(recovery(&data).await, (0, Recovered::default()));
    busy.check().await;
}

/// Their connections are open and take nothing: replies, and a subscription's records, go nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_take_nothing_keep_no_node_from_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut busy = Busy::start(&data).await;
    let client = connect_through(&busy.server, &mut busy.proxies).await;
    let (_never, ends) = watch::channel(None);
    let reading = tokio::spawn(subscribe(client, Arc::clone(&busy.scene), ends));
    let held = Weather { to_client: Pace::Held, ..Weather::default() };
    busy.proxies.iter().for_each(|proxy| proxy.set(held));
    assert_eq!(busy.server.terminate().await, 0);
    assert_eq!(recovery(&data).await, (0, Recovered::default()));
    reading.abort();
    busy.proxies.iter().for_each(|proxy| proxy.set(Weather::default()));
    busy.check().await;
}

/// What a process says last, once it has ended but for threads that the kernel does not let go of.
async fn last_words(pid: u32, stderr: &Path) -> String {
    let ended = async {
        // Its first thread is a zombie.
        while !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ") {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LIMIT, ended).await.expect("it ends while its disk hangs");
    std::fs::read_to_string(stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_hangs_when_it_is_stopped_under_load_ends_in_time_says_so_and_loses_nothing() {
    let Some(disk) = Disk::ext4() else {
        // Past the capture of output: nobody is to believe that this was tested.
        let what = "NOT TESTED: a disk that hangs; it takes root, `mount` and `fsfreeze`\n";
        return std::io::stderr().write_all(what.as_bytes()).unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    let (data, stderr) = (disk.path().join("data"), dir.path().join("stderr"));
    let mut server = Server::new(logmill(), &data);
    server.set_args(&["--stop-timeout-ms", "300"]);
    server.set_stderr(stderr.clone());
    server.resume().await;
    let mut busy = Busy::of(server).await;

    let frozen = disk.freeze();
    busy.server.ask_to_stop();
    let said = last_words(busy.server.pid(), &stderr).await;
    let sentence = said.lines().last().unwrap();
    assert!(sentence.starts_with("logmill: ") && sentence.contains("could not be closed cleanly"), "{said}");
    assert!(sentence.contains("the disk has not answered for partition"), "{said}");
    drop(frozen);
    busy.scene.history.cut(&Cut::Kill);
    assert_eq!(busy.server.terminate().await, 1);
    busy.check().await;
}

/// Otherwise the two above could not fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_under_load_has_something_to_recover() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut busy = Busy::start(&data).await;
    busy.server.kill();
    assert!(recovery(&data).await.0 > 0);
    busy.check().await;
}
