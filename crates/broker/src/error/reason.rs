//! Why a call failed: the list that `docs/errors.md` documents, and a test holds it to.

use std::fmt;

/// The gRPC status code of a failure, chosen as [AIP-193](https://google.aip.dev/193) says.
/// Without gRPC it still tells the kinds of failure apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// It is not known whether the call had an effect.
    Unknown,
    /// The request itself is wrong; sending it again will not help.
    InvalidArgument,
    /// What the request names does not exist.
    NotFound,
    /// What the request would create exists.
    AlreadyExists,
    /// A limit or the disk is exhausted; try again when there is room.
    ResourceExhausted,
    /// The node, or a part of it, must be put right before the request can succeed.
    FailedPrecondition,
    /// Something else has to be put right first; then the same request may succeed.
    Aborted,
    /// An offset outside what is kept.
    OutOfRange,
    /// Not in this version.
    Unimplemented,
    /// A fault of the node or of its machine.
    Internal,
    /// Not now; try again.
    Unavailable,
    /// Bytes on disk are damaged.
    DataLoss,
}

impl Code {
    /// The number of the code in gRPC.
    ///
    /// ```
    /// assert_eq!(logmill_broker::Code::NotFound.number(), 5);
    /// ```
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Unknown => 2,
            Self::InvalidArgument => 3,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Aborted => 10,
            Self::OutOfRange => 11,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::DataLoss => 15,
        }
    }

    /// The name of the code in gRPC, such as `NOT_FOUND`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call failed. Programs match on this, never on a message.
///
/// `docs/errors.md` says of each when it comes and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A field is missing, negative, too large, or contradicts another; or the request cannot be read at all.
    RequestInvalid,
    /// There is no such service or rpc.
    RpcUnknown,
    /// The request is compressed for its transport in a way that the node does not read.
    EncodingUnsupported,
    /// The name is not one that a topic can have.
    TopicNameInvalid,
    /// The number of partitions is not one that a topic can have.
    PartitionCountInvalid,
    /// A topic has no such setting, or the setting not that value.
    SettingInvalid,
    /// There is a topic of that name already.
    TopicExists,
    /// There is no topic of that name.
    TopicNotFound,
    /// The topic has no partition of that number.
    PartitionNotFound,
    /// The offset lies outside what the partition holds.
    OffsetOutOfRange,
    /// The partition has lost records that the reader has, and may have given their offsets to others.
    LogTruncated,
    /// The record batch is not well formed.
    BatchInvalid,
    /// The record batch uses something that this version does not have.
    BatchUnsupported,
    /// The topic's settings ask for something that the record or batch does not have.
    RecordRefused,
    /// The record or batch is larger than the topic takes.
    MessageTooLarge,
    /// A batch of an idempotent producer comes before one that should precede it.
    OutOfSequence,
    /// A newer epoch of the producer is known: another instance has taken over.
    ProducerFenced,
    /// A batch of an idempotent producer was appended before, and where is not remembered any more.
    SequenceForgotten,
    /// A request before this one on its stream failed, and this one has to wait for that one.
    PrecedingFailed,
    /// There is no such transactional id, or none that has the producer.
    TransactionNotFound,
    /// The transaction is being ended, and takes nothing more.
    TransactionEnding,
    /// The node has aborted the transaction, and its producer has to send it again.
    TransactionAborted,
    /// The step does not follow on the last one of its unit, or has its number and other offsets.
    StepOutOfSequence,
    /// There is no such group.
    GroupNotFound,
    /// The unit is another's now, or was never the caller's: its epoch is over.
    StaleAssignment,
    /// Nobody has said yet, since the node was started, which partitions the unit has.
    UnitUndeclared,
    /// The member is none, or not any more, and has to join again.
    MemberUnknown,
    /// The group is divided in another way than the member comes for.
    GroupMismatch,
    /// The group has members, who would not notice.
    GroupNotEmpty,
    /// The offset lies before what was committed in the same assignment.
    CommitWentBack,
    /// One of the node's own limits is reached.
    LimitExceeded,
    /// The file system of the data directory is full, or has less space left than
    /// [`Config::low_space_bytes`](crate::Config::low_space_bytes).
    DiskFull,
    /// The partition takes nothing until its log, of which a sync failed, is open again; the node sees to that.
    PartitionReopening,
    /// The partition cannot be used until the node has been put right and started again.
    PartitionFailed,
    /// The node's own metadata cannot be written until its log can be opened afresh, which the node tries; or a
    /// topic takes nothing since its deletion is uncertain until the next start.
    MetadataFailed,
    /// It is not known whether what was asked for has happened.
    OutcomeUnknown,
    /// Bytes on disk are not what was written.
    DataCorrupt,
    /// The operating system reported an error.
    IoFailed,
    /// The node is shutting down.
    NodeClosing,
    /// A fault in the node's program.
    InternalFault,
}

impl Reason {
    /// Every reason, in the order of `docs/errors.md`.
    pub const ALL: [Self; 40] = [
        Self::RequestInvalid,
        Self::RpcUnknown,
        Self::EncodingUnsupported,
        Self::TopicNameInvalid,
        Self::PartitionCountInvalid,
        Self::SettingInvalid,
        Self::TopicExists,
        Self::TopicNotFound,
        Self::PartitionNotFound,
        Self::OffsetOutOfRange,
        Self::LogTruncated,
        Self::BatchInvalid,
        Self::BatchUnsupported,
        Self::RecordRefused,
        Self::MessageTooLarge,
        Self::OutOfSequence,
        Self::ProducerFenced,
        Self::SequenceForgotten,
        Self::PrecedingFailed,
        Self::TransactionNotFound,
        Self::TransactionEnding,
        Self::TransactionAborted,
        Self::StepOutOfSequence,
        Self::GroupNotFound,
        Self::StaleAssignment,
        Self::UnitUndeclared,
        Self::MemberUnknown,
        Self::GroupMismatch,
        Self::GroupNotEmpty,
        Self::CommitWentBack,
        Self::LimitExceeded,
        Self::DiskFull,
        Self::PartitionReopening,
        Self::PartitionFailed,
        Self::MetadataFailed,
        Self::OutcomeUnknown,
        Self::DataCorrupt,
        Self::IoFailed,
        Self::NodeClosing,
        Self::InternalFault,
    ];

    /// The code that goes with the reason.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::RequestInvalid
            | Self::TopicNameInvalid
            | Self::PartitionCountInvalid
            | Self::SettingInvalid
            | Self::BatchInvalid
            | Self::RecordRefused
            | Self::MessageTooLarge => Code::InvalidArgument,
            Self::TopicExists | Self::SequenceForgotten => Code::AlreadyExists,
            Self::TopicNotFound
            | Self::PartitionNotFound
            | Self::TransactionNotFound
            | Self::GroupNotFound => Code::NotFound,
            Self::OffsetOutOfRange | Self::LogTruncated => Code::OutOfRange,
            Self::RpcUnknown | Self::EncodingUnsupported | Self::BatchUnsupported => Code::Unimplemented,
            Self::LimitExceeded | Self::DiskFull => Code::ResourceExhausted,
            Self::OutOfSequence
            | Self::ProducerFenced
            | Self::StepOutOfSequence
            | Self::StaleAssignment
            | Self::MemberUnknown
            | Self::GroupMismatch
            | Self::GroupNotEmpty
            | Self::CommitWentBack
            | Self::PartitionFailed
            | Self::MetadataFailed => Code::FailedPrecondition,
            Self::PrecedingFailed | Self::TransactionEnding | Self::TransactionAborted => Code::Aborted,
            Self::OutcomeUnknown => Code::Unknown,
            Self::DataCorrupt => Code::DataLoss,
            Self::IoFailed | Self::InternalFault => Code::Internal,
            Self::UnitUndeclared | Self::PartitionReopening | Self::NodeClosing => Code::Unavailable,
        }
    }

    /// The reason as it travels in `google.rpc.ErrorInfo`, such as `TOPIC_NOT_FOUND`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestInvalid => "REQUEST_INVALID",
            Self::RpcUnknown => "RPC_UNKNOWN",
            Self::EncodingUnsupported => "ENCODING_UNSUPPORTED",
            Self::TopicNameInvalid => "TOPIC_NAME_INVALID",
            Self::PartitionCountInvalid => "PARTITION_COUNT_INVALID",
            Self::SettingInvalid => "SETTING_INVALID",
            Self::TopicExists => "TOPIC_EXISTS",
            Self::TopicNotFound => "TOPIC_NOT_FOUND",
            Self::PartitionNotFound => "PARTITION_NOT_FOUND",
            Self::OffsetOutOfRange => "OFFSET_OUT_OF_RANGE",
            Self::LogTruncated => "LOG_TRUNCATED",
            Self::BatchInvalid => "BATCH_INVALID",
            Self::BatchUnsupported => "BATCH_UNSUPPORTED",
            Self::RecordRefused => "RECORD_REFUSED",
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
            Self::OutOfSequence => "OUT_OF_SEQUENCE",
            Self::ProducerFenced => "PRODUCER_FENCED",
            Self::SequenceForgotten => "SEQUENCE_FORGOTTEN",
            Self::PrecedingFailed => "PRECEDING_FAILED",
            Self::TransactionNotFound => "TRANSACTION_NOT_FOUND",
            Self::TransactionEnding => "TRANSACTION_ENDING",
            Self::TransactionAborted => "TRANSACTION_ABORTED",
            Self::StepOutOfSequence => "STEP_OUT_OF_SEQUENCE",
            Self::GroupNotFound => "GROUP_NOT_FOUND",
            Self::StaleAssignment => "STALE_ASSIGNMENT",
            Self::UnitUndeclared => "UNIT_UNDECLARED",
            Self::MemberUnknown => "MEMBER_UNKNOWN",
            Self::GroupMismatch => "GROUP_MISMATCH",
            Self::GroupNotEmpty => "GROUP_NOT_EMPTY",
            Self::CommitWentBack => "COMMIT_WENT_BACK",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::DiskFull => "DISK_FULL",
            Self::PartitionReopening => "PARTITION_REOPENING",
            Self::PartitionFailed => "PARTITION_FAILED",
            Self::MetadataFailed => "METADATA_FAILED",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::DataCorrupt => "DATA_CORRUPT",
            Self::IoFailed => "IO_FAILED",
            Self::NodeClosing => "NODE_CLOSING",
            Self::InternalFault => "INTERNAL_FAULT",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
