//! Requests that are made by chance: most of them make sense, and some are wrong in every way.

use bytes::Bytes;
use prost::Message as _;

use super::*;
use crate::common::batch;

/// The messages of a request.
pub(super) type Make = fn(&mut Random) -> Vec<Vec<u8>>;

/// Chance that comes again: splitmix64; and who writes transactions as `x`, if somebody does.
pub(super) struct Random(pub(super) u64, pub(super) Option<v1::ProducerEpoch>);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    pub(super) fn many<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.pick(&[0, 1, 1, 1, 1, 1, 1, 2, 3, 20]);
        (0..count).map(|_| make(self)).collect()
    }

    pub(super) fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.one_in(6) { None } else { Some(make(self)) }
    }

    /// Mostly what makes sense, and else the ends of what there is.
    pub(super) fn int(&mut self) -> i32 {
        let end = self.pick(&[2, 3, -1, 100, 60_001, 1_000_000, i32::MAX, i32::MAX - 1, i32::MIN]);
        if self.one_in(8) { end } else { self.pick(&[0, 0, 1]) }
    }

    pub(super) fn long(&mut self) -> i64 {
        let end = self.pick(&[i64::MAX, i64::MIN, i64::MAX - 1, -1, 1 << 40]);
        if self.one_in(8) { end } else { self.int().into() }
    }

    pub(super) fn topic(&mut self) -> String {
        let long = "x".repeat(300);
        let odd = self.pick(&["u", "v", "", "..", "__x", "ü", "a/b", "t\0", &long]).to_owned();
        if self.one_in(4) { odd } else { "t".to_owned() }
    }

    pub(super) fn setting(&mut self) -> String {
        const NAMES: [&str; 8] = [
            "retention.ms",
            "retention.bytes",
            "segment.bytes",
            "cleanup.policy",
            "max.message.bytes",
            "compression.type",
            "durability",
            "",
        ];
        self.pick(&NAMES).to_owned()
    }

    pub(super) fn value(&mut self) -> String {
        const VALUES: [&str; 9] =
            ["", "-1", "0", "1", "1048588", "99999999999999999999", "delete", "compact", "zstd"];
        self.pick(&VALUES).to_owned()
    }

    pub(super) fn bytes(&mut self) -> Bytes {
        vec![b'x'; self.pick(&[0, 1, 10, 1_000, 100_000])].into()
    }

    pub(super) fn position(&mut self) -> Option<v1::Position> {
        use v1::position::At;
        let (long, int) = (self.long(), self.int());
        let at = self.pick(&[At::Offset(0), At::Offset(long), At::TimestampMs(long), At::Edge(int)]);
        if self.one_in(20) { None } else { Some(v1::Position { at: self.maybe(|_| at) }) }
    }

    pub(super) fn create_topic(&mut self) -> v1::CreateTopicRequest {
        let settings = self.many(|random| v1::SettingValue { name: random.setting(), value: random.value() });
        let settings = if self.one_in(2) { settings } else { Vec::new() };
        let name = if self.one_in(2) { self.topic() } else { self.pick(&["u", "v", "w"]).to_owned() };
        v1::CreateTopicRequest { name, partitions: self.maybe(Self::int), settings }
    }

    pub(super) fn list_topics(&mut self) -> v1::ListTopicsRequest {
        v1::ListTopicsRequest {
            page_size: self.int(),
            page_token: self.topic(),
            include_internal: self.one_in(2),
        }
    }

    pub(super) fn alter_topic(&mut self) -> v1::AlterTopicRequest {
        use v1::setting_change::Change;
        let changes = self.many(|random| {
            let value = random.value();
            let changes = [
                Change::Set(value.clone()),
                Change::Append(value.clone()),
                Change::Remove(value),
                Change::Reset(v1::ResetSetting {}),
            ];
            let change = random.pick(&changes);
            v1::SettingChange { name: random.setting(), change: random.maybe(|_| change) }
        });
        v1::AlterTopicRequest { name: self.topic(), changes }
    }

    pub(super) fn delete_records(&mut self) -> v1::DeleteRecordsRequest {
        let partitions = self.many(|random| v1::PartitionDeletion {
            partition: random.int(),
            before_offset: random.maybe(Self::long),
        });
        v1::DeleteRecordsRequest { topic: self.topic(), partitions }
    }

    pub(super) fn list_offsets(&mut self) -> v1::ListOffsetsRequest {
        let positions = self
            .many(|random| v1::PartitionPosition { partition: random.int(), position: random.position() });
        v1::ListOffsetsRequest { topic: self.topic(), positions, isolation: self.pick(&[0, 1, 2, -1]) }
    }

    pub(super) fn record(&mut self) -> v1::Record {
        let headers =
            self.many(|random| v1::Header { key: random.topic(), value: random.maybe(Self::bytes) });
        v1::Record {
            key: self.maybe(Self::bytes),
            value: self.maybe(Self::bytes),
            timestamp_ms: self.maybe(Self::long),
            headers,
        }
    }

    pub(super) fn produce(&mut self) -> v1::ProduceRequest {
        use v1::produce_request::Payload;
        let records = Payload::Records(v1::RecordSet { records: self.many(Self::record) });
        let mut bytes = batch([self.topic(), self.value()]).bytes().to_vec();
        if self.one_in(2) {
            self.mutate(&mut bytes);
        }
        let payload = self.pick(&[records, Payload::Batch(bytes.into())]);
        v1::ProduceRequest {
            topic: self.topic(),
            partition: self.maybe(Self::int),
            payload: self.maybe(|_| payload),
            acks: self.pick(&[0, 1, 2, 2, 2, 3, 4, -1]),
            sent_at_ms: self.maybe(Self::long),
            producer: if self.one_in(3) { Some(self.producer()) } else { None },
        }
    }

    pub(super) fn producer(&mut self) -> v1::ProducerState {
        v1::ProducerState {
            id: self.long(),
            epoch: self.int(),
            base_sequence: self.int(),
            transactional: self.one_in(2),
        }
    }

    pub(super) fn produce_stream(&mut self) -> v1::ProduceStreamRequest {
        v1::ProduceStreamRequest {
            correlation_id: self.next(),
            request: self.maybe(Self::produce),
            after_failure: self.one_in(2),
        }
    }

    pub(super) fn fetch_partition(&mut self) -> v1::FetchPartition {
        v1::FetchPartition {
            topic: self.topic(),
            partition: self.int(),
            position: self.position(),
            max_bytes: self.int(),
            last_epoch: self.maybe(Self::int),
            topic_id: if self.one_in(4) { Some(self.topic()) } else { None },
        }
    }

    pub(super) fn fetch(&mut self) -> v1::FetchRequest {
        v1::FetchRequest {
            partitions: self.many(Self::fetch_partition),
            max_bytes: self.int(),
            min_bytes: self.int(),
            max_wait_ms: self.int(),
            format: self.pick(&[0, 1, 1, 2, 2, 3]),
            isolation: self.pick(&[0, 1, 1, 2, 2, -1]),
        }
    }

    pub(super) fn subscribe(&mut self) -> v1::SubscribeRequest {
        use v1::subscribe_request::Request;
        let start = v1::SubscribeStart {
            partitions: self.many(Self::fetch_partition),
            format: self.pick(&[0, 1, 1, 2, 2, 3]),
            isolation: self.pick(&[0, 1, 1, 2, 2, -1]),
            credit_bytes: if self.one_in(4) { self.long() } else { 1_000 },
        };
        let credit = v1::SubscribeCredit { bytes: self.long() };
        let request =
            self.pick(&[Request::Start(start.clone()), Request::Start(start), Request::Credit(credit)]);
        v1::SubscribeRequest { request: self.maybe(|_| request) }
    }

    pub(super) fn id(&mut self) -> String {
        let long = "x".repeat(300);
        let odd = self.pick(&["", "y", "a\0b", &long]).to_owned();
        if self.one_in(6) { odd } else { "x".to_owned() }
    }

    pub(super) fn group(&mut self) -> String {
        let odd = self.topic();
        if self.one_in(6) { odd } else { self.pick(&["g", "g", "h"]).to_owned() }
    }

    pub(super) fn unit(&mut self) -> Option<v1::UnitEpoch> {
        let unit = self.pick(&["t/0", "t/0", "t/0", "t/1", "u", "t/99999999999", "/", ""]).to_owned();
        let epoch = if self.one_in(4) { self.int() } else { 1 };
        self.maybe(|_| v1::UnitEpoch { unit, epoch })
    }

    pub(super) fn offset_to_commit(&mut self) -> v1::OffsetToCommit {
        v1::OffsetToCommit {
            topic: self.topic(),
            partition: if self.one_in(4) { self.int() } else { 0 },
            offset: self.long(),
            last_epoch: self.maybe(Self::int),
            metadata: if self.one_in(10) { "m".repeat(5_000) } else { self.value() },
        }
    }

    pub(super) fn transaction_producer(&mut self) -> Option<v1::ProducerEpoch> {
        let known = self.1.filter(|_| !self.one_in(4));
        self.maybe(|random| known.unwrap_or(v1::ProducerEpoch { id: random.long(), epoch: random.int() }))
    }

    pub(super) fn add_offsets(&mut self) -> v1::AddOffsetsRequest {
        v1::AddOffsetsRequest {
            transactional_id: self.id(),
            producer: self.transaction_producer(),
            group: self.group(),
            unit: self.unit(),
            offsets: self.many(Self::offset_to_commit),
        }
    }

    pub(super) fn end_transaction(&mut self) -> v1::EndTransactionRequest {
        v1::EndTransactionRequest {
            transactional_id: self.id(),
            producer: self.transaction_producer(),
            outcome: self.pick(&[0, 1, 1, 2, 2, 3]),
        }
    }

    pub(super) fn list_transactions(&mut self) -> v1::ListTransactionsRequest {
        let (page_size, page_token, ongoing_only) = (self.int(), self.topic(), self.one_in(2));
        v1::ListTransactionsRequest { page_size, page_token, ongoing_only }
    }

    pub(super) fn step_records(&mut self) -> v1::StepRecords {
        use v1::step_records::Payload;
        let records = Payload::Records(v1::RecordSet { records: self.many(Self::record) });
        let mut bytes = batch([self.topic(), self.value()]).bytes().to_vec();
        if self.one_in(3) {
            self.mutate(&mut bytes);
        }
        let payload = self.pick(&[records, Payload::Batch(bytes.into())]);
        let partition = self.maybe(Self::int);
        v1::StepRecords { topic: self.topic(), partition, payload: self.maybe(|_| payload) }
    }

    /// Mostly a header, with the bytes of the records behind it.
    pub(super) fn commit_step(&mut self) -> Vec<Vec<u8>> {
        use v1::commit_step_request::Request;
        use v1::step_records::Payload;
        let records = self.many(Self::step_records);
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let of_record = |record: &v1::Record| {
            let headers = record.headers.iter().map(|it| it.key.len() + len(&it.value)).sum::<usize>();
            len(&record.key) + len(&record.value) + headers
        };
        let of = |records: &v1::StepRecords| match &records.payload {
            Some(Payload::Records(set)) => set.records.iter().map(of_record).sum(),
            Some(Payload::Batch(batch)) => batch.len(),
            None => 0,
        };
        let total: usize = records.iter().map(of).sum();
        let header = v1::StepHeader {
            group: self.group(),
            unit: self.unit(),
            sequence: if self.one_in(4) { self.long() } else { 0 },
            offsets: self.many(Self::offset_to_commit),
            topics: if self.one_in(4) { self.many(Self::topic) } else { vec!["t".into()] },
            total_bytes: if self.one_in(4) { self.long() } else { i64::try_from(total).unwrap() },
        };
        let mut requests: Vec<_> = records.into_iter().map(Request::Records).collect();
        let at = if self.one_in(8) { self.below(requests.len() + 1) } else { 0 };
        if !self.one_in(20) {
            requests.insert(at, Request::Header(header));
        }
        let request = |request| v1::CommitStepRequest { request: Some(request) }.encode_to_vec();
        requests.into_iter().map(request).collect()
    }

    pub(super) fn reset_offsets(&mut self) -> v1::ResetOffsetsRequest {
        let topics = self
            .many(|random| v1::TopicPartitions { topic: random.topic(), partitions: random.many(Self::int) });
        let (group, to, execute) = (self.group(), self.position(), self.one_in(2));
        v1::ResetOffsetsRequest { group, topics, to, execute }
    }

    pub(super) fn join(&mut self) -> v1::JoinGroup {
        let unit = |random: &mut Self| v1::Unit {
            name: random.topic(),
            partitions: random
                .many(|random| v1::TopicPartition { topic: random.topic(), partition: random.int() }),
        };
        let odd = self.topic();
        v1::JoinGroup {
            group: self.group(),
            member_id: if self.one_in(2) { Some(self.pick(&["m", "n", &odd]).to_owned()) } else { None },
            instance_id: if self.one_in(4) { Some(self.pick(&["i", &odd]).to_owned()) } else { None },
            topics: if self.one_in(8) { Vec::new() } else { self.many(Self::topic) },
            units: if self.one_in(8) { self.many(unit) } else { Vec::new() },
            session_timeout_ms: if self.one_in(4) { Some(self.int()) } else { Some(1_000) },
            rebalance_timeout_ms: if self.one_in(4) { Some(self.int()) } else { Some(1_000) },
            warms_up: self.one_in(2),
            credit_bytes: if self.one_in(4) { self.long() } else { 1_000 },
            format: self.pick(&[0, 1, 1, 2, 2, 3]),
            isolation: self.pick(&[0, 1, 1, 2, 2, -1]),
            start: if self.one_in(4) { Some(self.int()) } else { None },
        }
    }

    /// Mostly a member that joins and says something.
    pub(super) fn consume(&mut self) -> Vec<Vec<u8>> {
        use v1::consume_request::Request;
        let mut requests = if self.one_in(10) { Vec::new() } else { vec![Request::Join(self.join())] };
        let says = self.many(|random| {
            let commit = v1::CommitOffsets {
                correlation_id: random.next(),
                unit: random.unit(),
                offsets: random.many(Self::offset_to_commit),
            };
            let says = [
                Request::Commit(commit),
                Request::Credit(v1::SubscribeCredit { bytes: random.long() }),
                Request::Heartbeat(v1::Heartbeat {}),
                Request::Revoked(v1::UnitRevoked { unit: random.unit() }),
                Request::Warmed(v1::UnitWarmed { unit: random.topic() }),
                Request::Leave(v1::LeaveGroup {}),
                Request::Join(random.join()),
            ];
            random.pick(&says)
        });
        requests.extend(says);
        let request = |request| {
            let request = if self.one_in(30) { None } else { Some(request) };
            v1::ConsumeRequest { request }.encode_to_vec()
        };
        requests.into_iter().map(request).collect()
    }

    /// Changes bytes as damage, and those who look for holes, do.
    pub(super) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.pick(&[1, 1, 2, 5]) {
            if bytes.is_empty() {
                bytes.push(0xFF);
            }
            let at = self.below(bytes.len());
            let until = (at + 1 + self.below(8)).min(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at..until].fill(0xFF),
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..until)),
                4 => {
                    let again = bytes[at..until].to_vec();
                    drop(bytes.splice(at..at, again));
                }
                _ => bytes.insert(at, self.pick(&[0, 1, 0x7F, 0x80, 0xFF])),
            }
        }
    }

    /// The request on the wire.
    pub(super) fn request(&mut self, make: Make) -> Vec<u8> {
        let mut messages = make(self);
        if let Some(last) = messages.last_mut()
            && self.one_in(3)
        {
            self.mutate(last);
        }
        let mut wire: Vec<u8> = messages.iter().flat_map(|message| raw::framed(message)).collect();
        if self.one_in(10) {
            self.mutate(&mut wire);
        }
        wire
    }
}
