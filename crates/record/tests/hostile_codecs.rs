//! Compressed batches that lie: cut, damaged, claiming what is not there, or growing without end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; the lints know only the tests themselves"
)]
#![cfg(all(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd"))]

mod common;

use common::{RawBatch, RawRecord};
use logmill_record::{
    Batch, BatchBuilder, BatchError, BatchErrorKind, BatchOptions, Compression, HEADER_LEN, InflateLimits,
    Inflater, NewRecord, TimestampMs,
};

const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn code(compression: Compression) -> i16 {
    let at = CODECS.iter().position(|codec| *codec == compression).unwrap();
    i16::try_from(at).unwrap() + 1
}

/// A batch that claims `count` records, in a payload that is said to be compressed.
fn claiming(compression: Compression, count: i32, payload: &[u8]) -> Batch {
    let mut raw = RawBatch::new(count.max(1), payload.to_vec());
    raw.attributes = code(compression);
    raw.record_count = count;
    Batch::parse(raw.bytes()).unwrap()
}

/// The payload of a batch that this crate compressed.
fn payload(compression: Compression, value: &[u8]) -> Vec<u8> {
    let options = BatchOptions::new().compression(compression);
    let mut builder = BatchBuilder::with_options(options, value.len() + 100);
    for _ in 0..3 {
        let record =
            NewRecord { timestamp: TimestampMs(0), key: Some(b"key"), value: Some(value), headers: &[] };
        builder.push(&record).unwrap();
    }
    builder.build().unwrap().bytes()[HEADER_LEN..].to_vec()
}

/// What is wrong with the payload, of which every way of reading says the same.
fn error(compression: Compression, payload: &[u8]) -> BatchError {
    let batch = claiming(compression, 3, payload);
    let mut inflater = Inflater::default();
    let error = batch.check_records_with(&mut inflater).unwrap_err();
    assert_eq!(batch.check_stored_with(&mut inflater).unwrap_err(), error);
    if let Ok(records) = batch.records_with(&mut inflater) {
        assert_eq!(records.last().unwrap().unwrap_err(), error);
    }
    error
}

fn problem(compression: Compression, payload: &[u8]) -> String {
    match error(compression, payload) {
        BatchError::NotInflated { compression: named, problem } if named == compression => problem,
        other => panic!("not about the codec: {other}"),
    }
}

#[test]
fn what_these_tests_damage_is_good_before() {
    for compression in CODECS {
        claiming(compression, 3, &payload(compression, b"value")).check_records().unwrap();
    }
}

#[test]
fn a_payload_cut_anywhere_is_refused() {
    for compression in CODECS {
        // More than one block, so that cuts between blocks are among them.
        let whole = payload(compression, &pseudo_random(30_000));
        let near = [0, 1, 2, 7, 8, 15, 16, 17, 18, 19, 20, whole.len() - 1, whole.len() - 4, whole.len() - 8];
        for len in near.into_iter().chain((21..whole.len()).step_by(97)) {
            let error = error(compression, &whole[..len]);
            assert_eq!(error.kind(), BatchErrorKind::Invalid, "{compression} cut to {len}: {error}");
        }
    }
}

#[test]
fn bytes_after_the_last_frame_are_refused() {
    for compression in CODECS {
        let whole = payload(compression, b"value");
        for garbage in [&b"\0"[..], b"\0\0\0\0\0\0\0\0\0\0\0\0", b"garbage that goes on"] {
            error(compression, &[&whole[..], garbage].concat());
        }
    }
}

#[test]
fn what_one_codec_wrote_is_not_read_by_another() {
    for written in CODECS {
        for read in CODECS.into_iter().filter(|read| *read != written) {
            error(read, &payload(written, b"value"));
        }
        // And what was compressed twice is no records when it is inflated once.
        let once = payload(written, b"value");
        let nested = payload(written, &once);
        let batch = claiming(written, 3, &nested);
        batch.check_records().unwrap();
        assert_eq!(batch.inflate(&InflateLimits::default()).unwrap().records().unwrap().count(), 3);
    }
}

#[test]
fn an_empty_payload_is_right_for_no_records_only() {
    for compression in CODECS {
        let empty = claiming(compression, 0, b"");
        empty.check_stored_with(&mut Inflater::default()).unwrap();
        assert_eq!(empty.records_with(&mut Inflater::default()).unwrap().count(), 0);
        assert!(empty.check_records().is_err(), "no producer sends it");
        assert_eq!(error(compression, b"").kind(), BatchErrorKind::Invalid);
        // Records that nobody counted.
        let uncounted = claiming(compression, 0, &payload(compression, b"value"));
        let error = uncounted.check_stored_with(&mut Inflater::default()).unwrap_err();
        assert!(matches!(error, BatchError::TrailingBytes { .. }), "{error}");
    }
}

#[test]
fn more_records_than_the_inflated_bytes_can_hold_are_refused() {
    for compression in CODECS {
        let mut raw = RawBatch::new(i32::MAX, payload(compression, b"value"));
        raw.attributes = code(compression);
        let batch = Batch::parse(raw.bytes()).unwrap();
        let error = batch.check_records().unwrap_err();
        assert!(matches!(error, BatchError::OutOfRange { field: "record count", .. }), "{error}");
        assert_eq!(batch.inflate(&InflateLimits::default()).unwrap_err(), error);
    }
}

#[test]
fn a_bomb_goes_off_at_the_limit_of_bytes() {
    let zeros = vec![0; 3 << 20];
    for compression in CODECS {
        let payload = payload(compression, &zeros);
        let batch = claiming(compression, 3, &payload);
        // With room for it, it is a batch like any other.
        let limits = |max_bytes| InflateLimits { max_bytes, max_ratio: usize::MAX };
        batch.check_records_with(&mut Inflater::new(limits(10 << 20))).unwrap();
        let max_bytes = 5 << 20;
        let mut inflater = Inflater::new(limits(max_bytes));
        let expected =
            BatchError::InflatesTooFar { compression, compressed: payload.len(), limit: max_bytes };
        assert_eq!(batch.check_records_with(&mut inflater).unwrap_err(), expected);
        assert_eq!(batch.inflate(&inflater.limits()).unwrap_err(), expected);
        assert_eq!(expected.kind(), BatchErrorKind::TooLarge);
        // The inflater is as good as new.
        claiming(compression, 3, &self::payload(compression, b"value"))
            .check_records_with(&mut inflater)
            .unwrap();
    }
}

#[test]
fn the_limit_of_bytes_is_exact() {
    for compression in CODECS {
        let payload = payload(compression, &[7; 5_000]);
        let batch = claiming(compression, 3, &payload);
        let len = batch.inflate(&InflateLimits::default()).unwrap().bytes().len() - HEADER_LEN;
        let limits = |max_bytes| InflateLimits { max_bytes, ..InflateLimits::default() };
        batch.inflate(&limits(len)).unwrap();
        let error = batch.inflate(&limits(len - 1)).unwrap_err();
        let limit = len - 1;
        assert_eq!(error, BatchError::InflatesTooFar { compression, compressed: payload.len(), limit });
    }
}

#[test]
fn a_bomb_goes_off_at_the_ratio_and_small_batches_are_free_of_it() {
    let limits = InflateLimits { max_ratio: 5, ..InflateLimits::default() };
    let small = vec![0; 300_000];
    let large = vec![0; 3 << 20];
    for compression in CODECS {
        claiming(compression, 3, &payload(compression, &small)).inflate(&limits).unwrap();
        let payload = payload(compression, &large);
        let error = claiming(compression, 3, &payload).inflate(&limits).unwrap_err();
        let limit = (5 * payload.len()).max(1 << 20);
        assert_eq!(error, BatchError::InflatesTooFar { compression, compressed: payload.len(), limit });
    }
}

#[test]
fn snappy_chunks_that_claim_what_is_not_there_are_refused() {
    const HEADER: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    let chunk = |length: u32, block: &[u8]| [HEADER, &length.to_be_bytes(), block].concat();
    let problem = |payload: &[u8]| problem(Compression::Snappy, payload);

    assert_eq!(problem(&chunk(u32::MAX, b"abc")), "a chunk claims 4294967295 bytes, 3 remain");
    assert_eq!(problem(&chunk(4, b"abc")), "a chunk claims 4 bytes, 3 remain");
    assert_eq!(problem(&[HEADER, b"\0\0"].concat()), "a chunk's length is cut short");
    assert_eq!(problem(&HEADER[..9]), "its header is cut short");
    // The length in front of a block: four gigabytes, and just more than such a block can hold.
    let claims = b"\xff\xff\xff\xff\x0f\x00a";
    assert_eq!(problem(&chunk(7, claims)), "a block of 7 bytes claims to hold 4294967295");
    assert_eq!(problem(claims), "a block of 7 bytes claims to hold 4294967295");
    problem(&chunk(3, b"\x40\x00a"));
    problem(&chunk(0, b""));
    // A header in the middle is where two streams were joined: fine, if both add up.
    let whole = payload(Compression::Snappy, b"value");
    claiming(Compression::Snappy, 3, &[HEADER, &whole].concat()).check_records().unwrap();
}

#[test]
fn lz4_frames_that_contradict_themselves_are_refused() {
    let whole = payload(Compression::Lz4, b"value");
    let problem = |payload: &[u8]| problem(Compression::Lz4, payload);
    let changed = |at: usize, to: &[u8]| {
        let mut payload = whole.clone();
        payload[at..at + to.len()].copy_from_slice(to);
        problem(&payload)
    };
    assert_eq!(changed(0, &[5]), "0x184d2205 is not the magic of a frame");
    assert_eq!(changed(4, &[0xA0]), "version 2 of frames is not known");
    assert_eq!(changed(5, &[0x30]), "block size 3 is not known");
    assert_eq!(changed(4, &[0x61]), "a frame asks for a dictionary");
    assert_eq!(changed(6, &[0]), "a frame's header checksum is wrong");
    let remain = whole.len() - 11;
    let needs = |len| format!("a block needs {len} bytes, {remain} remain");
    assert_eq!(changed(7, &u32::MAX.to_le_bytes()), needs(i32::MAX));
    assert_eq!(changed(7, &0x7FFF_FFFF_u32.to_le_bytes()), needs(i32::MAX));
    // A frame to be skipped, of which there is not enough.
    let skip = [&0x184D_2A53_u32.to_le_bytes()[..], &u32::MAX.to_le_bytes(), &whole].concat();
    assert!(problem(&skip).starts_with("a frame to skip needs 4294967295 bytes"));
    let skip = [&0x184D_2A53_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc", &whole].concat();
    claiming(Compression::Lz4, 3, &skip).check_records().unwrap();
    // Blocks of up to 4 MiB, as Go's writer claims them.
    let largest = [&[0x04, 0x22, 0x4D, 0x18, 0x60, 0x70, 0x73][..], &whole[7..]].concat();
    claiming(Compression::Lz4, 3, &largest).check_records().unwrap();
    // Lengths of literals and matches that go on, and a match before the beginning.
    let frame = |block: &[u8]| {
        let length = u32::try_from(block.len()).unwrap().to_le_bytes();
        [&whole[..7], &length, block, &[0; 4]].concat()
    };
    problem(&frame(&[0xF0, 0xFF, 0xFF, 0xFF]));
    problem(&frame(&[0xF0, 0xFF, 0xFF, 0x00]));
    problem(&frame(&[0x10, b'a', 0x02, 0x00, 0x00]));
    problem(&frame(&[0x10, b'a', 0x00, 0x00, 0x00]));
    problem(&frame(&[0x1F, b'a', 0x01]));
    // 1 + 255 × 300 bytes, in a frame whose blocks hold 64 KiB.
    let run = [&[0x1F, b'a', 0x01, 0x00][..], &[0xFF; 300], &[0x00, 0x00]].concat();
    assert_eq!(problem(&frame(&run)), "a block of 76520 bytes, in a frame of 65536 at most");
}

#[test]
fn zstd_frames_that_claim_a_size_are_held_to_it_and_to_the_limit() {
    let compression = Compression::Zstd;
    // Single segment, content size of eight bytes; one raw block of three.
    let frame = |content: u64| {
        [&[0x28, 0xB5, 0x2F, 0xFD, 0xE0][..], &content.to_le_bytes(), &[0x19, 0, 0], b"abc"].concat()
    };
    problem(compression, &frame(1 << 40));
    problem(compression, &frame(4));
    problem(compression, &frame(2));
    // A window of the largest size that the format knows, for three bytes.
    let window = [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xFF][..], &[0x19, 0, 0], b"abc"].concat();
    error(compression, &window);
    // A dictionary that nobody has.
    problem(compression, &[&[0x28, 0xB5, 0x2F, 0xFD, 0x21, 9, 3][..], &[0x19, 0, 0], b"abc"].concat());
    // 16,000 blocks of one byte that stand for 128 KiB each.
    let bomb = [
        &[0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x58][..],
        &[0x02, 0x00, 0x10, b'a'].repeat(16_000),
        &[0x03, 0x00, 0x10, b'a'],
    ]
    .concat();
    let error = claiming(compression, 3, &bomb).check_records().unwrap_err();
    assert_eq!(error.kind(), BatchErrorKind::TooLarge, "{error}");
}

#[test]
fn gzip_members_follow_one_another_and_checksums_are_held_to() {
    let compression = Compression::Gzip;
    let whole = payload(compression, b"value");
    for at in [whole.len() - 8, whole.len() - 1, 0, 2] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        problem(compression, &changed);
    }
    // A second member that is empty adds nothing.
    let empty = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    claiming(compression, 3, &[&whole[..], &empty].concat()).check_records().unwrap();
    claiming(compression, 3, &[&empty[..], &whole].concat()).check_records().unwrap();
}

#[test]
fn a_record_that_does_not_add_up_is_found_behind_every_codec() {
    let bad = RawRecord { key_len: 99, ..RawRecord::new(0) };
    // Stored blocks, so that the bytes can be put together by hand.
    let block = bad.bytes();
    let length = u32::try_from(block.len()).unwrap();
    let frame =
        [&[0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82][..], &(length | 1 << 31).to_le_bytes(), &block, &[0; 4]];
    let error = claiming(Compression::Lz4, 1, &frame.concat()).check_records().unwrap_err();
    assert_eq!(error.to_string(), "record 0 at byte 61 of the batch: its key needs 99 bytes, 2 remain");
}

/// Bytes that no codec makes smaller (xorshift64, seed 1).
fn pseudo_random(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}
