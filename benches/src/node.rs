//! A node in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A node that is stopped when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    url: String,
}

impl Node {
    /// Starts `program`, the path of a bench's `logmill-bench-node`, over a data directory.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(program: &str, data_dir: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        command.env("LOGMILL_LOG", "error").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the node starts");
        let stdout = child.stdout.take().expect("it was piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("its output can be read");
        let url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.expect("the node says its address").to_owned();
        Self { child, url }
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
