//! Faults by rule, and full disks.

use std::io::ErrorKind;
use std::time::Duration;

use logmill_log::env::{Clock, File, Fs, OpenMode, Space};
use logmill_log::sim::{Fault, Op, Rule, Sim};

use super::{create, open, p, read_all, try_write, write};

#[test]
fn a_rule_strikes_the_calls_it_names_and_no_others() {
    let sim = Sim::new(1);
    let (log, index) = (create(&sim.fs, "/1.log"), create(&sim.fs, "/1.index"));
    sim.fs.inject(Rule::new(Fault::Io).on(Op::Write).on(Op::SetLen).path("*.log").nth(3).times(2));
    let struck: Vec<_> = (0..6).map(|_| try_write(&*log, b"a", 0).is_err()).collect();
    assert_eq!(struck, [false, false, true, true, false, false]);
    assert!((0..6).all(|_| try_write(&*index, b"a", 0).is_ok()));
    assert_eq!(sim.fs.faults(), 2);

    sim.fs.inject(Rule::new(Fault::Io).path("/1.i*x").always());
    assert!((0..6).all(|_| index.status().is_err() && log.status().is_ok()));
    sim.fs.clear_rules();
    assert!(index.status().is_ok());
}

#[test]
fn a_rule_by_chance_strikes_some() {
    let sim = Sim::new(1);
    sim.fs.inject(Rule::new(Fault::Io).on(Op::List).one_in(4).always());
    let struck = (0..1000).filter(|_| sim.fs.list(p("/")).is_err()).count();
    assert!((200..300).contains(&struck), "{struck}");
}

#[test]
fn a_call_that_fails_changes_nothing() {
    let sim = Sim::new(1);
    sim.fs.write_file("/d/a", "a").unwrap();
    sim.fs.create_dir(p("/empty")).unwrap();
    let file = open(&sim.fs, "/d/a");
    let before = sim.fs.digest();
    for (fault, code) in [(Fault::Io, 5), (Fault::NoSpace, 28)] {
        sim.fs.inject(Rule::new(fault).always());
        let errors = [
            sim.fs.open(p("/new"), OpenMode::CreateNew).map(drop),
            sim.fs.open(p("/d/a"), OpenMode::Read).map(drop),
            sim.fs.list(p("/")).map(drop),
            sim.fs.create_dir(p("/new")),
            sim.fs.rename(p("/d/a"), p("/a")),
            sim.fs.remove_file(p("/d/a")),
            sim.fs.remove_dir(p("/empty")),
            sim.fs.sync_dir(p("/")),
            sim.fs.lock(p("/lock")).map(drop),
            sim.fs.space(p("/")).map(drop),
            file.read_at(&mut [0], 0).map(drop),
            try_write(&*file, b"b", 0).map(drop),
            file.sync_data(),
            file.set_len(0),
            file.status().map(drop),
            file.map(1).map(drop),
        ];
        for (at, error) in errors.into_iter().enumerate() {
            assert_eq!(error.unwrap_err().raw_os_error(), Some(code), "call {at}");
        }
        sim.fs.clear_rules();
    }
    assert_eq!(sim.fs.digest(), before);
}

#[test]
fn maps_are_copies_and_populating_them_can_fail() {
    let sim = Sim::new(1);
    sim.fs.write_file("/a", "abc").unwrap();
    let map = open(&sim.fs, "/a").map(2).unwrap();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::Populate).path("/a").nth(2));
    assert!(map.populate(0..2).is_ok());
    assert_eq!(map.populate(0..2).unwrap_err().raw_os_error(), Some(5));
    assert!(map.populate(1..3).is_err(), "past its end");
    sim.fs.crash();
    assert!(map.populate(0..2).is_err(), "dead");
    assert_eq!((*map).as_ref(), b"ab");
}

#[test]
fn short_transfers_are_short() {
    let sim = Sim::new(1);
    let file = create(&sim.fs, "/a");
    sim.fs.inject(Rule::new(Fault::Short(3)).always());
    let parts = [b"ab", b"cd"].map(|part| std::io::IoSlice::new(part));
    assert_eq!(file.write_at(&parts, 0).unwrap(), 3);
    assert_eq!(sim.fs.read_file("/a").unwrap(), b"abc");
    write(&*file, b"d", 3);
    let mut buf = [0; 10];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 3);
    assert_eq!(file.read_at(&mut buf, 3).unwrap(), 1);
    file.sync_data().unwrap();
    sim.fs.clear_rules();
    sim.fs.inject(Rule::new(Fault::Short(0)));
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 1, "nothing would be the end of the file");
}

#[test]
fn a_stall_takes_time() {
    let sim = Sim::new(1);
    let file = create(&sim.fs, "/a");
    sim.fs.inject(Rule::new(Fault::Stall(Duration::from_secs(3))).on(Op::SyncData));
    file.sync_data().unwrap();
    file.sync_data().unwrap();
    assert_eq!(sim.clock.monotonic(), Duration::from_secs(3));
}

#[test]
fn a_full_disk_takes_what_fits_and_says_so() {
    let sim = Sim::new(1);
    sim.fs.set_capacity_bytes(1000);
    let space = || sim.fs.space(p("/")).unwrap();
    let (one, two) = (create(&sim.fs, "/1"), create(&sim.fs, "/2"));
    write(&*one, &[b'a'; 600], 0);
    assert_eq!(space(), Space { available_bytes: 400, total_bytes: 1000 });
    assert_eq!(try_write(&*two, &[b'a'; 600], 0).unwrap(), 400, "short");
    let full = |file: &dyn File| try_write(file, b"a", file.status().unwrap().len).unwrap_err();
    assert_eq!((full(&*two).kind(), full(&*one).raw_os_error()), (ErrorKind::StorageFull, Some(28)));
    assert_eq!(one.set_len(700).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(two.status().unwrap().len, 400);
    write(&*one, &[b'b'; 600], 0);

    one.set_len(100).unwrap();
    assert_eq!(space().available_bytes, 500);
    sim.fs.remove_file(p("/2")).unwrap();
    assert_eq!(space().available_bytes, 500, "it is still open");
    assert_eq!(read_all(&*two).unwrap().len(), 400);
    drop(two);
    assert_eq!(space().available_bytes, 900);
    let three = create(&sim.fs, "/3");
    write(&*three, &[b'a'; 300], 0);
    sim.fs.remove_file(p("/3")).unwrap();
    sim.fs.kill();
    assert_eq!(space().available_bytes, 900, "a dead handle holds nothing");
    drop(three);
    sim.fs.set_capacity_bytes(50);
    assert_eq!(space(), Space { available_bytes: 0, total_bytes: 50 });
}
