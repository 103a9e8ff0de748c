use super::*;

fn features(json: &str) -> Vec<Feature> {
    Feed::parse("test", format!(r#"{{"features":[{json}]}}"#).as_bytes()).expect("it is a feed").features
}

fn refused(json: &[u8]) -> String {
    Feed::parse("f.json", json).expect_err("it is no feed").to_string()
}

#[test]
fn the_embedded_feed_is_read_whole_and_in_order() {
    let feed = Feed::embedded().expect("it is a feed");
    assert_eq!(feed.features.len(), 1_707);
    assert!(feed.features.is_sorted_by_key(|feature| feature.time));
    assert!(feed.features.iter().all(|feature| feature.time.is_some()));
    // The feed is newest first.
    assert_eq!(feed.features[1_706].key, "ci37868143");
    assert_eq!(feed.features[1_706].time, Some(TimestampMs(1_517_966_773_840)));
}

#[test]
fn a_value_is_the_features_own_bytes() {
    let json = "{ \"id\" : \"a\",\n \"x\": 1.50, \"y\": [1e2,\"\\u00e9\"] }";
    assert_eq!(features(json)[0].value, json.as_bytes());
    let total: usize = Feed::embedded().expect("it is a feed").features.iter().map(|f| f.value.len()).sum();
    assert!(EMBEDDED.len() - total < 4_000, "features are nearly all of the feed");
}

#[test]
fn features_without_a_usable_time_come_last_in_the_feeds_order() {
    let feed = features(
        r#"{"id":"text","properties":{"time":"5"}}, {"id":"b","properties":{"time":7}},
           {"id":"none","properties":{}}, {"id":"fraction","properties":{"time":1.5}},
           {"id":"beyond","properties":{"time":99999999999999999}}, {"id":"a","properties":{"time":-7}},
           {"id":"bare"}, {"id":"list","properties":[]}, {"id":"b2","properties":{"time":7}}"#,
    );
    let keys: Vec<_> = feed.iter().map(|feature| str::from_utf8(&feature.key).expect("UTF-8")).collect();
    assert_eq!(keys, ["a", "b", "b2", "text", "none", "fraction", "beyond", "bare", "list"]);
    assert!(feed[3..].iter().all(|feature| feature.time.is_none()));
}

#[test]
fn without_an_id_the_key_is_the_hash_of_the_json() {
    let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!(features("{}")[0].key, hash);
    for json in [r#"{"id":null}"#, r#"{"id":""}"#, r#"{"id":["a"]}"#, "5", "null", "[]", r#"{"id":1,"id":2}"#]
    {
        assert_eq!(features(json)[0].key, hex(&Sha256::digest(json)), "{json}");
    }
    assert_eq!(features(r#"{"id":17}"#)[0].key, "17");
}

#[test]
fn other_broken_parts_hide_neither_id_nor_time() {
    let feature = &features(r#"{"id":"\u0061","properties":{"time":5,"mag":1e999,"place":"\ud800"}}"#)[0];
    assert_eq!((&feature.key[..], feature.time), (&b"a"[..], Some(TimestampMs(5))));
}

#[test]
fn a_file_that_is_no_feed_is_refused_in_a_sentence() {
    let cut = &EMBEDDED.as_bytes()[..EMBEDDED.len() / 2];
    for (json, says) in [
        (&b""[..], "is empty"),
        (b" \n", "is empty"),
        (cut, "is cut off"),
        (b"{\"features\":[{]}", "is not JSON"),
        (b"<html>", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"{}", "has no \"features\""),
        (b"{\"features\":null}", "has no \"features\""),
        (b"{\"features\":[]}", "has no features"),
        (b"{\"features\":{}}", "no GeoJSON feed"),
        (b"[1]", "no GeoJSON feed"),
        (b"17", "no GeoJSON feed"),
        (b"{\"features\":[1]} x", "is not JSON"),
    ] {
        let message = refused(json);
        assert!(message.starts_with("the feed f.json ") && message.contains(says), "{message:?}, {says:?}");
    }
    let deep = [&b"{\"features\":["[..], &b"[".repeat(1_000_000)].concat();
    refused(&deep);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let error = Feed::read(Path::new("/nonexistent/feed.json")).expect_err("it is not there");
    let Failure::Told { exit, message } = error else { panic!("{error}") };
    assert_eq!(exit, Exit::NotFound);
    assert!(message.contains("/nonexistent/feed.json"), "{message}");
}
