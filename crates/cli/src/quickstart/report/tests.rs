use super::*;

fn row(net: &str, count: i64, max_mag: f64) -> Row {
    Row { net: net.into(), day: "2018-02-06".into(), count, max_mag, mean_mag: max_mag / 2.0 }
}

fn report(table: Vec<Row>) -> Report {
    Report {
        input: "f.json".into(),
        records: 1_707,
        produced: 0,
        dead: 0,
        late: 0,
        rows: table.len(),
        sqlite: "/d/quakes.db".into(),
        data_dir: "/d".into(),
        rate_per_s: None,
        processing_rate_per_s: Some(12_345.6),
        delay_ms: Delays {
            stored: Percentiles::default(),
            processed: Percentiles { p50: Some(1.25), p99: Some(40.0) },
        },
        capacity: Capacity {
            mean_stored_bytes: Some(712.4),
            stored_bytes: 1_216_000,
            disk_available_bytes: 75_000_000_000,
            disk_total_bytes: 250_000_000_000,
            seconds_until_full: None,
        },
        throughput_bytes_per_s: Throughput { in_: None, out: Some(8_000_000.0) },
        table,
        dead_reasons: Vec::new(),
        next: [String::new(), String::new(), String::new()],
    }
}

#[test]
fn the_strongest_days_come_first_with_a_bar() {
    let text = report(vec![row("ak", 9, -0.4), row("us", 25, 6.4), row("ci", 3, 6.4), row("nc", 1, 2.0)])
        .strongest();
    let rows: Vec<&str> = text.lines().skip(3).collect();
    for (line, has) in rows.iter().zip(["│ us ", "│ ci ", "│ nc ", "│ ak "]) {
        assert!(line.contains(&has.replace('│', "┆")), "{line}\n{text}");
    }
    let blocks: Vec<usize> = rows.iter().map(|line| line.matches('█').count()).collect();
    assert_eq!(blocks[..4], [13, 13, 4, 0]);
}

#[test]
fn what_was_not_measured_is_a_dash_and_null() {
    let report = report(Vec::new());
    let text = report.quantities().map(|(_, text)| text).join("\n");
    assert!(text.starts_with("– produced, 12,346 records/s processed"), "{text}");
    assert!(text.contains("to stored     p50 –, p99 –"), "{text}");
    assert!(text.contains("p50 1.2 ms, p99 40.0 ms") || text.contains("p50 1.3 ms"), "{text}");
    assert!(text.contains("75.0 GB free, full in – at this rate"), "{text}");
    let document = serde_json::to_value(&report).expect("a report is JSON");
    assert!(document["rate_per_s"].is_null() && document["delay_ms"]["stored"]["p99"].is_null());
    assert_eq!(document["delay_ms"]["processed"]["p99"], 40.0);
    assert_eq!(document["throughput_bytes_per_s"]["out"], 8_000_000.0);
    assert!(document["throughput_bytes_per_s"]["in"].is_null());
}

#[test]
fn throughput_is_bytes_by_time_under_the_names_of_the_guide() {
    let of = |bytes| bytes_per_s(bytes, Duration::from_millis(250));
    assert_eq!((of(1_000_000), of(0)), (Some(4_000_000.0), Some(0.0)));
    assert_eq!(bytes_per_s(1, Duration::ZERO), None);
    let report = Report {
        throughput_bytes_per_s: Throughput { in_: of(1_000_000), out: of(5_000) },
        ..report(Vec::new())
    };
    let document = serde_json::to_value(&report).expect("a report is JSON");
    assert_eq!(document["throughput_bytes_per_s"], serde_json::json!({ "in": 4_000_000.0, "out": 20_000.0 }));
    let [.., (name, text)] = report.quantities();
    assert_eq!((name, text.as_str()), ("Throughput", "4.0 MB/s in, 20.0 kB/s out"));
}
