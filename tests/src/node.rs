//! A node in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::Program;
use crate::program::{code_of, freeze, send_signal, wait};

const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A running node; killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    url: String,
}

impl Node {
    /// Starts a node over `dir` on a free loopback port and waits until it is ready.
    #[must_use]
    pub fn start(program: &Program, dir: &Path) -> Self {
        let mut command = program.command(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(dir);
        Self::from_command(command)
    }

    /// Starts a node by a command that runs `serve` in the foreground, and waits until it is ready.
    #[must_use]
    pub fn from_command(mut command: Command) -> Self {
        // What it warns of goes where the test's own output goes.
        command.env("LOGMILL_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a node starts");
        let stdout = child.stdout.take().expect("it was piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a node's output can be read");
        let Some(url) = line.split_whitespace().find(|word| word.starts_with("http://")) else {
            let status = wait(&mut child, STOP_LIMIT);
            panic!("the node said {line:?} and ended with {status:?} instead of being ready")
        };
        Self { url: url.to_owned(), child }
    }

    /// Its address, as clients take it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a crash would: SIGKILL, nothing is finished.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// Asks it to stop: SIGTERM. Returns its exit code.
    #[must_use]
    pub fn terminate(mut self) -> i32 {
        self.signal(Signal::TERM);
        let status = wait(&mut self.child, STOP_LIMIT);
        code_of(status.unwrap_or_else(|| panic!("the node did not stop within {STOP_LIMIT:?}")))
    }

    /// Stops it in its tracks, SIGSTOP, and waits until it stands: a signal takes a moment to reach each of its
    /// threads. [`resume`](Self::resume) lets it go on.
    pub fn freeze(&self) {
        freeze(&self.child);
    }

    /// Lets it go on, SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send_signal(&self.child, signal);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What of a process's memory nobody else can have: `RssAnon`, in bytes.
#[must_use]
pub fn rss_anon(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(path).expect("a running process says how it stands");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says it");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("it is a number of KiB");
    kib * 1024
}
