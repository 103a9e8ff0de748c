//! What a request repeats, counted on the wire before it is decoded.
//!
//! An empty record takes two bytes of a message and a hundred in memory: a message of nine megabytes would be half a
//! gigabyte before anybody could look how many records it has. Here the tags of a message are read as it arrives, of
//! what the API lets it repeat each is counted, and one too many ends it.
//!
//! Nothing is checked but that. What is no message is passed on, and decoding it fails at the same place.

use crate::error::Error;
use crate::limits::{Bounds, Limit};

/// What protobuf can say of the bytes behind a tag.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const GROUP: u64 = 3;
const GROUP_END: u64 = 4;
const FIXED_32: u64 = 5;

/// Settings of a topic in one request: there are thirteen, and each is named once.
const MAX_SETTINGS: usize = 100;

/// How many of a part there may be in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Most {
    /// It is there once, and what it repeats counts.
    Once,
    /// And what they are called.
    Limit(Limit, &'static str),
    Settings,
}

/// A field that is a message itself, or a text that comes more than once: an empty one takes two bytes of a message and
/// twenty-four in memory.
#[derive(Debug)]
struct Part {
    field: u64,
    most: Most,
    of: Shape,
}

/// The fields of a message that repeat something.
type Shape = &'static [Part];

const FETCH_PARTITIONS: Shape =
    &[Part { field: 1, most: Most::Limit(Limit::MaxFetchPartitions, "partitions"), of: &[] }];
const RECORDS: Shape = {
    const RECORD: Shape =
        &[Part { field: 4, most: Most::Limit(Limit::MaxHeadersPerRequest, "headers"), of: &[] }];
    &[Part { field: 1, most: Most::Limit(Limit::MaxRecordsPerRequest, "records"), of: RECORD }]
};
const PRODUCE: Shape = &[Part { field: 3, most: Most::Once, of: RECORDS }];
const STEP: Shape = {
    const HEADER: Shape =
        &[Part { field: 4, most: TOUCHED, of: &[] }, Part { field: 5, most: TOUCHED, of: &[] }];
    &[Part { field: 1, most: Most::Once, of: HEADER }, Part { field: 2, most: Most::Once, of: PRODUCE }]
};
const CONSUME: Shape = {
    const UNIT: Shape = &[Part { field: 2, most: COMES_FOR, of: &[] }];
    const JOIN: Shape =
        &[Part { field: 4, most: COMES_FOR, of: &[] }, Part { field: 5, most: COMES_FOR, of: UNIT }];
    const COMMIT: Shape = &[Part { field: 3, most: TOUCHED, of: &[] }];
    &[Part { field: 1, most: Most::Once, of: JOIN }, Part { field: 3, most: Most::Once, of: COMMIT }]
};
/// Where a group goes on, and where a step appends to.
const TOUCHED: Most = Most::Limit(Limit::MaxCommitPartitions, "topics and offsets");
const COMES_FOR: Most = Most::Limit(Limit::MaxJoinUnits, "topics, units and partitions");

/// A call whose request repeats something.
#[derive(Debug)]
pub(super) struct Call {
    path: &'static str,
    shape: Shape,
    /// It takes message after message.
    pub(super) is_stream: bool,
}

/// All of them.
const CALLS: &[Call] = &[
    unary("/logmill.v1.FetchService/Fetch", FETCH_PARTITIONS),
    Call {
        path: "/logmill.v1.FetchService/Subscribe",
        shape: &[Part { field: 1, most: Most::Once, of: FETCH_PARTITIONS }],
        is_stream: true,
    },
    Call { path: "/logmill.v1.GroupService/Consume", shape: CONSUME, is_stream: true },
    unary(
        "/logmill.v1.GroupService/ResetOffsets",
        &[Part { field: 2, most: Most::Limit(Limit::MaxPositions, "topics"), of: &[] }],
    ),
    unary("/logmill.v1.ProduceService/Produce", PRODUCE),
    Call {
        path: "/logmill.v1.ProduceService/ProduceStream",
        shape: &[Part { field: 2, most: Most::Once, of: PRODUCE }],
        is_stream: true,
    },
    unary("/logmill.v1.TopicService/AlterTopic", &[Part { field: 2, most: Most::Settings, of: &[] }]),
    unary("/logmill.v1.TopicService/CreateTopic", &[Part { field: 3, most: Most::Settings, of: &[] }]),
    unary(
        "/logmill.v1.TopicService/DeleteRecords",
        &[Part { field: 2, most: Most::Limit(Limit::MaxPartitionsPerTopic, "partitions"), of: &[] }],
    ),
    unary(
        "/logmill.v1.TopicService/ListOffsets",
        &[Part { field: 2, most: Most::Limit(Limit::MaxPositions, "positions"), of: &[] }],
    ),
    unary("/logmill.v1.TransactionService/AddOffsets", &[Part { field: 5, most: TOUCHED, of: &[] }]),
    Call { path: "/logmill.v1.TransactionService/CommitStep", shape: STEP, is_stream: true },
];

const fn unary(path: &'static str, shape: Shape) -> Call {
    Call { path, shape, is_stream: false }
}

impl Call {
    /// That of `path`. `None` if its request repeats nothing.
    pub(super) fn find(path: &str) -> Option<&'static Self> {
        CALLS.iter().find(|call| call.path == path)
    }
}

/// A message on its way.
#[derive(Debug)]
pub(super) struct Counter {
    shape: Shape,
    /// The messages inside it that have begun, the innermost last, and where each ends.
    inside: Vec<(Shape, usize)>,
    counts: Vec<(Most, usize)>,
    /// How much has come.
    at: usize,
    /// What comes next.
    next: Next,
    /// Of a number that has not come whole.
    number: u64,
    shift: u32,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Tag,
    /// A number that says nothing here.
    Varint,
    /// The length of a field.
    Length(u64),
    Skip(usize),
    /// It is no message.
    Broken,
}

impl Counter {
    pub(super) fn new(call: &'static Call) -> Self {
        let (inside, counts) = (Vec::new(), Vec::new());
        Self { shape: call.shape, inside, counts, at: 0, next: Next::Tag, number: 0, shift: 0 }
    }

    /// Another message begins.
    pub(super) fn begin(&mut self) {
        self.inside.clear();
        self.counts.clear();
        (self.at, self.next, self.number, self.shift) = (0, Next::Tag, 0, 0);
    }

    /// Takes what has come of it.
    pub(super) fn take(&mut self, mut bytes: &[u8], bounds: &Bounds) -> Result<(), Error> {
        while let [byte, rest @ ..] = bytes {
            let taken = match self.next {
                Next::Broken => return Ok(()),
                Next::Skip(left) => {
                    let taken = left.min(bytes.len());
                    self.next = if taken == left { Next::Tag } else { Next::Skip(left - taken) };
                    taken
                }
                next => {
                    if let Some(number) = self.number(*byte) {
                        self.at += 1;
                        self.next = self.after(next, number, bounds)?;
                        bytes = rest;
                        continue;
                    }
                    1
                }
            };
            self.at += taken;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// The number that ends with this byte.
    fn number(&mut self, byte: u8) -> Option<u64> {
        if self.shift > 63 {
            self.next = Next::Broken;
            return None;
        }
        self.number |= u64::from(byte & 0x7F) << self.shift;
        self.shift += 7;
        if byte & 0x80 != 0 {
            return None;
        }
        self.shift = 0;
        Some(std::mem::take(&mut self.number))
    }

    fn after(&mut self, next: Next, number: u64, bounds: &Bounds) -> Result<Next, Error> {
        match next {
            Next::Tag => Ok(match number & 7 {
                VARINT => Next::Varint,
                FIXED_64 => Next::Skip(8),
                FIXED_32 => Next::Skip(4),
                LENGTH_DELIMITED => Next::Length(number >> 3),
                // What is in a group has tags of its own.
                GROUP | GROUP_END => Next::Tag,
                _ => Next::Broken,
            }),
            Next::Length(field) => self.field(field, usize::try_from(number).unwrap_or(usize::MAX), bounds),
            _ => Ok(Next::Tag),
        }
    }

    /// A field of this length begins.
    fn field(&mut self, field: u64, length: usize, bounds: &Bounds) -> Result<Next, Error> {
        while self.inside.last().is_some_and(|(_, end)| *end < self.at) {
            self.inside.pop();
        }
        let skip = if length == 0 { Next::Tag } else { Next::Skip(length) };
        let shape = self.inside.last().map_or(self.shape, |(shape, _)| *shape);
        let Some(part) = shape.iter().find(|part| part.field == field) else { return Ok(skip) };
        if part.most != Most::Once {
            check(part.most, self.count(part.most), bounds)?;
        }
        if part.of.is_empty() || length == 0 {
            return Ok(skip);
        }
        self.inside.push((part.of, self.at.saturating_add(length)));
        Ok(Next::Tag)
    }

    /// One more of these.
    fn count(&mut self, most: Most) -> usize {
        if let Some((_, count)) = self.counts.iter_mut().find(|(counted, _)| *counted == most) {
            *count += 1;
            return *count;
        }
        self.counts.push((most, 1));
        1
    }
}

fn check(most: Most, count: usize, bounds: &Bounds) -> Result<(), Error> {
    match most {
        Most::Limit(limit, what) => {
            let doing = || format!("a request with {count} {what} or more");
            bounds.check(limit, count, doing, "send several requests")
        }
        Most::Settings if count > MAX_SETTINGS => {
            Err(Error::field("settings", format!("a list of more than {MAX_SETTINGS}"), "a topic has fewer"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use logmill_proto::{DESCRIPTORS, v1};
    use prost::Message as _;
    use prost_types::field_descriptor_proto::{Label, Type};
    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::*;
    use crate::error::Reason;
    use crate::limits::Limits;

    fn bounds() -> Bounds {
        Bounds::new(Limits { max_records_per_request: 5, max_headers_per_request: 7, ..Limits::default() })
    }

    fn request(records: usize, headers: usize) -> v1::ProduceStreamRequest {
        let header = v1::Header { key: "h".into(), value: Some("x".into()) };
        let mut records =
            vec![v1::Record { value: Some(vec![0x22; 300].into()), ..Default::default() }; records];
        records[0].headers = vec![header; headers];
        let payload = v1::produce_request::Payload::Records(v1::RecordSet { records });
        let request = v1::ProduceRequest {
            topic: "t".into(),
            partition: Some(3),
            payload: Some(payload),
            sent_at_ms: Some(-1),
            producer: Some(v1::ProducerState { id: 1, epoch: 2, base_sequence: 3, transactional: true }),
            ..Default::default()
        };
        v1::ProduceStreamRequest { correlation_id: u64::MAX, request: Some(request), after_failure: true }
    }

    /// The limit that a message passes, if it comes in steps of so many bytes.
    fn passes(path: &str, message: &[u8], step: usize) -> Option<String> {
        let (bounds, mut counter) = (bounds(), Counter::new(Call::find(path).unwrap()));
        let mut last = None;
        // The second one is counted like the first.
        for _ in 0..2 {
            counter.begin();
            let ended = message.chunks(step).find_map(|part| counter.take(part, &bounds).err());
            last = ended.map(|error| {
                assert_eq!(error.reason(), Reason::LimitExceeded);
                error.metadata().iter().find(|(name, _)| *name == "limit").unwrap().1.clone()
            });
        }
        last
    }

    #[test]
    fn records_and_headers_count_and_what_is_inside_them_does_not() {
        let path = "/logmill.v1.ProduceService/ProduceStream";
        for step in [1, 2, 3, 7, 100, 10_000] {
            assert_eq!(passes(path, &request(5, 7).encode_to_vec(), step), None);
            let over = passes(path, &request(6, 7).encode_to_vec(), step);
            assert_eq!(over.as_deref(), Some("max_records_per_request"));
            let over = passes(path, &request(5, 8).encode_to_vec(), step);
            assert_eq!(over.as_deref(), Some("max_headers_per_request"));
        }
    }

    #[test]
    fn parts_that_come_in_pieces_and_what_nobody_knows_make_no_difference() {
        let path = "/logmill.v1.ProduceService/Produce";
        let six = request(6, 1).request.unwrap().encode_to_vec();
        // A message may have a field twice, which is then one.
        let three = request(3, 1).request.unwrap().encode_to_vec();
        assert!(passes(path, &[&three[..], &three].concat(), 50).is_some());
        // Field 15, once as a group, which has field 3 in it, and once as each of the others.
        let unknown = [0x7B, 0x1A, 1, 0, 0x7C, 0x78, 0x80, 1, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7D, 1, 2, 3, 4];
        assert!(passes(path, &[&unknown[..], &six].concat(), 3).is_some());
        assert_eq!(passes(path, &[&unknown[..], &three].concat(), 3), None);
    }

    #[test]
    fn what_is_no_message_is_left_to_those_who_decode_it() {
        let path = "/logmill.v1.ProduceService/Produce";
        for junk in [&[0xFF; 50][..], &[0x1F, 1], &[0x1A, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0x0A]] {
            assert_eq!(passes(path, junk, 1), None);
        }
    }

    /// Every request of the API, as far as it has messages or texts that come more than once.
    #[test]
    fn the_shapes_are_those_of_the_api() {
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
        let messages: Vec<_> = files.iter().flat_map(|file| &file.message_type).collect();
        let find = |name: &str| {
            let name = name.strip_prefix(".logmill.v1.")?;
            messages.iter().find(|message| message.name() == name)
        };
        fn check(
            message: &DescriptorProto,
            shape: Shape,
            find: &dyn Fn(&str) -> Option<DescriptorProto>,
        ) -> bool {
            let mut repeats = false;
            let is_text = |kind| matches!(kind, Type::String | Type::Bytes);
            for field in message.field.iter().filter(|field| is_text(field.r#type())) {
                let part = shape.iter().find(|part| part.field == u64::try_from(field.number()).unwrap());
                let repeated = field.label() == Label::Repeated;
                assert_eq!(part.is_some(), repeated, "{}.{}", message.name(), field.name());
                repeats |= repeated;
            }
            for field in message.field.iter().filter(|field| field.r#type() == Type::Message) {
                let Some(inner) = find(field.type_name()) else { continue };
                let part = shape.iter().find(|part| part.field == u64::try_from(field.number()).unwrap());
                let inner_repeats = check(&inner, part.map_or(&[], |part| part.of), find);
                let repeated = field.label() == Label::Repeated;
                assert_eq!(part.is_some(), repeated || inner_repeats, "{}.{}", message.name(), field.name());
                assert!(!repeated || part.unwrap().most != Most::Once, "{}.{}", message.name(), field.name());
                repeats |= repeated || inner_repeats;
            }
            repeats
        }
        for service in files.iter().flat_map(|file| &file.service) {
            for rpc in &service.method {
                let path = format!("/logmill.v1.{}/{}", service.name(), rpc.name());
                let call = Call::find(&path);
                assert_eq!(call.is_some_and(|call| call.is_stream), rpc.client_streaming(), "{path}");
                let request = find(rpc.input_type()).unwrap();
                let find = |name: &str| find(name).map(|message| (*message).clone());
                let repeats = check(request, call.map_or(&[], |call| call.shape), &find);
                assert_eq!(call.is_some(), repeats, "{path}");
            }
        }
    }
}
