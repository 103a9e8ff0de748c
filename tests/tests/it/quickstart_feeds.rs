//! `logmill quickstart` on feeds with broken features: it finishes, shows what it set aside and why,
//! and the rest is right.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use logmill_record::murmur2_partition;
use logmill_tests::{Node, check_table};
use serde_json::{Value, json};

use crate::logmill;
use crate::quickstart::{assert_same_table, path, quickstart};

fn quake(id: &str, time: i64, mag: f64) -> Value {
    json!({
        "type": "Feature",
        "id": id,
        "properties": { "type": "earthquake", "net": "xx", "mag": mag, "place": "somewhere", "time": time },
        "geometry": { "type": "Point", "coordinates": [1.0, 2.0, 3.0] },
    })
}

/// A good quake with one thing changed.
fn broken(id: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut feature = quake(id, 1_517_500_000_000, 9.9);
    change(&mut feature);
    feature
}

fn write_feed(path: &Path, features: &[Value]) {
    fs::write(path, json!({ "type": "FeatureCollection", "features": features }).to_string()).unwrap();
}

fn remove(value: &mut Value, name: &str) {
    value.as_object_mut().unwrap().remove(name);
}

/// Features that cannot be used, and what the reason has to mention.
fn unusable() -> Vec<(Value, &'static str)> {
    vec![
        (broken("no-time", |f| remove(&mut f["properties"], "time")), "time"),
        (broken("null-time", |f| f["properties"]["time"] = Value::Null), "time"),
        (broken("text-time", |f| f["properties"]["time"] = json!("2018-02-01")), "i64"),
        (broken("fraction-time", |f| f["properties"]["time"] = json!(1_517_500_000_000.5)), "i64"),
        (broken("future", |f| f["properties"]["time"] = json!(9_000_000_000_000_i64)), "hour"),
        (broken("beyond", |f| f["properties"]["time"] = json!(i64::MAX)), "out of range"),
        (broken("before", |f| f["properties"]["time"] = json!(-9_000_000_000_000_000_i64)), "years"),
        (broken("null-mag", |f| f["properties"]["mag"] = Value::Null), "magnitude"),
        (broken("text-mag", |f| f["properties"]["mag"] = json!("5")), "f64"),
        (broken("no-net", |f| remove(&mut f["properties"], "net")), "network"),
        (broken("number-net", |f| f["properties"]["net"] = json!(7)), "string"),
        (broken("no-properties", |f| remove(f, "properties")), "properties"),
        (broken("list-properties", |f| f["properties"] = json!([])), ""),
        (broken("no-type", |f| remove(&mut f["properties"], "type")), "type"),
        (json!(17), ""),
        (json!("text"), ""),
        (json!(null), ""),
        (json!([1, 2]), ""),
        (json!({}), "properties"),
    ]
}

/// Features that look odd and are good enough.
fn odd() -> Vec<Value> {
    vec![
        broken("x", |f| remove(f, "id")),
        broken("x", |f| f["id"] = json!(17)),
        broken("no-geometry", |f| remove(f, "geometry")),
        broken("odd-geometry", |f| f["geometry"] = json!("here")),
        broken("odd-place", |f| f["properties"]["place"] = json!([1])),
        broken("integer-mag", |f| f["properties"]["mag"] = json!(-1)),
        broken("1969", |f| f["properties"]["time"] = json!(-1)),
        broken("year-1", |f| f["properties"]["time"] = json!(-62_135_596_800_000_i64)),
        broken("blast", |f| f["properties"]["type"] = json!("quarry blast")),
    ]
}

#[test]
fn broken_features_are_set_aside_with_reasons_and_the_rest_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("feed.json");
    let unusable = unusable();
    let mut features: Vec<Value> = unusable.iter().map(|(feature, _)| feature.clone()).collect();
    features.extend(odd());
    for number in 0..200_i32 {
        let time = 1_517_400_000_000 + i64::from(number) * 3_600_000;
        features.push(quake(&format!("q{number}"), time, f64::from(number % 70) / 10.0));
    }
    write_feed(&feed, &features);
    let data = dir.path().join("data");
    let document = quickstart(&data, &["--input", feed.to_str().unwrap()]);
    assert_eq!(document["records"], features.len());
    assert_eq!(document["dead"], unusable.len(), "{document:#}");
    check_table(&feed, &path(&document, "sqlite"));
    let reasons = document["dead_reasons"].as_array().unwrap();
    let counted: u64 = reasons.iter().map(|reason| reason["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, unusable.len() as u64);

    assert_letters(&data, &unusable);
    // Again: nothing new, the same table, the same letters.
    let again = quickstart(&data, &["--input", feed.to_str().unwrap()]);
    assert_same_table(&document, &again);
    assert_eq!((&again["produced"], &again["dead"]), (&json!(0), &document["dead"]));
}

/// Every unusable feature is in the dead letters, as it was, with a reason that fits.
fn assert_letters(data: &Path, unusable: &[(Value, &str)]) {
    let node = Node::start(&logmill(), data);
    let letters = logmill().at(node.url()).ok(["consume", "earthquakes.dead", "--json"]);
    let mut reasons = BTreeMap::new();
    for line in letters.lines() {
        let letter: Value = serde_json::from_str(line).unwrap();
        let headers = letter["headers"].as_array().unwrap();
        let header =
            |name: &str| headers.iter().find(|h| h[0] == name).map(|h| h[1].as_str().unwrap().to_owned());
        assert_eq!(header("logmill.origin.topic").as_deref(), Some("earthquakes"));
        reasons.insert(letter["value"].as_str().unwrap().to_owned(), header("logmill.error").unwrap());
    }
    assert_eq!(reasons.len(), unusable.len());
    for (feature, mentions) in unusable {
        let reason = &reasons[&feature.to_string()];
        assert!(reason.contains(mentions), "{feature}: {reason:?} does not mention {mentions:?}");
    }
}

#[test]
fn a_feature_larger_than_a_record_can_be_is_set_aside_once() {
    let dir = tempfile::tempdir().unwrap();
    let (feed, data) = (dir.path().join("feed.json"), dir.path().join("data"));
    let large = broken("large", |f| f["properties"]["place"] = json!("x".repeat(1_500_000)));
    let larger = broken("larger", |f| f["properties"]["place"] = json!("x".repeat(5_000_000)));
    write_feed(&feed, &[large, quake("good", 1_517_500_000_000, 4.5), larger]);
    for produced in [1, 0] {
        let document = quickstart(&data, &["--input", feed.to_str().unwrap()]);
        let found = (&document["produced"], &document["dead"], &document["rows"]);
        assert_eq!(found, (&json!(produced), &json!(2), &json!(1)), "{document}");
    }
}

#[test]
fn features_without_a_usable_time_are_produced_last() {
    let dir = tempfile::tempdir().unwrap();
    let (feed, data) = (dir.path().join("feed.json"), dir.path().join("data"));
    // Order is a partition's: features whose ids all lead to the same one of the four.
    let mut ids = (0..).map(|n| format!("q{n}")).filter(|id| murmur2_partition(id.as_bytes(), 4) == 0);
    let [text, newer, beyond, older, null] = std::array::from_fn(|_| ids.next().unwrap());
    let features = [
        broken(&text, |f| f["properties"]["time"] = json!("x")),
        quake(&newer, 1_517_400_000_001, 1.0),
        broken(&beyond, |f| f["properties"]["time"] = json!(i64::MAX)),
        quake(&older, 5, 1.0),
        broken(&null, |f| f["properties"]["time"] = Value::Null),
    ];
    write_feed(&feed, &features);
    let document = quickstart(&data, &["--input", feed.to_str().unwrap()]);
    assert_eq!((&document["dead"], &document["rows"]), (&json!(3), &json!(2)));

    let node = Node::start(&logmill(), &data);
    let records = logmill().at(node.url()).ok(["consume", "earthquakes", "--json"]);
    let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.iter().all(|record| record["partition"] == records[0]["partition"]), "{records:?}");
    let keys: Vec<_> = records.iter().map(|record| record["key"].as_str().unwrap()).collect();
    assert_eq!(keys, [older, newer, text, beyond, null], "by time, and then in the feed's order");
}

#[test]
fn a_feed_of_nothing_but_broken_features_gives_letters_and_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("feed.json");
    write_feed(&feed, &vec![json!({ "id": "x" }); 500]);
    let data = dir.path().join("data");
    let document = quickstart(&data, &["--input", feed.to_str().unwrap()]);
    assert_eq!(
        (&document["records"], &document["dead"], &document["rows"]),
        (&json!(500), &json!(500), &json!(0))
    );
    assert!(document["throughput_bytes_per_s"]["in"].as_f64().unwrap() > 0.0);
    assert_eq!(document["throughput_bytes_per_s"]["out"], 0.0, "it read records, and wrote none");
}
