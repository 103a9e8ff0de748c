//! What a crash leaves of names.

use std::collections::BTreeSet;

use logmill_log::env::Fs;
use logmill_log::sim::FaultFs;

use super::{create, outcomes, p, write};

/// The files there are, each with what is in it.
fn find(fs: &FaultFs) -> String {
    let file = |path: std::path::PathBuf| {
        format!("{}={}", path.display(), String::from_utf8(fs.read_file(&path).unwrap()).unwrap())
    };
    fs.files().into_iter().map(file).collect::<Vec<_>>().join(" ")
}

fn found(run: impl Fn(&FaultFs)) -> Vec<String> {
    outcomes(600, run, find).into_iter().collect()
}

/// A file whose bytes last; its name does not yet.
fn put(fs: &FaultFs, path: &str, content: &str) {
    let file = create(fs, path);
    write(&*file, content.as_bytes(), 0);
    file.sync_data().unwrap();
}

fn rename(fs: &FaultFs, from: &str, to: &str) {
    fs.rename(p(from), p(to)).unwrap();
}

fn sync(fs: &FaultFs, dir: &str) {
    fs.sync_dir(p(dir)).unwrap();
}

#[test]
fn each_new_name_lasts_or_not_until_its_directory_is_synced() {
    let create_two = |fs: &FaultFs| {
        put(fs, "/a", "1");
        put(fs, "/b", "2");
    };
    assert_eq!(found(create_two), ["", "/a=1", "/a=1 /b=2", "/b=2"]);
    let synced = |fs: &FaultFs| {
        create_two(fs);
        sync(fs, "/");
    };
    assert_eq!(found(synced), ["/a=1 /b=2"]);
}

#[test]
fn a_new_name_can_last_without_the_bytes() {
    let unsynced = |fs: &FaultFs| write(&*create(fs, "/a"), b"1", 0);
    assert_eq!(found(unsynced), ["", "/a=", "/a=\0", "/a=1"]);
}

#[test]
fn a_removed_name_can_come_back_until_its_directory_is_synced() {
    let remove = |fs: &FaultFs| {
        fs.write_file("/a", "1").unwrap();
        fs.remove_file(p("/a")).unwrap();
    };
    assert_eq!(found(remove), ["", "/a=1"]);
    let synced = |fs: &FaultFs| {
        remove(fs);
        sync(fs, "/");
    };
    assert_eq!(found(synced), [""]);
    let again = |fs: &FaultFs| {
        remove(fs);
        put(fs, "/a", "2");
    };
    assert_eq!(found(again), ["", "/a=1", "/a=2"]);
}

#[test]
fn a_rename_is_atomic_and_loses_nothing() {
    let replace = |fs: &FaultFs| {
        fs.write_file("/a", "old").unwrap();
        fs.write_file("/a.tmp", "new").unwrap();
        rename(fs, "/a.tmp", "/a");
    };
    assert_eq!(found(replace), ["/a=new", "/a=new /a.tmp=new", "/a=old /a.tmp=new"]);
    let synced = |fs: &FaultFs| {
        replace(fs);
        sync(fs, "/");
    };
    assert_eq!(found(synced), ["/a=new"]);
}

#[test]
fn what_a_rename_replaces_stays_if_the_new_file_was_lost() {
    let replace = |fs: &FaultFs| {
        fs.write_file("/a", "old").unwrap();
        put(fs, "/a.tmp", "new");
        rename(fs, "/a.tmp", "/a");
    };
    assert_eq!(found(replace), ["/a=new", "/a=new /a.tmp=new", "/a=old", "/a=old /a.tmp=new"]);
}

#[test]
fn a_file_moved_on_and_on_is_somewhere() {
    let moved = |fs: &FaultFs| {
        fs.write_file("/a", "1").unwrap();
        rename(fs, "/a", "/b");
        rename(fs, "/b", "/c");
    };
    let all = ["/a=1", "/a=1 /b=1", "/a=1 /b=1 /c=1", "/a=1 /c=1", "/b=1", "/b=1 /c=1", "/c=1"];
    assert_eq!(found(moved), all);
}

#[test]
fn moving_to_another_directory_needs_no_second_sync_to_be_safe() {
    let moved = |synced: &'static str| {
        move |fs: &FaultFs| {
            fs.write_file("/d/a", "1").unwrap();
            fs.write_file("/e/b", "2").unwrap();
            rename(fs, "/d/a", "/e/a");
            sync(fs, synced);
        }
    };
    assert_eq!(found(moved("/d")), ["/e/a=1 /e/b=2"]);
    assert_eq!(found(moved("/e")), ["/d/a=1 /e/a=1 /e/b=2", "/e/a=1 /e/b=2"]);
}

#[test]
fn a_new_directory_goes_with_all_that_is_in_it() {
    let inside = |fs: &FaultFs| {
        fs.create_dir(p("/d")).unwrap();
        put(fs, "/d/a", "1");
        sync(fs, "/d");
    };
    assert_eq!(found(inside), ["", "/d/a=1"]);
    let synced = |fs: &FaultFs| {
        inside(fs);
        sync(fs, "/");
    };
    assert_eq!(found(synced), ["/d/a=1"]);
}

#[test]
fn a_removed_directory_comes_back_with_any_of_what_it_had() {
    let removed = |fs: &FaultFs| {
        fs.write_file("/d/a", "1").unwrap();
        fs.remove_file(p("/d/a")).unwrap();
        fs.remove_dir(p("/d")).unwrap();
    };
    let dirs = |fs: &FaultFs| (fs.list(p("/")).unwrap().len(), find(fs));
    let expected = [(0, ""), (1, ""), (1, "/d/a=1")].map(|(dirs, files)| (dirs, files.to_owned()));
    assert_eq!(outcomes(300, removed, dirs), BTreeSet::from(expected));
}

#[test]
fn a_moved_directory_has_one_name() {
    let moved = |fs: &FaultFs| {
        fs.write_file("/d/x", "1").unwrap();
        rename(fs, "/d", "/e");
    };
    assert_eq!(found(moved), ["/d/x=1", "/e/x=1"]);
    let moved_on = |fs: &FaultFs| {
        moved(fs);
        rename(fs, "/e", "/f");
        fs.create_dir(p("/d")).unwrap();
        put(fs, "/d/y", "2");
        sync(fs, "/d");
    };
    let all = ["/d/x=1", "/d/y=2 /e/x=1", "/d/y=2 /f/x=1", "/e/x=1", "/f/x=1"];
    assert_eq!(found(moved_on), all);
}

#[test]
fn directories_moved_into_each_other_are_all_there() {
    let moved = |fs: &FaultFs| {
        fs.write_file("/a/x", "1").unwrap();
        fs.write_file("/b/y", "2").unwrap();
        rename(fs, "/a", "/b/a");
        rename(fs, "/b/a", "/a");
        rename(fs, "/b", "/a/b");
    };
    assert_eq!(found(moved), ["/a/b/y=2 /a/x=1", "/a/x=1 /b/y=2", "/b/a/x=1 /b/y=2"]);
}

#[test]
fn what_may_come_back_is_kept_however_much_is_swept_up_meanwhile() {
    let churn = |fs: &FaultFs| {
        fs.write_file("/d/old", "old").unwrap();
        fs.remove_file(p("/d/old")).unwrap();
        put(fs, "/d/new", "new");
        fs.remove_file(p("/d/new")).unwrap();
        for _ in 0..100 {
            put(fs, "/swept", "swept");
            fs.remove_file(p("/swept")).unwrap();
            sync(fs, "/");
        }
    };
    assert_eq!(found(churn), ["", "/d/new=new", "/d/new=new /d/old=old", "/d/old=old"]);
}
