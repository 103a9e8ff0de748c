//! Named behaviours, random schedules against a watcher that knows the rules alone, and what moves cost.

mod behaviour;
mod cost;
mod model;
mod moves;
mod node;
mod units;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::topic::TopicPartition;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn member(name: &str) -> MemberId {
    MemberId::new(name)
}

fn topic(id: u128, partitions: u32) -> Topic {
    Topic { id: Uuid::from_u128(id), partitions }
}

fn partition(topic: Topic, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.id, partition }
}

/// A subscription to topics that there are.
fn topics(topics: &[(&str, Topic)]) -> Interest {
    Interest::Topics(topics.iter().map(|(name, topic)| (Arc::from(*name), Some(*topic))).collect())
}

fn declared(units: &[(&str, &[TopicPartition])]) -> Interest {
    let units: BTreeMap<_, _> =
        units.iter().map(|(name, partitions)| (Arc::from(*name), partitions.to_vec())).collect();
    Interest::Units(units)
}

/// A join with the usual timeouts: ten seconds for the session, thirty to confirm.
fn join(name: &str, connection: u64, interest: Interest) -> Join {
    Join {
        member: member(name),
        connection: ConnectionId(connection),
        instance: None,
        interest,
        session_timeout: secs(10),
        rebalance_timeout: secs(30),
        warms_up: false,
    }
}

fn stream(name: &str, connection: u64) -> MemberStream {
    MemberStream { member: member(name), connection: ConnectionId(connection) }
}
