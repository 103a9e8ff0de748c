//! Parts of a bench that need a process of their own: to be killed, or to have memory that nothing
//! else has used. A bench starts itself with other arguments.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const FLAG: &str = "--part";

/// A part of the bench in a process of its own. It is killed when dropped.
#[derive(Debug)]
pub struct Part {
    child: Child,
    /// Held open: the part may wait for its end.
    _stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Part {
    /// What this process is to do, if it was started as a part: name, directory, numbers.
    #[must_use]
    pub fn of_this_process() -> Option<(String, std::path::PathBuf, Vec<u64>)> {
        let mut args = std::env::args().skip_while(|arg| arg != FLAG).skip(1);
        let (name, dir) = (args.next()?, args.next()?);
        Some((name, dir.into(), args.map_while(|arg| arg.parse().ok()).collect()))
    }

    /// Starts a part.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(name: &str, dir: &Path, numbers: &[u64]) -> Self {
        let this = std::env::current_exe().expect("the program has a name");
        let mut command = Command::new(this);
        command.arg(FLAG).arg(name).arg(dir).args(numbers.iter().map(u64::to_string));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the part starts");
        let stdin = child.stdin.take().expect("it was piped");
        let stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        Self { child, _stdin: stdin, stdout }
    }

    /// The numbers on its next line.
    ///
    /// # Panics
    /// If it has ended, or says something else.
    pub fn line(&mut self) -> Vec<f64> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the part can be heard");
        assert!(!line.is_empty(), "the part has failed: its message is above");
        line.split_whitespace().map(|word| word.parse().expect("the part says numbers")).collect()
    }

    /// Starts a part, waits for it, and returns the numbers on its only line.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn run(name: &str, dir: &Path, numbers: &[u64]) -> Vec<f64> {
        let mut part = Self::start(name, dir, numbers);
        let line = part.line();
        part.join();
        line
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it fails.
    pub fn join(mut self) {
        let status = self.child.wait().expect("the part ends");
        assert!(status.success(), "the part has failed: {status}");
    }

    /// Kills it as `kill -9` does.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
