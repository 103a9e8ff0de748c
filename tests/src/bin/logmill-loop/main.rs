//! Programs that work at a node until they are ended from outside, and say each thing that they have done on a line, for
//! tests that freeze and kill them:
//!
//! * `logmill-loop steps URL GROUP FROM TO SESSION_MS [INSTANCE_ID]`: a member of a group that writes what it reads to
//!   another topic, in steps;
//! * `logmill-loop transactions URL TRANSACTIONAL_ID TOPIC NAME`: a producer of transactions.
#![expect(clippy::panic, reason = "a test's program that cannot go on has failed")]

mod steps;
mod transactions;

use std::io::Write as _;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let worked = match *args {
        ["steps", url, group, from, to, session_ms, ref instance_id @ ..] => {
            let session_ms = session_ms.parse().expect("the session is a number of ms");
            let instance_id = instance_id.first().copied();
            runtime.block_on(steps::work(url, group, (from, to), session_ms, instance_id))
        }
        ["transactions", url, id, topic, name] => runtime.block_on(transactions::work(url, id, topic, name)),
        _ => panic!("there is nothing to do as {args:?}"),
    };
    if let Err(error) = worked {
        say(&format!("over {}", error.reason()));
        panic!("{error}");
    }
}

/// Says it at once: the next moment it may be killed.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).expect("somebody listens");
}
