//! The program from outside: real processes, real sockets, real files; and the broker over a
//! simulated disk.
#![allow(clippy::unwrap_used, clippy::panic)]
#![expect(clippy::disallowed_methods, reason = "these files are a person's, not the node's")]

mod bad_input;
mod bench;
mod commands;
mod crash;
mod disk_full;
mod examples;
mod groups;
mod history_checker;
mod hostile;
mod json;
mod log;
mod loops;
mod memory;
#[path = "../history/older.rs"]
mod older;
mod power_cut;
mod quickstart;
mod quickstart_feeds;
mod quickstart_kill;
mod readme;
mod rebalance;
mod serve;
mod transactions;
mod wire;
mod zombies;

use std::path::Path;

use logmill_tests::{Node, Program, program};
use tempfile::TempDir;

/// The program, without a node.
fn logmill() -> Program {
    program!()
}

/// A node over this directory that listens at this port, so that it can be started there again.
fn node_at(data: &Path, port: u16) -> Node {
    let mut command = logmill().command(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"]);
    command.arg(data);
    Node::from_command(command)
}

/// A node over a new directory, and the program with its commands going there.
fn node() -> (TempDir, Node, Program) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&logmill(), &dir.path().join("data"));
    let program = logmill().at(node.url());
    (dir, node, program)
}
