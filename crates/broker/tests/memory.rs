//! What waits to be written takes no more memory than is counted of it, however small the requests are.

#![allow(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a counting allocator is the one way to see what is held")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use logmill_broker::{
    Acks, Broker, Config, CreateTopic, Limit, LimitStats, Limits, Payload, Produce, ProduceRecord,
    RequestContext,
};
use logmill_log::env::block_on;
use logmill_log::sim::Sim;
use logmill_record::{BatchBuilder, NewRecord, TimestampMs};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

thread_local! {
    /// What this thread has allocated and not given back, in bytes. On the simulated machine all runs on it.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(layout.size()));
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(new_size).wrapping_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// As it comes from the transport: a part of a buffer of which the rest is of no use.
fn arrived(bytes: &[u8]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(bytes.len().next_power_of_two().max(8 * 1024));
    buffer.extend_from_slice(bytes);
    buffer.split().freeze()
}

fn batch_of(value_bytes: usize) -> Payload {
    let mut batch = BatchBuilder::new();
    let value = vec![b'x'; value_bytes];
    let record = NewRecord { timestamp: TimestampMs(5), key: None, value: Some(&value), headers: &[] };
    batch.push(&record).unwrap();
    Payload::Batch(arrived(batch.build().unwrap().bytes()))
}

fn records_of(count: usize, value_bytes: usize) -> Payload {
    let message = arrived(&vec![b'x'; count * (value_bytes + 4)]);
    let record = |at| ProduceRecord {
        key: Some(message.slice(at..at + 2)),
        value: Some(message.slice(at + 2..at + 2 + value_bytes)),
        headers: vec![("h".to_owned(), Some(message.slice(at..at + 2)))],
        timestamp: None,
    };
    Payload::Records((0..count).map(|n| record(n * (value_bytes + 4))).collect())
}

/// Sends such requests to a partition that is not written, and gives up waiting for each, until one is refused.
/// What they hold then, and what is counted of them.
fn fill(on_stream: bool, payload: impl Fn() -> Payload) -> (usize, usize) {
    const LIMIT: usize = 4 << 20;
    let sim = Sim::new(1);
    let limits = Limits { max_partition_queued_bytes: LIMIT, ..Limits::default() };
    let config =
        Config { env: sim.env(), limits, reserve_bytes: 0, low_space_bytes: 0, ..Config::new("/data") };
    let scheduler = config.env.scheduler.clone();
    let broker = Broker::open(config).unwrap();
    let context = RequestContext::embedded();
    block_on(&*scheduler, broker.create_topic(&context, CreateTopic::new("t"))).unwrap();
    let stream = broker.produce_stream();
    let counted = || -> LimitStats {
        let stats = broker.stats().limits;
        stats.into_iter().find(|stats| stats.limit == Limit::MaxPartitionQueuedBytes).unwrap()
    };

    let before = HELD.get();
    while counted().refused == 0 {
        let (topic, partition, payload) = ("t".to_owned(), Some(0), payload());
        let request = Produce { topic, partition, payload, acks: Acks::Durable, sent_at: None };
        if on_stream {
            drop(stream.send(&context, request));
        } else {
            drop(broker.produce(&context, request));
        }
    }
    let held = HELD.get().wrapping_sub(before);
    let LimitStats { used, .. } = counted();
    assert!(used <= LIMIT && used > LIMIT * 9 / 10, "{used}");
    (held, used)
}

#[test]
fn small_requests_that_nobody_waits_for_hold_no_more_than_is_counted() {
    for on_stream in [false, true] {
        for value_bytes in [0, 10, 1_000, 5_000] {
            let (held, counted) = fill(on_stream, || batch_of(value_bytes));
            assert!(held <= counted, "batches of {value_bytes}: {held} bytes, and {counted} are counted");
            assert!(held > counted / 4, "what is counted is not far off: {held} of {counted}");
        }
        for count in [1, 20] {
            let (held, counted) = fill(on_stream, || records_of(count, 10));
            assert!(held <= counted, "{count} records: {held} bytes, and {counted} are counted");
        }
    }
}

#[test]
fn a_larger_request_keeps_no_more_than_as_much_again() {
    let (held, counted) = fill(false, || batch_of(9_000));
    assert!(held <= 2 * counted, "{held} bytes, and {counted} are counted");
}
