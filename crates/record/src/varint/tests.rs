use proptest::prelude::*;

use super::*;

fn overflow(bits: u8) -> RecordProblem {
    RecordProblem::VarintOverflow { field: "n", bits }
}

#[test]
fn known_values_have_their_known_bytes() {
    // The table of the Protocol Buffers encoding guide, and the ends of each length.
    let cases: [(i32, &[u8]); 11] = [
        (0, &[0x00]),
        (-1, &[0x01]),
        (1, &[0x02]),
        (-2, &[0x03]),
        (63, &[0x7E]),
        (-64, &[0x7F]),
        (64, &[0x80, 0x01]),
        (-65, &[0x81, 0x01]),
        (8191, &[0xFE, 0x7F]),
        (i32::MAX, &[0xFE, 0xFF, 0xFF, 0xFF, 0x0F]),
        (i32::MIN, &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),
    ];
    for (value, bytes) in cases {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        assert_eq!(out, bytes, "{value}");
        assert_eq!(Reader::new(bytes).varint("n"), Ok(value));
    }
    let mut out = Vec::new();
    put_varlong(&mut out, i64::MIN);
    assert_eq!(out, [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]);
    assert_eq!(Reader::new(&out).varlong("n"), Ok(i64::MIN));
}

#[test]
fn bits_beyond_the_type_are_refused_not_dropped() {
    assert_eq!(Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 0x1F]).varint("n"), Err(overflow(32)));
    assert_eq!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x10]).varint("n"), Err(overflow(32)));
    assert_eq!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]).varint("n"), Err(overflow(32)));

    let mut long = [0xFF; 10];
    long[9] = 0x03;
    assert_eq!(Reader::new(&long).varlong("n"), Err(overflow(64)));
    assert_eq!(Reader::new(&[0x80; 11]).varlong("n"), Err(overflow(64)));
}

#[test]
fn an_integer_that_is_cut_short_is_an_overrun() {
    for len in 0..5 {
        let cut = [0x80; 4][..len.min(4)].to_vec();
        assert!(matches!(Reader::new(&cut).varint("n"), Err(RecordProblem::Overrun { .. })), "{len}");
    }
    for len in 0..10 {
        assert!(matches!(
            Reader::new(&[0x80; 9][..len.min(9)]).varlong("n"),
            Err(RecordProblem::Overrun { .. })
        ));
    }
}

#[test]
fn a_longer_form_than_needed_is_read_as_kafka_reads_it() {
    assert_eq!(Reader::new(&[0x82, 0x80, 0x80, 0x80, 0x00]).varint("n"), Ok(1));
    assert_eq!(Reader::new(&[0x83, 0x80, 0x00]).varlong("n"), Ok(-2));
}

#[test]
fn a_length_of_minus_one_is_null_only_where_null_is_allowed() {
    assert_eq!(Reader::new(&[0x01]).nullable_bytes("n"), Ok(None));
    assert_eq!(Reader::new(&[0x00]).nullable_bytes("n"), Ok(Some(&[][..])));
    assert_eq!(Reader::new(&[0x01]).bytes("n"), Err(RecordProblem::Negative { field: "n", value: -1 }));
    assert_eq!(
        Reader::new(&[0x03]).nullable_bytes("n"),
        Err(RecordProblem::Negative { field: "n", value: -2 })
    );
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_has_the_announced_length(
        value in any::<i64>(), short in any::<i32>(), shift in 0_u32..64, rest in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        // Shifted, so that every length comes up.
        let long = value >> shift;
        let mut out = Vec::new();
        put_varlong(&mut out, long);
        prop_assert_eq!(out.len(), varlong_len(long));
        out.extend(&rest);
        let mut reader = Reader::new(&out);
        prop_assert_eq!(reader.varlong("n"), Ok(long));
        prop_assert_eq!(reader.remaining(), rest.len());

        let int = short >> (shift % 32);
        let mut out = Vec::new();
        put_varint(&mut out, int);
        prop_assert_eq!(out.len(), varint_len(int));
        out.extend(&rest);
        let mut reader = Reader::new(&out);
        prop_assert_eq!(reader.varint("n"), Ok(int));
        prop_assert_eq!(reader.remaining(), rest.len());
    }
}
