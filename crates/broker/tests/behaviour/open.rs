//! A data directory that cannot be had is refused in a sentence that says why.

#![expect(clippy::disallowed_methods, reason = "the operator's hands")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::{fs, io};

use logmill_broker::{Broker, Config, OnOpen, OpenError, OpenErrorKind, Uuid, plan_rebuild};
use logmill_log::env::Env;
use logmill_log::inspect::plan_repair;
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{LogOptions, LogSet, SetOptions};
use logmill_record::{BatchBuilder, NewRecord, TimestampMs};
use parking_lot::Mutex;

use crate::common::hook_fs::{Call, hooked};
use crate::common::{Node, config, on, with_env};

fn refused(config: Config) -> OpenError {
    Broker::open(config).expect_err("this directory cannot be opened")
}

#[test]
fn a_directory_that_is_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let error = refused(config(&dir));
    assert_eq!(error.kind(), OpenErrorKind::InUse);
    assert!(error.to_string().contains("in use by another process"), "{error}");
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    node.broker.close().unwrap();
    Node::open(config(&dir)).broker.close().unwrap();
}

#[test]
fn a_plain_file_and_a_directory_of_something_else_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("photo.jpg");
    fs::File::create_new(&file).unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = refused(Config::new(&path));
        assert_eq!(error.kind(), OpenErrorKind::NotADataDirectory, "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    let error = refused(config(&dir));
    assert_eq!(error.kind(), OpenErrorKind::NotADataDirectory);
    assert!(error.to_string().contains("photo.jpg"), "{error}");
}

#[test]
fn a_directory_without_the_right_to_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let denied = hooked(|call, _| match call {
        Call::Lock => Err(io::ErrorKind::PermissionDenied.into()),
        Call::Read | Call::Write | Call::Sync | Call::Space => Ok(()),
    });
    let error = refused(with_env(&dir, denied));
    assert_eq!(error.kind(), OpenErrorKind::Denied);
    assert!(error.to_string().contains("give this user the rights"), "{error}");
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Node::open(config(&dir)).broker.close().unwrap();
    // The version stands behind the four letters that say what the file is.
    let set = fs::OpenOptions::new().write(true).open(dir.path().join("set")).unwrap();
    set.write_all_at(&[0x7F], 4).unwrap();
    let error = refused(config(&dir));
    assert_eq!(error.kind(), OpenErrorKind::NewerFormat, "{error}");
    assert!(error.to_string().contains("newer"), "{error}");
}

/// Appends a record to the metadata log, as another version of the program could have.
fn append_metadata(dir: &tempfile::TempDir, key: &[u8], value: &[u8]) {
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = set.open_log("internal/metadata", LogOptions::default()).unwrap();
    let mut batch = BatchBuilder::new();
    let record = NewRecord { timestamp: TimestampMs(0), key: Some(key), value: Some(value), headers: &[] };
    batch.push(&record).unwrap();
    log.append(&[batch.build().unwrap()]).unwrap().wait().unwrap();
    set.close().unwrap();
}

#[test]
fn metadata_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    node.broker.close().unwrap();
    append_metadata(&dir, &[7; 16], &[3, 1, 0]);
    let error = refused(config(&dir));
    assert_eq!(error.kind(), OpenErrorKind::NewerFormat, "{error}");
    assert!(error.to_string().contains("newer version of logmill (record 1:"), "{error}");
}

#[test]
fn metadata_that_makes_no_sense_is_refused() {
    let wide = [2, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'w', 0, 0];
    let id = &[7_u8; 16][..];
    for (key, value) in [(id, &[2_u8, 9][..]), (b"short", &[2, 2]), (id, &wide), (id, &[1, 2])] {
        let dir = tempfile::tempdir().unwrap();
        Node::open(config(&dir)).broker.close().unwrap();
        append_metadata(&dir, key, value);
        let error = refused(config(&dir));
        assert_eq!(error.kind(), OpenErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains("damaged at record 0"), "{error}");
    }
}

#[test]
fn a_name_that_is_not_utf8_in_what_is_left_of_topics_refuses_no_start() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    let topic = node.create("t", 1).unwrap();
    node.broker.close().unwrap();
    let (deleted, cut_off) = (format!("{}.deleted", Uuid::from_u128(1)), Uuid::from_u128(2).to_string());
    let odd = OsStr::from_bytes(b"odd\xFF");
    let left = [deleted + "/0", cut_off + "/0", format!("{}/1", topic.id)];
    let paths = left.map(|left| dir.path().join("topics").join(left));
    for path in &paths {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join(odd), b"").unwrap();
    }
    for _ in 0..2 {
        let node = Node::open(config(&dir));
        let report = node.broker.open_report();
        let unknown: Vec<_> = report.unknown.iter().map(|unknown| unknown.path.clone()).collect();
        assert_eq!(unknown.len(), 2, "{report:?}");
        assert!(unknown.contains(&paths[1].parent().unwrap().to_owned()) && unknown.contains(&paths[2]));
        assert_eq!((report.topics, report.removing), (1, 1), "{report:?}");
        node.say("t", 0, "it works").unwrap();
        node.broker.close().unwrap();
        assert!(paths.iter().all(|path| path.join(odd).exists()), "nobody but the operator removes it");
    }
}

#[test]
fn a_full_disk_at_the_first_start_is_said_and_the_next_start_works() {
    let sim = Sim::new(1);
    let open = || Broker::open(on(&sim));
    sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).always());
    let error = open().expect_err("there is no space");
    assert_eq!(error.kind(), OpenErrorKind::Full);
    assert!(error.to_string().contains("free some space"), "{error}");
    sim.fs.clear_rules();
    open().unwrap().close().unwrap();
}

#[test]
fn opening_tells_how_many_partitions_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 5).unwrap();
    node.create("u", 2).unwrap();
    drop(node);
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let on_open = Some(OnOpen::new(move |so_far| heard.lock().push((so_far.done, so_far.total))));
    Node::open(Config { on_open, ..config(&dir) }).broker.close().unwrap();
    let mut told = std::mem::take(&mut *told.lock());
    told.sort_unstable(); // those that open at the same time tell it in any order
    told.dedup(); // and a log that has to be read tells of that, too
    assert!(told.into_iter().eq((0..=7).map(|done| (done, 7))));
}

#[test]
fn a_node_that_has_lost_its_logs_is_not_started_empty() {
    for emptied in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::open(config(&dir));
        node.create("t", 2).unwrap();
        node.say("t", 0, "x").unwrap();
        node.broker.close().unwrap();
        for name in ["internal", "topics"] {
            let path = dir.path().join(name);
            fs::remove_dir_all(&path).unwrap();
            if emptied {
                // A volume that is not mounted.
                fs::create_dir(&path).unwrap();
            }
        }
        let error = refused(config(&dir));
        assert_eq!(error.kind(), OpenErrorKind::Damaged, "{error}");
        let expected = format!(
            "{} has lost its list of topics and its topics: its checkpoint speaks of 5 logs, and none is there; \
             mount or restore internal/ and topics/, or choose an empty directory",
            dir.path().display()
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(plan_rebuild(&Env::real(), dir.path()).unwrap_err().to_string(), expected);
        assert_eq!(dir.path().join("topics").exists(), emptied, "nothing was changed");
    }
}

#[test]
fn a_node_that_has_lost_set_and_checkpoint_names_the_repair() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    node.create("t", 1).unwrap();
    node.broker.close().unwrap();
    for name in ["set", "checkpoint"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let expected = format!(
        "{0} has lost its files \"set\" and \"checkpoint\", and holds the logs of a node: keep a copy, and run \
         'logmill log repair {0}'",
        dir.path().display()
    );
    let error = refused(config(&dir));
    assert_eq!((error.kind(), error.to_string()), (OpenErrorKind::Damaged, expected.clone()));
    assert_eq!(plan_rebuild(&Env::real(), dir.path()).unwrap_err().to_string(), expected);

    plan_repair(&Env::real(), dir.path(), &mut |_| ()).unwrap().execute().unwrap();
    let node = Node::open(config(&dir));
    assert_eq!(node.broker.open_report().topics, 1);
    node.broker.close().unwrap();
}

#[test]
fn a_file_where_the_node_has_a_directory_is_to_be_moved_out() {
    for name in ["internal", "topics"] {
        let dir = tempfile::tempdir().unwrap();
        Node::open(config(&dir)).broker.close().unwrap();
        let path = dir.path().join(name);
        fs::remove_dir_all(&path).unwrap();
        fs::File::create_new(&path).unwrap();
        let expected =
            format!("{} is a file, and the node has a directory there: move it out", path.display());
        for error in [refused(config(&dir)), plan_rebuild(&Env::real(), dir.path()).unwrap_err()] {
            assert_eq!(error.kind(), OpenErrorKind::Damaged);
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }
}
