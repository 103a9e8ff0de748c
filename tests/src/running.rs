//! A program that runs while a test looks on, and says what it does line by line.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use logmill_log::env::{Clock as _, SystemClock};
use rustix::process::Signal;

use crate::pause;
use crate::program::{code_of, freeze, scratch_file, send_signal, share, text_of, wait};

/// Nothing that is waited for takes nearly as long.
const LIMIT: Duration = Duration::from_secs(60);

/// A running program; killed when dropped. Its output goes to files, so that it never waits for a reader.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Starts it without input.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let (stdout, stderr) = (scratch_file(), scratch_file());
        command.stdin(Stdio::null()).stdout(share(&stdout)).stderr(share(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, stdout, stderr }
    }

    /// The lines that it has said to their end so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let text = text_of(&self.stdout);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// Waits until it has said so many lines that begin with `word`; gives those lines, without the word.
    #[expect(clippy::must_use_candidate, reason = "it waits")]
    pub fn wait_for(&self, word: &str, count: usize) -> Vec<String> {
        self.wait_until(&format!("{count} lines of {word:?}"), |it| it.said(word).len() >= count);
        self.said(word)
    }

    /// Waits until what it has said is enough.
    pub fn wait_until(&self, what: &str, is_enough: impl Fn(&Self) -> bool) {
        let clock = SystemClock::new();
        while !is_enough(self) {
            if clock.monotonic() >= LIMIT {
                panic!("{what} did not come; it said {:?} and {:?}", self.lines(), text_of(&self.stderr));
            }
            pause(Duration::from_millis(5));
        }
    }

    /// The lines that it has said so far that begin with `word`, without that word.
    #[must_use]
    pub fn said(&self, word: &str) -> Vec<String> {
        let lines = self.lines();
        let of_it = lines.iter().filter_map(|line| line.strip_prefix(word));
        of_it.map(|rest| rest.trim_start().to_owned()).collect()
    }

    /// Stops it in its tracks, SIGSTOP; [`resume`](Self::resume) lets it go on.
    pub fn freeze(&self) {
        freeze(&self.child);
    }

    /// Lets it go on, SIGCONT.
    pub fn resume(&self) {
        send_signal(&self.child, Signal::CONT);
    }

    /// Kills it, SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// Asks it to end, SIGTERM, and waits until it has; gives its exit code.
    #[must_use]
    pub fn terminate(self) -> i32 {
        send_signal(&self.child, Signal::TERM);
        self.wait()
    }

    /// Waits until it ends by itself; gives its exit code.
    #[must_use]
    pub fn wait(mut self) -> i32 {
        let status = wait(&mut self.child, LIMIT);
        code_of(status.unwrap_or_else(|| panic!("it did not end; it said {:?}", self.lines())))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
