//! Which transactional ids there are, and how one stands.

use std::future::Future;
use std::time::Duration;

use logmill_record::TimestampMs;

use super::entry::{Entry, State};
use super::step::is_step;
use super::{Outcome, ProducerEpoch, Transactions};
use crate::access::{Operation, authorize};
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error::Error;

/// How a transactional id stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionInfo {
    /// Its name.
    pub transactional_id: String,
    /// Who writes under it.
    pub producer: ProducerEpoch,
    /// What is going on.
    pub state: TransactionState,
    /// After how long a transaction of it is aborted.
    pub timeout: Duration,
    /// When the transaction that is going on began.
    pub started_at: Option<TimestampMs>,
    /// The partitions that it has touched so far, in order. Empty while it is being committed or aborted.
    pub partitions: Vec<(String, u32)>,
    /// How the last one ended, if any did since the node knows.
    pub last_outcome: Option<Outcome>,
}

/// What is going on under a transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionState {
    /// No transaction.
    Empty,
    /// One that takes records.
    Ongoing,
    /// One that is being committed, or aborted.
    Ending(Outcome),
}

/// Which transactional ids to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListTransactions {
    /// At most so many; 0 means 1,000, which is also the most.
    pub page_size: usize,
    /// The last page's `next_page_token`, or empty for the first page.
    pub page_token: String,
    /// Only those under which a transaction is going on.
    pub ongoing_only: bool,
}

/// A page of transactional ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionPage {
    /// In order of their names.
    pub transactions: Vec<TransactionInfo>,
    /// Where the next page starts; empty at the end.
    pub next_page_token: String,
}

impl Broker {
    /// Lists transactional ids in order of their names, a page at a time. Those of steps are not among them.
    ///
    /// # Errors
    /// [`NodeClosing`](crate::Reason::NodeClosing).
    pub fn list_transactions(
        &self,
        context: &RequestContext,
        request: ListTransactions,
    ) -> impl Future<Output = Result<TransactionPage, Error>> + Send + 'static + use<> {
        let page = authorize(context, &Operation::ListTransactions)
            .and_then(|()| self.core().check_open())
            .map(|()| self.core().transactions.page(request));
        std::future::ready(page)
    }

    /// Describes a transactional id.
    ///
    /// # Errors
    /// [`TransactionNotFound`](crate::Reason::TransactionNotFound).
    pub fn describe_transaction(
        &self,
        context: &RequestContext,
        transactional_id: &str,
    ) -> impl Future<Output = Result<TransactionInfo, Error>> + Send + 'static + use<> {
        let info = authorize(context, &Operation::DescribeTransaction { transactional_id })
            .and_then(|()| self.core().check_open())
            .and_then(|()| {
                let table = self.core().transactions.table.lock();
                table.get(transactional_id).map(|entry| info(transactional_id, entry))
            });
        std::future::ready(info)
    }
}

impl Transactions {
    fn page(&self, request: ListTransactions) -> TransactionPage {
        let ListTransactions { page_size, page_token, ongoing_only } = request;
        let size = crate::paging::page_size(page_size);
        let after = Some(page_token.as_str()).filter(|token| !token.is_empty());
        let table = self.table.lock();
        let shown = table.after(after).filter(|(name, entry)| {
            let ongoing = !matches!(entry.state, State::Empty);
            !is_step(name) && entry.producer.epoch >= 0 && (ongoing || !ongoing_only)
        });
        let mut transactions: Vec<_> = shown.map(|(name, entry)| info(name, entry)).take(size + 1).collect();
        let more = transactions.len() > size;
        transactions.truncate(size);
        let last = transactions.last().map(|last| last.transactional_id.clone());
        TransactionPage { transactions, next_page_token: last.filter(|_| more).unwrap_or_default() }
    }
}

fn info(name: &str, entry: &Entry) -> TransactionInfo {
    let (state, started_at, partitions) = match &entry.state {
        State::Empty => (TransactionState::Empty, None, Vec::new()),
        State::Ongoing(ongoing) => {
            (TransactionState::Ongoing, Some(ongoing.started_at), ongoing.partitions())
        }
        State::Ending { outcome, started_at } => {
            (TransactionState::Ending(*outcome), Some(*started_at), Vec::new())
        }
    };
    TransactionInfo {
        transactional_id: name.to_owned(),
        producer: entry.producer,
        state,
        timeout: entry.timeout,
        started_at,
        partitions,
        last_outcome: entry.last.as_ref().map(|last| last.outcome),
    }
}
