//! The log of topics: kept small, and made anew from the directories.

#![expect(clippy::disallowed_methods, reason = "the operator's hands")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use logmill_broker::{
    Broker, Config, CreateTopic, OpenErrorKind, SettingChange, SettingSource, TopicList, TopicSettings,
    plan_rebuild,
};
use logmill_log::env::Env;
use logmill_log::inspect::plan_repair;
use logmill_log::sim::Sim;
use logmill_log::{LogOptions, LogSet, SetOptions};

use crate::common::{Node, config, on, simulated};

fn metadata_bytes(sim: &Sim) -> usize {
    let files = sim.fs.files().into_iter().filter(|file| {
        file.starts_with("/data/internal/metadata") && file.extension() == Some("log".as_ref())
    });
    files.map(|file| sim.fs.read_file(file).unwrap().len()).sum()
}

#[test]
fn what_was_said_of_deleted_topics_is_forgotten_and_the_others_stay() {
    let sim = Sim::new(11);
    let node = simulated(&sim);
    let settings = TopicSettings::new([("retention.ms", "5000")]).unwrap();
    let kept = CreateTopic::new("kept").settings(settings);
    node.wait(node.broker.create_topic(&node.context, kept)).unwrap();
    for n in 0..200 {
        node.create("comes-and-goes", 1).unwrap();
        node.delete("comes-and-goes").unwrap();
        let changes = vec![SettingChange::set("retention.bytes", n.to_string())];
        node.wait(node.broker.alter_topic(&node.context, "kept", changes)).unwrap();
    }
    sim.scheduler.run_until_idle();
    let before = metadata_bytes(&sim);
    // Each day seals a segment that holds something.
    for day in 0..8 {
        node.create(&format!("day-{day}"), 1).unwrap();
        sim.scheduler.run_for(Duration::from_hours(25));
    }
    let after = metadata_bytes(&sim);
    assert!(after * 10 < before, "{before} bytes became {after}");
    node.broker.close().unwrap();

    let node = simulated(&sim);
    assert_eq!((node.broker.open_report().topics, node.broker.open_report().removing), (9, 0));
    let described = node.wait(node.broker.describe_topic(&node.context, "kept")).unwrap().topic;
    let own = described.settings.into_iter().filter(|setting| setting.source == SettingSource::Topic);
    let own: Vec<_> = own.map(|setting| (setting.name, setting.value)).collect();
    assert_eq!(own, [("retention.bytes", "199".to_owned()), ("retention.ms", "5000".to_owned())]);
    node.broker.close().unwrap();
}

/// A closed node with a grown topic, a deleted one, and one that is compacted.
fn ran(config: Config) {
    let node = Node::open(config);
    node.create("grown", 2).unwrap();
    node.say("grown", 1, "in 1").unwrap();
    node.wait(node.broker.add_partitions(&node.context, "grown", 4)).unwrap();
    node.say("grown", 3, "in 3").unwrap();
    node.create("gone", 1).unwrap();
    node.delete("gone").unwrap();
    let settings = TopicSettings::new([("cleanup.policy", "compact")]).unwrap();
    let empty = CreateTopic { internal: true, ..CreateTopic::new("empty").partitions(3).settings(settings) };
    node.wait(node.broker.create_topic(&node.context, empty)).unwrap();
    node.broker.close().unwrap();
}

/// The topics are there; of `empty` the settings of its own, or the defaults.
fn check(node: &Node, has_settings: bool) {
    let report = node.broker.open_report();
    assert_eq!((report.topics, report.partitions), (2, 7), "{report:?}");
    assert!(report.failed.is_empty() && report.unknown.is_empty(), "{report:?}");
    assert_eq!(node.read_all("grown", 1).unwrap(), ["in 1"]);
    assert_eq!(node.read_all("grown", 3).unwrap(), ["in 3"]);
    let empty = node.wait(node.broker.describe_topic(&node.context, "empty")).unwrap().topic;
    let own = empty.settings.iter().filter(|setting| setting.source != SettingSource::Default);
    let own: Vec<_> = own.map(|setting| (setting.name, setting.value.as_str())).collect();
    assert_eq!(
        (empty.internal, own),
        (true, if has_settings { vec![("cleanup.policy", "compact")] } else { vec![] })
    );
}

#[test]
fn a_lost_log_of_topics_is_made_anew_from_their_directories() {
    let dir = tempfile::tempdir().unwrap();
    ran(config(&dir));
    let metadata = dir.path().join("internal/metadata");
    std::fs::remove_dir_all(&metadata).unwrap();
    let error = Broker::open(config(&dir)).expect_err("the metadata is missing");
    assert_eq!(error.kind(), OpenErrorKind::Damaged);
    let command = format!("'logmill log rebuild-topics {}'", dir.path().display());
    assert!(error.to_string().contains(&command), "{error}");

    let plan = plan_rebuild(&Env::real(), dir.path()).unwrap();
    let planned: Vec<_> =
        plan.topics().iter().map(|topic| (topic.name.as_str(), topic.partition_count)).collect();
    assert_eq!(planned, [("empty", 3), ("grown", 4)]);
    assert!(!metadata.exists(), "a plan changes nothing");
    assert_eq!(plan.execute().unwrap(), None);
    let node = Node::open(config(&dir));
    check(&node, false);
    node.create("gone", 1).unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_damaged_log_of_topics_is_kept_beside_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    ran(config(&dir));
    let log = dir.path().join("internal/metadata/00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[90] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let error = Broker::open(config(&dir)).expect_err("the metadata is damaged");
    assert!(error.to_string().contains("'logmill log rebuild-topics "), "{error}");
    let aside = plan_rebuild(&Env::real(), dir.path()).unwrap().execute().unwrap().unwrap();
    assert_eq!(std::fs::read(dir.path().join(aside).join("00000000000000000000.log")).unwrap(), bytes);
    let node = Node::open(config(&dir));
    check(&node, true);
    node.broker.close().unwrap();
}

/// What is left can be read from end to end, but it does not say all that it ever said.
#[test]
fn a_log_of_topics_that_lost_a_segment_is_not_taken_for_whole() {
    for lost in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        for name in ["first", "middle", "last"] {
            let node = Node::open(config(&dir));
            node.create(name, 1).unwrap();
            node.broker.close().unwrap();
            let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
            set.open_log("internal/metadata", LogOptions::default()).unwrap().roll().unwrap();
            set.close().unwrap();
        }
        let needs_one = || plan_rebuild(&Env::real(), dir.path()).unwrap().is_needed();
        assert!(!needs_one());
        let metadata = dir.path().join("internal/metadata");
        let files = std::fs::read_dir(metadata).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> = files.filter(|path| path.extension() == Some("log".as_ref())).collect();
        segments.sort();
        assert_eq!(segments.len(), 4);
        std::fs::remove_file(&segments[lost]).unwrap();
        assert!(needs_one(), "segment {lost} is gone");
    }
}

#[test]
fn a_rebuild_tells_what_it_cannot_use_and_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let topic = node.create("t", 3).unwrap();
    node.say("t", 2, "x").unwrap();
    let twin = node.create("u", 1).unwrap();
    node.broker.close().unwrap();
    let of = |id: logmill_broker::Uuid, n: &str| dir.path().join("topics").join(id.to_string()).join(n);
    // Not a partition that any topic has.
    std::fs::rename(of(topic.id, "1"), of(topic.id, "7")).unwrap();
    std::fs::write(of(twin.id, "0").join("meta"), b"damaged").unwrap();
    std::fs::remove_dir_all(dir.path().join("internal")).unwrap();
    let plan = plan_rebuild(&Env::real(), dir.path()).unwrap();
    assert_eq!(plan.topics().len(), 1);
    assert_eq!((plan.topics()[0].name.as_str(), &plan.topics()[0].missing[..]), ("t", &[1][..]));
    let mut skipped: Vec<PathBuf> = plan.skipped().iter().map(|it| it.path.clone()).collect();
    skipped.sort();
    let below = |path: PathBuf| path.strip_prefix(dir.path()).unwrap().to_owned();
    let mut expected = [below(of(topic.id, "7")), below(of(twin.id, "0"))];
    expected.sort();
    assert_eq!(skipped, expected);
    plan.execute().unwrap();
    let node = Node::open(config(&dir));
    assert_eq!(node.broker.open_report().failed.len(), 1);
    assert_eq!(node.read_all("t", 2).unwrap(), ["x"]);
    node.broker.close().unwrap();
}

#[test]
fn a_directory_that_is_in_use_or_was_is_not_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let error = plan_rebuild(&Env::real(), dir.path()).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::InUse, "{error}");
    node.broker.close().unwrap();
    let plan = plan_rebuild(&Env::real(), dir.path()).unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    node.broker.close().unwrap();
    let error = plan.execute().unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::InUse, "{error}");
    assert!(error.to_string().contains("look again"), "{error}");
    assert_eq!(Node::open(config(&dir)).broker.open_report().topics, 1);
}

/// Whenever the power goes, the node starts with the topics, or does not start and can be rebuilt again.
#[test]
fn a_rebuild_that_is_cut_off_can_be_run_again() {
    for nth in 1.. {
        let mut sim = Sim::new(12);
        ran(on(&sim));
        sim.fs.flip("/data/internal/metadata/00000000000000000000.log", 90, 0).unwrap();
        let plan = plan_rebuild(&sim.env(), Path::new("/data")).unwrap();
        sim.fs.power_off_at(nth);
        let done = plan.execute();
        let went = sim.fs.is_off();
        assert!(went || done.is_ok(), "change {nth}: {done:?}");
        sim.crash();
        let started = Broker::open(on(&sim)).or_else(|error| {
            assert_eq!(error.kind(), OpenErrorKind::Damaged, "change {nth}: {error}");
            plan_rebuild(&sim.env(), Path::new("/data")).unwrap().execute().unwrap();
            Broker::open(on(&sim))
        });
        let node = Node::of(started.unwrap_or_else(|error| panic!("change {nth}: {error}")));
        check(&node, true);
        node.broker.close().unwrap();
        if !went {
            assert!(nth > 10, "a rebuild changes the disk often: {nth}");
            break;
        }
    }
}

#[test]
fn a_list_that_is_whole_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    ran(config(&dir));
    let plan = || plan_rebuild(&Env::real(), dir.path()).unwrap();
    assert!(!plan().is_needed() && plan().topics().iter().all(|topic| topic.has_settings), "{:?}", plan());
    // A partition that is gone is not the list's fault, and stays in it.
    let grown = plan().topics().iter().find(|topic| topic.name == "grown").unwrap().id;
    std::fs::remove_dir_all(dir.path().join("topics").join(grown.to_string())).unwrap();
    assert!(!plan().is_needed());
    assert_eq!(plan().topics()[1].missing, [0, 1, 2, 3]);
}

#[test]
fn a_list_whose_own_meta_is_lost_keeps_its_settings() {
    let dir = tempfile::tempdir().unwrap();
    ran(config(&dir));
    std::fs::remove_file(dir.path().join("internal/metadata/meta")).unwrap();
    Broker::open(config(&dir)).expect_err("the log of topics is not whole");
    plan_rebuild(&Env::real(), dir.path()).unwrap().execute().unwrap();
    let node = Node::open(config(&dir));
    check(&node, true);
    node.broker.close().unwrap();
}

/// Topics have been changed since a rebuild put the list aside that it replaced.
#[test]
fn settings_of_a_list_that_was_replaced_long_ago_are_not_brought_back() {
    let dir = tempfile::tempdir().unwrap();
    ran(config(&dir));
    let metadata = dir.path().join("internal/metadata");
    std::fs::remove_file(metadata.join("meta")).unwrap();
    plan_rebuild(&Env::real(), dir.path()).unwrap().execute().unwrap();
    std::fs::remove_dir_all(metadata).unwrap();
    let plan = plan_rebuild(&Env::real(), dir.path()).unwrap();
    assert!(plan.topics().iter().all(|topic| !topic.has_settings), "{plan:?}");
}

#[test]
fn a_list_that_a_newer_version_wrote_is_not_taken_for_a_lost_one() {
    let dir = tempfile::tempdir().unwrap();
    ran(config(&dir));
    let meta = dir.path().join("internal/metadata/meta");
    let mut bytes = std::fs::read(&meta).unwrap();
    bytes[4] += 1;
    std::fs::write(&meta, bytes).unwrap();
    let error = plan_rebuild(&Env::real(), dir.path()).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::NewerFormat, "{error}");
}

#[test]
fn topics_without_records_are_found_again_after_the_list_was_repaired() {
    let dir = tempfile::tempdir().unwrap();
    ran(config(&dir));
    let log = dir.path().join("internal/metadata/00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let of_empty = bytes.windows(14).position(|window| window == b"cleanup.policy").unwrap();
    bytes[of_empty] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    plan_repair(&Env::real(), dir.path(), &mut |_| ()).unwrap().execute().unwrap();
    let plan = plan_rebuild(&Env::real(), dir.path()).unwrap();
    let has_settings: Vec<_> = plan.topics().iter().map(|it| (it.name.as_str(), it.has_settings)).collect();
    assert_eq!(has_settings, [("empty", false), ("grown", true)]);
    assert!(plan.is_needed());
    plan.execute().unwrap();
    let node = Node::open(config(&dir));
    check(&node, false);
    node.broker.close().unwrap();
}

/// A closed node with topic `t` of two partitions, a record in each, and its directory.
fn ran_t(dir: &tempfile::TempDir) -> PathBuf {
    let node = Node::open(config(dir));
    let topic = node.create("t", 2).unwrap();
    for partition in 0..2 {
        node.say("t", partition, &format!("in {partition}")).unwrap();
    }
    node.broker.close().unwrap();
    std::fs::remove_dir_all(dir.path().join("internal")).unwrap();
    Path::new("topics").join(topic.id.to_string())
}

/// What a rebuild does not use where it is: the number of its directory, and why.
fn not_used(dir: &tempfile::TempDir, topic: &Path) -> Vec<(String, String)> {
    let plan = plan_rebuild(&Env::real(), dir.path()).unwrap();
    let number = |path: &Path| path.strip_prefix(topic).unwrap().display().to_string();
    plan.skipped().iter().map(|it| (number(&it.path), it.why.clone())).collect()
}

#[test]
fn a_partition_whose_meta_is_lost_belongs_to_the_topic_of_its_neighbour() {
    let dir = tempfile::tempdir().unwrap();
    let topic = ran_t(&dir);
    std::fs::remove_file(dir.path().join(&topic).join("1/meta")).unwrap();
    let found = not_used(&dir, &topic);
    assert!(found.len() == 1 && found[0].0 == "1", "{found:?}");
    assert!(
        found[0].1.contains("it is partition 1 of \"t\"") && found[0].1.contains("log repair"),
        "{found:?}"
    );
    let plan = plan_rebuild(&Env::real(), dir.path()).unwrap();
    assert_eq!(plan.topics()[0].missing, []);
    plan.execute().unwrap();
    let topics = TopicList::read(&Env::real(), dir.path()).unwrap();
    let plan = plan_repair(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    plan.with_owners(|log| topics.owner_of(log)).unwrap().execute().unwrap();
    let node = Node::open(config(&dir));
    assert_eq!(node.read_all("t", 1).unwrap(), ["in 1"]);
    node.broker.close().unwrap();
}

#[test]
fn a_topic_of_which_every_meta_is_lost_is_told_how_to_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let topic = ran_t(&dir);
    for number in ["0", "1"] {
        std::fs::remove_file(dir.path().join(&topic).join(number).join("meta")).unwrap();
    }
    let found = not_used(&dir, &topic);
    let command =
        format!("'logmill log dump {} --log {}/1 --records'", dir.path().display(), topic.display());
    let has = |number: &str, word: &str| found.iter().any(|it| it.0 == number && it.1.contains(word));
    assert!(has("1", &command) && has("0", "so the topic's name is lost"), "{found:?}");
    assert!(plan_rebuild(&Env::real(), dir.path()).unwrap().topics().is_empty());
}

#[test]
fn partitions_that_changed_places_are_told_where_they_belong() {
    let dir = tempfile::tempdir().unwrap();
    let topic = ran_t(&dir);
    let [zero, one, aside] = ["0", "1", "x"].map(|name| dir.path().join(&topic).join(name));
    std::fs::rename(&zero, &aside).unwrap();
    std::fs::rename(&one, &zero).unwrap();
    std::fs::rename(&aside, &one).unwrap();
    let swap = |here: &str, there: u32| {
        (
            here.to_owned(),
            format!("it is partition {there} of \"t\": swap it with {}/{there}", topic.display()),
        )
    };
    assert_eq!(not_used(&dir, &topic), [swap("0", 1), swap("1", 0)]);
    let plan = plan_rebuild(&Env::real(), dir.path()).unwrap();
    assert_eq!((plan.topics()[0].name.as_str(), &plan.topics()[0].missing[..]), ("t", &[0, 1][..]));
    std::fs::remove_dir_all(&one).unwrap();
    assert_eq!(
        not_used(&dir, &topic),
        [("0".to_owned(), format!("it is partition 1 of \"t\": put it in {}/1", topic.display()))]
    );
}
