//! Topics, produce, fetch, groups and transactions over [`logmill_log`], in one process.
//!
//! [`Broker::open`] is the product: a cheap-to-clone handle to a data directory with topics in it. It needs
//! no network and no async runtime; its calls return futures that any executor can run, and its blocking
//! work runs on threads of the injected scheduler. With the feature `grpc` there is also `grpc::serve`,
//! which puts the same handle behind the services of `proto/logmill/v1`.
//!
//! * What is acknowledged as [`Acks::Durable`] is on disk, and a reader sees only what is, unless the topic is
//!   set to `durability=relaxed`.
//! * Records are appended to a partition in the order of the calls.
//! * The records of a transaction become visible together, or never. A [step](Broker::begin_step) commits what was made
//!   and how far was read in one call, with one effect however often it comes.
//! * A unit of a [group](Broker::join_group) belongs to one member at a time, and each assignment has an epoch.
//! * Every queue has a bound in bytes, and every wait ends when its future is dropped.
//! * Errors have a [`Reason`] for programs and a sentence for people; `docs/errors.md` lists them.
//!
//! ```
//! use logmill_broker::{
//!     Acks, Broker, Config, CreateTopic, Fetch, FetchFrom, Payload, Position, Produce, ProduceRecord,
//!     RequestContext,
//! };
//! use logmill_log::env::block_on;
//!
//! # let dir = tempfile::tempdir()?;
//! let config = Config::new(dir.path());
//! let scheduler = config.env.scheduler.clone();
//! let broker = Broker::open(config)?;
//! let context = RequestContext::embedded();
//!
//! block_on(&*scheduler, async {
//!     broker.create_topic(&context, CreateTopic::new("readings").partitions(4)).await?;
//!
//!     let record = ProduceRecord {
//!         key: Some("sensor-7".into()),
//!         value: Some("21.5".into()),
//!         ..ProduceRecord::default()
//!     };
//!     let produce = Produce {
//!         topic: "readings".into(),
//!         partition: None, // by the key
//!         payload: Payload::Records(vec![record]),
//!         acks: Acks::Durable,
//!         sent_at: None,
//!     };
//!     let partition = broker.produce(&context, produce).await?[0].partition;
//!
//!     let from = FetchFrom::new("readings", partition, Position::Earliest);
//!     let data = broker.fetch(&context, Fetch::new(vec![from])).await?.remove(0);
//!     for record in data.records() {
//!         assert_eq!(record?.value.as_deref(), Some(&b"21.5"[..]));
//!     }
//!     Ok::<(), logmill_broker::Error>(())
//! })?;
//! broker.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs)]

mod access;
mod broker;
mod budget;
mod catalog;
mod close;
mod config;
mod context;
mod error;
mod exec;
mod fetch;
mod group;
#[cfg(feature = "grpc")]
pub mod grpc;
mod internal;
mod limits;
mod names;
mod offsets;
mod paging;
mod produce;
mod settings;
mod topic;
mod transaction;

pub use broker::{Broker, BrokerStats};
pub use catalog::{
    DeleteRecords, DeletedRecords, FailedPartition, Misplaced, OnOpen, OpenProgress, OpenReport,
    PartitionOwner, RebuildPlan, RebuiltTopic, SkippedDirectory, TopicList, UnknownDirectory, plan_rebuild,
};
pub use config::{
    Config, DEFAULT_LOW_SPACE_BYTES, DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_PRODUCER_ID_EXPIRATION,
    DEFAULT_RESERVE_BYTES, DEFAULT_SEGMENT_BYTES, DEFAULT_STALL_TIMEOUT,
};
pub use context::{Listener, Principal, RequestContext};
pub use error::{Code, Error, OpenError, OpenErrorKind, Reason};
pub use fetch::{
    Credit, DEFAULT_FETCH_BYTES, DecodedRecord, DecodedRecords, Fetch, FetchFrom, Isolation, MAX_WAIT,
    PartitionData, Subscribe, Subscription, decode,
};
pub use group::{
    AssignedPartition, Assignment, CommittedOffset, Consume, ConsumeStart, Consumed, Consumer,
    DEFAULT_REBALANCE_TIMEOUT, DEFAULT_SESSION_TIMEOUT, GroupDescription, GroupEvent, GroupInterest,
    GroupMember, GroupOffset, GroupPage, GroupState, GroupSummary, GroupUnit, JoinGroup, ListGroups,
    LostReason, Member, MemberHandle, OffsetReset, ResetOffsets, UnitData,
};
pub use limits::{Limit, LimitStats, LimitUnit, Limits};
pub use logmill_log::{AbortedTxn, Chunk};
pub use names::{MAX_PARTITIONS, MAX_TOPIC_NAME_BYTES, check_topic_name};
pub use offsets::{MAX_COMMIT_METADATA_BYTES, OffsetToCommit};
pub use produce::{
    Acks, Appended, MAX_IN_FLIGHT_BATCHES, Payload, Produce, ProduceRecord, ProduceResult, ProduceStream,
    ProducerSequence,
};
pub use settings::{Change, SettingChange, SettingName, TopicSettings};
pub use topic::{
    CreateTopic, ListTopics, NodeDescription, PartitionInfo, PartitionOffset, Position, Setting,
    SettingSource, Topic, TopicDescription, TopicPage,
};
pub use transaction::{
    AddOffsets, CommittedStep, DEFAULT_TRANSACTION_TIMEOUT, InitTransactions, ListTransactions,
    MAX_TRANSACTION_TIMEOUT, Outcome, ProducerEpoch, Step, StepAppended, StepHeader, TransactionInfo,
    TransactionPage, TransactionState,
};
pub use uuid::Uuid;
