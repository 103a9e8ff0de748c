//! `logmill quickstart` killed at one moment or another, in the middle of a window among them: the next run
//! finishes the work, and the table is what it would have been.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use logmill_log::env::{Clock as _, SystemClock};
use logmill_tests::{check_table, embedded_feed, pause};

use crate::logmill;
use crate::quickstart::{path, quickstart, write_oldest};

/// Runs it until `enough` says so and kills it then; false if it ended before.
fn run_until(data: &Path, more: &[&str], mut enough: impl FnMut() -> bool) -> bool {
    let mut command = logmill().command(["quickstart", "--json", "--data-dir"]);
    command.arg(data).args(more).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    while !enough() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        pause(Duration::from_micros(500));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

fn finish_and_check(data: &Path) {
    let document = quickstart(data, &[]);
    assert_eq!(document["records"], 1_707, "none missing, none twice");
    assert_eq!(document["rows"], 78);
    assert_eq!(document["late"], 0, "nothing came too late for its window");
    check_table(&embedded_feed(), &path(&document, "sqlite"));
}

#[test]
fn killed_at_twelve_points_of_its_time_the_next_run_finishes_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SystemClock::new();
    // How long an undisturbed run takes here.
    let _ = quickstart(&dir.path().join("measure"), &[]);
    let whole = clock.monotonic();
    let rounds: u32 = 12;
    let mut killed = 0;
    for round in 0..rounds {
        let data = dir.path().join(format!("data-{round}"));
        let clock = SystemClock::new();
        killed += u32::from(run_until(&data, &[], || clock.monotonic() >= whole * round / rounds));
        finish_and_check(&data);
    }
    assert!(killed > 1, "the runs ended before they could be killed");
}

#[test]
fn killed_again_and_again_over_one_directory_it_still_ends_right() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for round in 1..=10 {
        let clock = SystemClock::new();
        let killed = run_until(&data, &[], || clock.monotonic() >= Duration::from_millis(30 * round));
        assert!(killed || round > 1, "it ended before it could be killed");
        if !killed {
            break;
        }
    }
    finish_and_check(&data);
}

#[test]
fn killed_in_mid_window_it_goes_on_in_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("part.json");
    let mut in_mid_window = 0;
    for round in 0.. {
        let data = dir.path().join(format!("data-{round}"));
        let database = data.join("quakes.db");
        // Ends in the middle of a day: its position, and where open windows begin, are committed.
        write_oldest(&part, 300 + 100 * round);
        let document = quickstart(&data, &["--input", part.to_str().unwrap()]);
        check_table(&part, &path(&document, "sqlite"));
        // The next run has stored the rest of that day, and is killed when its pipeline opens the file.
        let before = fingerprint(&database);
        let killed = run_until(&data, &[], || fingerprint(&database) != before);
        let place = Place::read(&database);
        in_mid_window += u32::from(killed && place.open_windows && place.handled < 1_707);
        finish_and_check(&data);
        if in_mid_window == 4 {
            break;
        }
        assert!(round < 11, "only {in_mid_window} of {} runs could be killed in a window", round + 1);
    }
}

/// How far a pipeline has come, as it is committed.
struct Place {
    handled: i64,
    open_windows: bool,
}

impl Place {
    fn read(database: &Path) -> Self {
        const SQL: &str = "SELECT sum(read_offset), max(replay_offset < read_offset) FROM logmill_positions";
        let database = rusqlite::Connection::open(database).unwrap();
        database
            .query_row(SQL, (), |row| Ok(Self { handled: row.get(0)?, open_windows: row.get(1)? }))
            .unwrap()
    }
}

#[test]
fn killed_between_the_steps_of_a_long_run_it_goes_on_after_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let (data, feed) = (dir.path().join("data"), dir.path().join("feed.json"));
    fs::write(&feed, long_feed()).unwrap();
    let input = ["--input", feed.to_str().unwrap()];
    let database = data.join("quakes.db");
    // When the pipeline begins to write, and then a few writes later each time.
    let mut killed = 0;
    for round in 0..4 {
        let before = fingerprint(&database);
        let mut changes = 0;
        let mut last = before;
        let in_the_middle = || {
            let now = fingerprint(&database);
            changes += u32::from(now != last);
            last = now;
            changes > 2 * round
        };
        killed += u32::from(run_until(&data, &input, in_the_middle));
    }
    assert!(killed > 0, "every run ended before it could be killed");
    let document = quickstart(&data, &input);
    assert_eq!(
        (&document["records"], &document["late"], &document["dead"]),
        (&40_000.into(), &0.into(), &0.into())
    );
    check_table(&feed, &path(&document, "sqlite"));
}

/// Forty days of a thousand quakes each, in four networks: enough for many steps.
fn long_feed() -> String {
    let feature = |number: i64| {
        let time = 1_400_000_000_000 + number * 86_400;
        let (net, mag) = (number % 4, (number * 7_919 % 90) as f64 / 10.0);
        format!(
            "{{\"id\":\"q{number}\",\"properties\":{{\"type\":\"earthquake\",\"net\":\"n{net}\",\"mag\":{mag:?},\
             \"time\":{time},\"place\":\"{}\"}},\"geometry\":null}}",
            "here ".repeat(30)
        )
    };
    let features: Vec<String> = (0..40_000).map(feature).collect();
    format!("{{\"features\":[{}]}}", features.join(","))
}

/// Changes whenever SQLite writes.
fn fingerprint(database: &Path) -> (u64, u64) {
    let len = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    (len(database), len(&database.with_extension("db-wal")))
}
