//! Room for what is read: among all replies, and among those of the connection that they go to.

use crate::budget::{Budget, Permit};

/// Both budgets of a reader. A clone is the same ones.
#[derive(Clone, Debug)]
pub(crate) struct ReplyRoom {
    all: Budget,
    own: Budget,
}

/// A part of both, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct ReplyPermit {
    all: Permit,
    own: Permit,
}

impl ReplyRoom {
    /// Among `all` replies and the reader's `own`.
    pub(crate) fn new(all: Budget, own: Budget) -> Self {
        Self { all, own }
    }

    /// Takes `amount`, or as much of it as there is, but something; or says which of them is used up.
    pub(crate) fn take_up_to(&self, amount: usize) -> Result<ReplyPermit, &Budget> {
        let mut own = self.own.take_up_to(amount).ok_or(&self.own)?;
        let all = self.all.take_up_to(own.amount()).ok_or(&self.all)?;
        own.keep(all.amount());
        Ok(ReplyPermit { all, own })
    }

    /// Ready when something can be taken, which somebody else may do first.
    pub(crate) async fn wait(&self) {
        self.own.room().await;
        self.all.room().await;
    }
}

impl ReplyPermit {
    pub(crate) fn amount(&self) -> usize {
        self.all.amount()
    }

    /// See [`Permit::keep`].
    pub(crate) fn keep(&mut self, amount: usize) {
        self.all.keep(amount);
        self.own.keep(amount);
    }

    /// Those of all, and of the connection.
    #[cfg(feature = "grpc")]
    pub(crate) fn into_parts(self) -> (Permit, Permit) {
        (self.all, self.own)
    }
}
