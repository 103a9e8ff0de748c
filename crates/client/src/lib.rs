//! The async Rust client of a Logmill node, over gRPC.
//!
//! | to do | with |
//! |---|---|
//! | connect | [`Client::connect`], [`Client::builder`] |
//! | see what the node is | [`Client::describe_node`] |
//! | manage topics | [`create_topic`](Client::create_topic), [`create_topic_with`](Client::create_topic_with) settings, [`list_topics`](Client::list_topics), [`describe_topic`](Client::describe_topic), [`alter_topic`](Client::alter_topic), [`add_partitions`](Client::add_partitions), [`delete_topic`](Client::delete_topic) |
//! | delete old records | [`delete_records`](Client::delete_records) |
//! | send records | [`Client::producer`], [`Producer::send`] |
//! | send a ready batch | [`Client::produce_batch`] |
//! | read once | [`Client::fetch`] |
//! | read as records arrive | [`Client::subscribe`], [`Subscription::next`] |
//! | send records that are seen together or never | [`Client::transactional_producer`], [`TransactionalProducer::commit`] |
//! | share work among processes | [`Client::consumer`], [`Consumer::next`] |
//! | commit what was read and what was made of it together | [`Client::commit_step`], [`TransactionalProducer::add_offsets`] |
//! | look after groups | [`list_groups`](Client::list_groups), [`describe_group`](Client::describe_group), [`plan_offset_reset`](Client::plan_offset_reset), [`reset_offsets`](Client::reset_offsets), [`delete_group`](Client::delete_group), [`delete_group_offsets`](Client::delete_group_offsets) |
//! | look after transactions | [`list_transactions`](Client::list_transactions), [`describe_transaction`](Client::describe_transaction), [`abort_transaction`](Client::abort_transaction) |
//! | find an offset | [`Client::list_offsets`] |
//!
//! # What it promises
//!
//! * A record that was answered is stored, once. A [`Producer`] numbers its records: what was sent and not answered
//!   when a connection broke is sent again, and the node knows what it has already. Only if no answer comes within
//!   the [delivery timeout](ProducerOptions::delivery_timeout) it says
//!   [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) and leaves the choice to the caller.
//! * Records of one [`Producer`] for one partition are appended in the order sent.
//! * Memory is bounded: a producer makes its callers wait while its buffer is full, and a subscription lets the
//!   node send only as much as it has granted.
//! * A record of a [`TransactionalProducer`] is seen with all others of its transaction, or never. A [`Step`] has its
//!   effect once, however often it is sent.
//! * A [`Consumer`] is handed each record of its units in order and at least once; it stays a member however long its
//!   handler takes.
//! * A reader sees committed records only, unless it asks for [all](Isolation::ReadUncommitted).
//! * Every call has a deadline. Connections that broke come back by themselves, with growing pauses.
//! * Errors have a [kind](Error::kind) for programs and a sentence for people.
//!
//! It lives in a tokio runtime with I/O and time enabled: connect from within one. Programs without one use [`blocking`].
//!
//! # Example
//!
//! ```no_run
//! use logmill_client::{Client, FetchFrom, Position, ProducerOptions, ProducerRecord};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), logmill_client::Error> {
//!     let client = Client::connect("http://127.0.0.1:7070").await?;
//!     client.create_topic("greetings", Some(1)).await?;
//!
//!     let producer = client.producer(ProducerOptions::default())?;
//!     let delivery = producer.send(ProducerRecord::new("greetings", "hello").key("world")).await?;
//!     println!("stored at offset {}", delivery.await?.offset);
//!     producer.close().await?;
//!
//!     let from = FetchFrom::new("greetings", 0, Position::Earliest);
//!     for data in client.fetch(from.into()).await? {
//!         for record in data.records() {
//!             let record = record?;
//!             println!("{}: {:?} = {:?}", record.offset, record.key, record.value);
//!         }
//!     }
//!     Ok(())
//! }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod alter;
mod backoff;
pub mod blocking;
mod builder;
mod client;
mod clock;
mod consumer;
mod convert;
mod data;
mod endpoint;
mod error;
mod fetch;
mod groups;
mod isolation;
mod node;
mod offsets;
mod paging;
mod position;
mod produce;
mod producer;
mod step;
mod subscribe;
mod topics;
mod transactions;

pub use alter::{DeletedRecords, SettingChange};
pub use builder::ClientBuilder;
pub use client::Client;
pub use consumer::{
    AssignedPartition, Assignment, Committer, Consumer, ConsumerBuilder, ConsumerEvent, LostReason,
    UnitRecords,
};
pub use data::{Chunk, FetchedRecord, PartitionData, Records};
pub use error::{Error, ErrorKind};
pub use fetch::{Fetch, FetchFrom};
pub use groups::{
    GroupDescription, GroupMember, GroupOffset, GroupState, GroupSummary, GroupUnit, OffsetReset,
};
pub use isolation::Isolation;
pub use node::NodeInfo;
pub use offsets::{OffsetToCommit, UnitEpoch};
pub use position::{PartitionOffset, Position};
pub use produce::{Acks, Delivered};
pub use producer::{
    Delivery, Producer, ProducerOptions, ProducerRecord, TransactionalOptions, TransactionalProducer,
};
pub use step::{CommittedStep, Step, StepAppended};
pub use subscribe::{Subscribe, Subscription};
pub use topics::{PartitionInfo, Setting, SettingSource, TopicDescription, TopicInfo};
pub use transactions::{Outcome, TransactionInfo, TransactionState};
