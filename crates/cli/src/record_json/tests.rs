use super::*;

type HeaderList<'a> = &'a [(&'a str, Option<&'a [u8]>)];

fn record<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>, headers: HeaderList<'a>) -> RecordOut<'a> {
    RecordOut { topic: "t", partition: 3, offset: 17, timestamp: TimestampMs(-5), key, value, headers }
}

fn json(record: &RecordOut<'_>) -> String {
    serde_json::to_string(record).expect("a record is JSON")
}

#[test]
fn text_is_text_and_other_bytes_are_base64() {
    let text = json(&record(Some(b"k\"\n"), Some(b"\xff\x00"), &[]));
    let expected = r#"{"topic":"t","partition":3,"offset":17,"timestamp":-5,"key":"k\"\n","value_base64":"/wA=","headers":[]}"#;
    assert_eq!(text, expected);
}

#[test]
fn what_is_printed_is_taken_back_without_loss() {
    let headers: HeaderList<'_> = &[
        ("a", Some(b"1")),
        ("a", Some(b"")),
        ("a", None),
        ("", Some(b"\xc3\x28")),
        ("ü", Some("ß".as_bytes())),
    ];
    let bodies: [Option<&[u8]>; 4] = [None, Some(b""), Some("héllo\u{2028}".as_bytes()), Some(b"\x80\xff")];
    for key in bodies {
        for value in bodies {
            let back = parse_record(json(&record(key, value, headers)).as_bytes()).expect("it reads back");
            assert_eq!(back.timestamp, Some(TimestampMs(-5)));
            assert_eq!(back.key.as_deref(), key);
            assert_eq!(back.value.as_deref(), value);
            let back: Vec<_> =
                back.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            assert_eq!(back, headers);
        }
    }
}

#[test]
fn a_timestamp_may_be_text_and_everything_may_be_left_out() {
    assert_eq!(parse_record(b"{}"), Ok(RecordIn::default()));
    let record =
        parse_record(br#"{"timestamp":"1970-01-01T00:00:01Z","value":"x"}"#).expect("it is a record");
    assert_eq!(record.timestamp, Some(TimestampMs(1_000)));
}

#[test]
fn what_would_be_lost_or_guessed_is_refused() {
    for (line, says) in [
        (&b"not json"[..], "expected"),
        (br#"{"valeu":"x"}"#, "unknown field `valeu`"),
        (br#"{"value":"x","value_base64":"eA=="}"#, "both value and value_base64"),
        (br#"{"key_base64":"***"}"#, "key_base64 is not base64"),
        (br#"{"value":{"a":1}}"#, "expected a string"),
        (br#"{"timestamp":"yesterday"}"#, "not a time"),
        (br#"{"timestamp":[]}"#, "milliseconds"),
        (br#"{"headers":{"a":"b"}}"#, "expected a sequence"),
        (br#"{"headers":[["a",{"base64":"*"}]]}"#, "a header is not base64"),
        (br#"{"value":"x"} {"value":"y"}"#, "trailing"),
        (b"{\"value\":\"\xff\"}", "unicode"),
    ] {
        let error = parse_record(line).expect_err("it is refused");
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
}
