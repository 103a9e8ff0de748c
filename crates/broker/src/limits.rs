//! What may be in use at once: which limits there are, what they are set to, and how each stands.
//!
//! The table below is the one place: the fields of [`Limits`], their defaults and docs, the names by which
//! errors and the command line know them, and the counters of [`LimitStats`] are all made from it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::budget::Budget;
use crate::error::Error;
use crate::exec::Turns;

const MIB: usize = 1024 * 1024;

/// So many logs of a broker are opened again at once: a disk that hangs must not take all the threads.
const REOPENINGS: usize = 4;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitUnit {
    /// Bytes.
    Bytes,
    /// Things.
    Count,
}

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident $field:ident, $unit:ident, $default:expr;)+) => {
        /// Bounds on what is in use at once. A call that would pass one is answered with
        /// [`Reason::LimitExceeded`](crate::Reason::LimitExceeded), which names the limit as the field is
        /// named here; nothing of it is done. [`Broker::stats`](crate::Broker::stats) says how each stands.
        ///
        /// ```
        /// use logmill_broker::{Config, Limit, Limits};
        ///
        /// let limits = Limits { max_topics: 100, ..Limits::default() };
        /// assert_eq!(limits.get(Limit::MaxTopics), 100);
        /// let config = Config { limits, ..Config::new("/var/lib/logmill") };
        /// ```
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nUnless set: `", stringify!($default), "`.")]
                pub $field: usize,
            )+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// Which of the [`Limits`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Limit {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Limit {
            /// Every limit.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name, as errors and the command line have it, such as `max_connections`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($field),)+
                }
            }

            /// What it bounds, in sentences.
            #[must_use]
            pub const fn describes(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+),)+
                }
            }

            /// What it counts.
            #[must_use]
            pub const fn unit(self) -> LimitUnit {
                match self {
                    $(Self::$name => LimitUnit::$unit,)+
                }
            }
        }

        impl Limits {
            /// What `limit` is set to.
            #[must_use]
            pub const fn get(&self, limit: Limit) -> usize {
                match limit {
                    $(Limit::$name => self.$field,)+
                }
            }

            /// Sets `limit`.
            pub const fn set(&mut self, limit: Limit, value: usize) {
                match limit {
                    $(Limit::$name => self.$field = value,)+
                }
            }
        }
    };
}

limits! {
    /// Bytes of records accepted and not yet written, and what each request takes besides, over all partitions.
    MaxQueuedBytes max_queued_bytes, Bytes, 256 * MIB;
    /// Bytes of records accepted and not yet written, and what each request takes besides, of one partition.
    MaxPartitionQueuedBytes max_partition_queued_bytes, Bytes, 64 * MIB;
    /// Bytes of requests that have begun to arrive and were not taken yet, over all connections.
    MaxRequestBytes max_request_bytes, Bytes, 256 * MIB;
    /// Bytes of requests that have begun to arrive and were not taken yet, of one connection.
    MaxConnectionBytes max_connection_bytes, Bytes, 64 * MIB;
    /// Bytes of requests on one produce stream, or of commits on one stream of a member, that are not answered, as they
    /// lie in memory. Meanwhile nothing more is read from it.
    MaxUnansweredBytes max_unanswered_bytes, Bytes, 16 * MIB;
    /// Bytes of records that were read for replies and not sent yet, and of answers on produce streams, over all
    /// connections. Subscriptions and produce streams wait while they are used up, a fetch is refused.
    MaxReplyBytes max_reply_bytes, Bytes, 256 * MIB;
    /// Bytes of records that were read for replies and not sent yet, and of answers on produce streams, of one
    /// connection. Its subscriptions and produce streams wait while they are used up, a fetch is refused.
    MaxConnectionReplyBytes max_connection_reply_bytes, Bytes, 64 * MIB;
    /// What a topic's max.message.bytes can be set to. A request takes that and a megabyte, but at least four.
    MaxBatchBytes max_batch_bytes, Bytes, 8 * MIB;
    /// Plain records in one produce request, or in one message of a step. In memory each takes a hundred bytes besides
    /// what is in it, which a message need not spend on it.
    MaxRecordsPerRequest max_records_per_request, Count, 100_000;
    /// Headers of all plain records in one produce request, or in one message of a step, together.
    MaxHeadersPerRequest max_headers_per_request, Count, 100_000;
    /// Connections. A few more are taken, to be told so.
    MaxConnections max_connections, Count, 4_096;
    /// Calls and streams under way on one connection.
    MaxStreamsPerConnection max_streams_per_connection, Count, 1_024;
    /// Topics. Those that there are stay, also if there are more.
    MaxTopics max_topics, Count, 10_000;
    /// Partitions of all topics together. Those that there are stay, also if there are more.
    MaxPartitions max_partitions, Count, 100_000;
    /// Partitions of one topic.
    MaxPartitionsPerTopic max_partitions_per_topic, Count, 10_000;
    /// Subscriptions.
    MaxSubscriptions max_subscriptions, Count, 10_000;
    /// Fetches that wait for records.
    MaxWaitingFetches max_waiting_fetches, Count, 10_000;
    /// Partitions in one fetch or subscription.
    MaxFetchPartitions max_fetch_partitions, Count, 1_000;
    /// Reads of one partition's files at once. Others wait for their turn.
    MaxPartitionReads max_partition_reads, Count, 4;
    /// Deletions of one partition's oldest records that wait or run.
    MaxPartitionDeletions max_partition_deletions, Count, 4;
    /// Places in one search for offsets, and partitions of one reset of a group.
    MaxPositions max_positions, Count, 10_000;
    /// Partitions in which one stream of produce requests has something that is not on disk, or a request failed.
    MaxStreamPartitions max_stream_partitions, Count, 10_000;
    /// Bytes of steps that have begun to arrive and are not committed yet, and what their records take in memory besides,
    /// all together. A single one cannot have more either.
    MaxStepBytes max_step_bytes, Bytes, 256 * MIB;
    /// Topics, partitions and offsets that one step touches; offsets of one commit, and of one
    /// transaction.
    MaxCommitPartitions max_commit_partitions, Count, 1_000;
    /// Groups that have or had members, since the node was started.
    MaxGroups max_groups, Count, 20_000;
    /// Members of one group.
    MaxGroupMembers max_group_members, Count, 1_000;
    /// Topics, or units and their partitions, that one member comes for.
    MaxJoinUnits max_join_units, Count, 10_000;
    /// Transactional ids. Each takes a few hundred bytes.
    MaxTransactionalIds max_transactional_ids, Count, 10_000;
    /// Changes of topics that wait for their turn.
    MaxQueuedTopicChanges max_queued_topic_changes, Count, 1_000;
}

impl Limit {
    /// The limit of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|limit| limit.as_str() == name)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for LimitUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Count => "count",
        })
    }
}

/// How one limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitStats {
    /// Which.
    pub limit: Limit,
    /// What it is set to.
    pub value: usize,
    /// What is in use now. Of a limit that each partition, connection or stream has for itself, all of them
    /// together; of one on a single request, nothing.
    pub used: usize,
    /// The most that was in use at once since the broker was opened; in any single one, where each has the
    /// limit for itself.
    pub peak: usize,
    /// How often somebody was refused for it, or had to wait.
    pub refused: u64,
}

/// The counters of a limit.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    used: AtomicUsize,
    peak: AtomicUsize,
    refused: AtomicU64,
}

impl Meter {
    /// `amount` more is used; `now` by whoever has the limit for itself.
    pub(crate) fn add(&self, amount: usize, now: usize) {
        self.used.fetch_add(amount, Ordering::Relaxed);
        self.note(now);
    }

    pub(crate) fn subtract(&self, amount: usize) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, now: usize) {
        self.peak.fetch_max(now, Ordering::Relaxed);
    }
}

/// The limits of a broker, and how they stand.
#[derive(Debug)]
pub(crate) struct Bounds {
    limits: Limits,
    meters: Vec<Arc<Meter>>,
    /// Turns of logs that are opened again.
    pub(crate) reopenings: Turns,
}

impl Bounds {
    pub(crate) fn new(limits: Limits) -> Self {
        let meters = Limit::ALL.iter().map(|_| Arc::default()).collect();
        Self { limits, meters, reopenings: Turns::new(REOPENINGS, Arc::default()) }
    }

    fn meter(&self, limit: Limit) -> &Arc<Meter> {
        &self.meters[limit as usize]
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Turns to do something; other ones each time, which count with the others.
    pub(crate) fn turns(&self, limit: Limit) -> Turns {
        Turns::new(self.limits.get(limit), Arc::clone(self.meter(limit)))
    }

    /// What may be used at once; another one each time, which counts with the others.
    pub(crate) fn budget(&self, limit: Limit) -> Budget {
        Budget::metered(limit, self.limits.get(limit), Arc::clone(self.meter(limit)))
    }

    /// Whether one request may have so many; `doing` and `advice` are for the sentence if not.
    pub(crate) fn check(
        &self,
        limit: Limit,
        count: usize,
        doing: impl FnOnce() -> String,
        advice: &str,
    ) -> Result<(), Error> {
        let most = self.limits.get(limit);
        if count <= most {
            self.meter(limit).note(count);
            return Ok(());
        }
        Err(self.refuse(limit, &doing(), advice))
    }

    /// Counts that somebody is refused for it, and makes the error that says so.
    pub(crate) fn refuse(&self, limit: Limit, doing: &str, advice: &str) -> Error {
        self.meter(limit).refuse();
        Error::limit(limit, self.limits.get(limit), doing, advice)
    }

    /// How often somebody was refused for it.
    #[cfg(feature = "grpc")]
    pub(crate) fn refused(&self, limit: Limit) -> u64 {
        self.meter(limit).refused.load(Ordering::Relaxed)
    }

    /// How each limit stands.
    pub(crate) fn stats(&self) -> Vec<LimitStats> {
        let stats = |limit: &Limit| {
            let meter = self.meter(*limit);
            LimitStats {
                limit: *limit,
                value: self.limits.get(*limit),
                used: meter.used.load(Ordering::Relaxed),
                peak: meter.peak.load(Ordering::Relaxed),
                refused: meter.refused.load(Ordering::Relaxed),
            }
        };
        Limit::ALL.iter().map(stats).collect()
    }
}
