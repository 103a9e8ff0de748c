//! `logmill txn`: list, describe, abort.

use clap::Subcommand;
use logmill_client::TransactionInfo;
use serde_json::{Value, json};

use crate::client::Common;
use crate::failure::Failure;
use crate::output::{Output, duration_text, plain_table};
use crate::when::time_text;

/// See which transactions are going on, and abort one that holds readers back
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill txn ls --ongoing
  logmill txn describe billing
  logmill txn abort billing

A transaction that is open holds back what was appended behind its first record from those who read what is committed.")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List transactional ids
    #[command(visible_alias = "list", after_help = "Example:\n  logmill txn ls --ongoing --json")]
    Ls {
        /// Only those under which a transaction is going on
        #[arg(long)]
        ongoing: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Show a transactional id, and what its transaction has touched
    #[command(after_help = "Example:\n  logmill txn describe billing --json")]
    Describe {
        /// The transactional id
        transactional_id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Abort the transaction that is going on, without asking
    #[command(after_help = "\
Example:
  logmill txn abort billing

Its producer is told, and has to begin anew. A producer that is still at work will lose what it has sent.")]
    Abort {
        /// The transactional id
        transactional_id: String,
        #[command(flatten)]
        common: Common,
    },
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut output = Output::stdout();
    match args.action {
        Action::Ls { ongoing, common } => {
            let transactions = common.server.connect().await?.list_transactions(ongoing).await?;
            list(&transactions, ongoing, common.json, &mut output)?;
        }
        Action::Describe { transactional_id, common } => {
            let client = common.server.connect().await?;
            let transaction = client.describe_transaction(&transactional_id).await?;
            if common.json {
                output.json(&transaction_json(&transaction))?;
            } else {
                describe(&transaction, &mut output)?;
            }
        }
        Action::Abort { transactional_id, common } => {
            let aborted = common.server.connect().await?.abort_transaction(&transactional_id).await?;
            if common.json {
                output.json(&json!({ "transactional_id": transactional_id, "aborted": aborted }))?;
            } else if aborted {
                output.line(format_args!("aborted the transaction of {transactional_id}"))?;
            } else {
                output.line(format_args!("no transaction was going on under {transactional_id}"))?;
            }
        }
    }
    output.flush()
}

fn list(
    transactions: &[TransactionInfo],
    ongoing: bool,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    if json {
        return transactions.iter().try_for_each(|transaction| output.json(&transaction_json(transaction)));
    }
    if transactions.is_empty() {
        let none = if ongoing { "no transaction is going on" } else { "there are no transactional ids yet" };
        return output.line(none);
    }
    let mut table = plain_table(["TRANSACTIONAL ID", "STATE", "PARTITIONS", "STARTED", "LAST OUTCOME"], &[2]);
    for transaction in transactions {
        table.add_row([
            transaction.transactional_id.clone(),
            transaction.state.to_string(),
            transaction.partitions.len().to_string(),
            transaction.started_at.map_or_else(|| "-".to_owned(), time_text),
            last_text(transaction),
        ]);
    }
    output.line(table.trim_fmt())
}

fn describe(transaction: &TransactionInfo, output: &mut Output) -> Result<(), Failure> {
    output.line(format_args!("transactional id  {}", transaction.transactional_id))?;
    output.line(format_args!("state             {}", transaction.state))?;
    if let Some(started_at) = transaction.started_at {
        output.line(format_args!("started           {}", time_text(started_at)))?;
    }
    output.line(format_args!("timeout           {}", duration_text(transaction.timeout.as_secs_f64())))?;
    output.line(format_args!(
        "producer          {} in epoch {}",
        transaction.producer_id, transaction.producer_epoch
    ))?;
    output.line(format_args!("last outcome      {}", last_text(transaction)))?;
    if transaction.partitions.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let mut table = plain_table(["TOPIC", "PARTITION"], &[1]);
    for (topic, partition) in &transaction.partitions {
        table.add_row([topic.clone(), partition.to_string()]);
    }
    output.line(table.trim_fmt())
}

fn last_text(transaction: &TransactionInfo) -> String {
    transaction.last_outcome.map_or_else(|| "-".to_owned(), |outcome| outcome.to_string())
}

fn transaction_json(transaction: &TransactionInfo) -> Value {
    let partitions = transaction.partitions.iter();
    let partitions = partitions.map(|(topic, partition)| json!({ "topic": topic, "partition": partition }));
    json!({
        "transactional_id": transaction.transactional_id,
        // Many programs read a number as a float, which does not hold so many digits.
        "producer_id": transaction.producer_id.to_string(),
        "producer_epoch": transaction.producer_epoch,
        "state": transaction.state.to_string(),
        "timeout_ms": u64::try_from(transaction.timeout.as_millis()).unwrap_or(u64::MAX),
        "started_at_ms": transaction.started_at.map(|time| time.0),
        "partitions": partitions.collect::<Value>(),
        "last_outcome": transaction.last_outcome.map(|outcome| outcome.to_string()),
    })
}
