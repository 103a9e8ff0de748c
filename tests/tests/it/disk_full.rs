//! A disk that fills up: produce is refused with a sentence, nothing acknowledged is lost, reading
//! goes on, and with space again so does everything.

use bytes::Bytes;
use logmill_broker::{
    Acks, Broker, Config, CreateTopic, Error, Fetch, FetchFrom, Payload, Position, Produce, ProduceRecord,
    Reason, RequestContext, decode,
};
use logmill_log::env::{Env, block_on};
use logmill_log::sim::Sim;
use logmill_record::Offset;

fn open(env: &Env) -> Broker {
    let config =
        Config { segment_bytes: 64 * 1024, reserve_bytes: 0, low_space_bytes: 0, ..Config::new("/data") };
    Broker::open(Config { env: env.clone(), ..config }).unwrap()
}

fn produce(env: &Env, broker: &Broker, value: &Bytes) -> Result<Offset, Error> {
    let record = ProduceRecord { value: Some(value.clone()), ..ProduceRecord::default() };
    let request = Produce {
        topic: "t".into(),
        partition: Some(0),
        payload: Payload::Records(vec![record]),
        acks: Acks::Durable,
        sent_at: None,
    };
    let answer = broker.produce(&RequestContext::embedded(), request);
    block_on(&*env.scheduler, answer)?.remove(0).outcome.map(|appended| appended.first_offset)
}

fn count(env: &Env, broker: &Broker) -> u64 {
    let mut next = Offset(0);
    loop {
        let from = FetchFrom::new("t", 0, Position::Offset(next));
        let data =
            block_on(&*env.scheduler, broker.fetch(&RequestContext::embedded(), Fetch::new(vec![from])));
        let data = data.unwrap().remove(0);
        for chunk in data.chunks {
            decode(chunk.batches, data.from_offset)
                .for_each(|record| assert!(record.unwrap().value.is_some()));
        }
        if data.next_offset == data.end_offset {
            return data.end_offset.get();
        }
        next = data.next_offset;
    }
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    for seed in 0..10 {
        let mut sim = Sim::new(seed);
        let env = sim.env();
        sim.fs.set_capacity_bytes(300_000 + seed * 1_717);
        let broker = open(&env);
        let created = broker.create_topic(&RequestContext::embedded(), CreateTopic::new("t"));
        block_on(&*env.scheduler, created).unwrap();
        let value = Bytes::from(vec![b'x'; 1_000]);

        let mut acknowledged = 0;
        let error = loop {
            match produce(&env, &broker, &value) {
                Ok(offset) => {
                    assert_eq!(offset, Offset(acknowledged));
                    acknowledged += 1;
                }
                Err(error) => break error,
            }
        };
        assert!(acknowledged > 100, "seed {seed}: {acknowledged}");
        assert_eq!(error.reason(), Reason::DiskFull, "seed {seed}: {error}");
        assert_eq!(produce(&env, &broker, &value).unwrap_err().reason(), Reason::DiskFull);
        assert_eq!(count(&env, &broker), acknowledged, "seed {seed}: reading goes on");

        sim.fs.set_capacity_bytes(u64::MAX);
        assert_eq!(produce(&env, &broker, &value).unwrap(), Offset(acknowledged), "seed {seed}");
        drop(broker);
        let env = sim.crash();
        let broker = open(&env);
        assert_eq!(count(&env, &broker), acknowledged + 1, "seed {seed}");
        broker.close().unwrap();
    }
}

#[test]
fn a_node_does_not_start_on_a_full_disk_and_says_so() {
    let mut sim = Sim::new(1);
    let env = sim.env();
    sim.fs.set_capacity_bytes(10);
    let error = Broker::open(Config { env, ..Config::new("/data") }).unwrap_err();
    assert_eq!(error.kind(), logmill_broker::OpenErrorKind::Full, "{error}");
    sim.fs.set_capacity_bytes(u64::MAX);
    open(&sim.kill()).close().unwrap();
}
