//! The transactions of a node, as its operator sees them.

use std::fmt;
use std::time::Duration;

use logmill_proto::v1;
use logmill_record::TimestampMs;

use crate::convert::{count_from, partition_from};
use crate::paging::all_pages;
use crate::{Client, Error};

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its records stand.
    Commit,
    /// Nobody who reads what is committed ever sees its records.
    Abort,
}

impl Outcome {
    pub(crate) fn to_proto(self) -> i32 {
        match self {
            Outcome::Commit => v1::Outcome::Commit.into(),
            Outcome::Abort => v1::Outcome::Abort.into(),
        }
    }

    /// What is asked for.
    pub(crate) const fn verb(self) -> &'static str {
        match self {
            Outcome::Commit => "commit",
            Outcome::Abort => "abort",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Commit => "committed",
            Outcome::Abort => "aborted",
        })
    }
}

/// What is going on under a transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransactionState {
    /// No transaction.
    Empty,
    /// One that takes records.
    Ongoing,
    /// One that is being committed.
    Committing,
    /// One that is being aborted.
    Aborting,
    /// What a newer node says, and this client does not know.
    Unknown,
}

impl fmt::Display for TransactionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransactionState::Empty => "empty",
            TransactionState::Ongoing => "ongoing",
            TransactionState::Committing => "committing",
            TransactionState::Aborting => "aborting",
            TransactionState::Unknown => "unknown",
        })
    }
}

/// How a transactional id stands; from [`Client::list_transactions`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionInfo {
    /// Its name.
    pub transactional_id: String,
    /// The id of the producer that writes under it.
    pub producer_id: i64,
    /// That one's epoch: it moves with each transaction.
    pub producer_epoch: i32,
    /// What is going on.
    pub state: TransactionState,
    /// After how long a transaction of it is aborted.
    pub timeout: Duration,
    /// When the transaction that is going on began; `None` if none is.
    pub started_at: Option<TimestampMs>,
    /// The topics and partitions that it has touched so far.
    pub partitions: Vec<(String, u32)>,
    /// How the last one ended; `None` if none did.
    pub last_outcome: Option<Outcome>,
}

/// Transactions, for whoever looks after a node.
impl Client {
    /// All transactional ids by name, or with `ongoing_only` those under which a transaction is going on.
    ///
    /// # Errors
    /// Those of every call.
    ///
    /// ```no_run
    /// # async fn example(client: logmill_client::Client) -> Result<(), logmill_client::Error> {
    /// for transaction in client.list_transactions(true).await? {
    ///     println!("{} since {:?}", transaction.transactional_id, transaction.started_at);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list_transactions(&self, ongoing_only: bool) -> Result<Vec<TransactionInfo>, Error> {
        all_pages("transactions", |page_token| async {
            let request = v1::ListTransactionsRequest { page_size: 0, page_token, ongoing_only };
            let mut rpc = self.transactions_rpc();
            let reply = self.call("ListTransactions", rpc.list_transactions(request)).await?;
            let transactions = reply.transactions.into_iter().map(TryInto::try_into);
            Ok((transactions.collect::<Result<_, _>>()?, reply.next_page_token))
        })
        .await
    }

    /// How a transactional id stands.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), and those of every call.
    pub async fn describe_transaction(&self, transactional_id: &str) -> Result<TransactionInfo, Error> {
        let request = v1::DescribeTransactionRequest { transactional_id: transactional_id.to_owned() };
        let mut rpc = self.transactions_rpc();
        let reply = self.call("DescribeTransaction", rpc.describe_transaction(request)).await?;
        let nothing =
            || Error::nonsense(format!("it does not describe {transactional_id:?}, for which it was asked"));
        reply.transaction.ok_or_else(nothing)?.try_into()
    }

    /// Aborts the transaction that is going on under a transactional id, whoever writes it: readers of committed records
    /// get past it, and its producer has to begin anew. Says whether one was going on; else nothing was done.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), and those of every call. After
    /// [`Timeout`](crate::ErrorKind::Timeout) it may be aborted, and asking again would also abort a transaction
    /// that was begun since.
    pub async fn abort_transaction(&self, transactional_id: &str) -> Result<bool, Error> {
        let request = v1::AbortTransactionRequest { transactional_id: transactional_id.to_owned() };
        let reply = self.call("AbortTransaction", self.transactions_rpc().abort_transaction(request)).await?;
        Ok(reply.aborted)
    }
}

impl TryFrom<v1::Transaction> for TransactionInfo {
    type Error = Error;

    fn try_from(transaction: v1::Transaction) -> Result<TransactionInfo, Error> {
        let state = match transaction.state() {
            v1::TransactionState::Empty => TransactionState::Empty,
            v1::TransactionState::Ongoing => TransactionState::Ongoing,
            v1::TransactionState::Committing => TransactionState::Committing,
            v1::TransactionState::Aborting => TransactionState::Aborting,
            v1::TransactionState::Unspecified => TransactionState::Unknown,
        };
        let last_outcome = match transaction.last_outcome() {
            v1::Outcome::Commit => Some(Outcome::Commit),
            v1::Outcome::Abort => Some(Outcome::Abort),
            v1::Outcome::Unspecified => None,
        };
        let v1::ProducerEpoch { id, epoch } =
            transaction.producer.ok_or_else(|| Error::nonsense("a transactional id without a producer"))?;
        let touched = |it: v1::TopicPartition| Ok((it.topic, partition_from(it.partition)?));
        Ok(TransactionInfo {
            transactional_id: transaction.transactional_id,
            producer_id: id,
            producer_epoch: epoch,
            state,
            timeout: Duration::from_millis(count_from("timeout_ms", transaction.timeout_ms)?),
            started_at: transaction.started_at_ms.map(TimestampMs),
            partitions: transaction.partitions.into_iter().map(touched).collect::<Result<_, Error>>()?,
            last_outcome,
        })
    }
}
