//! Running the program to its end, with a time limit, and looking at what it said.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use logmill_log::env::{Clock as _, SystemClock};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Nothing that a test runs takes nearly as long.
const LIMIT: Duration = Duration::from_secs(120);

/// The program under test.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    server: Option<String>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; −1 − the signal if it was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Program {
    /// The program at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), server: None }
    }

    /// The same program, its client commands talking to the node at `url`.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { path: self.path.clone(), server: Some(url.to_owned()) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command of it, in an environment without settings of the caller's.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.path);
        clean(&mut command).args(args);
        if let Some(server) = &self.server {
            command.env("LOGMILL_SERVER", server);
        }
        command
    }

    /// Runs it to its end without input.
    #[must_use]
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        self.run_with(args, b"")
    }

    /// Runs it to its end with `input` on standard input.
    #[must_use]
    pub fn run_with<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Outcome {
        finish(self.command(args), input)
    }

    /// Runs it to its end; panics unless it exits with 0. Returns standard output.
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        self.ok_with(args, b"")
    }

    /// As [`ok`](Self::ok), with `input` on standard input.
    pub fn ok_with<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> String {
        let outcome = self.run_with(args, input);
        assert_eq!(outcome.code, 0, "it failed: {}", outcome.stderr);
        outcome.stdout
    }
}

impl Outcome {
    /// Asserts that it was refused with this exit code and one sentence, and returns the sentence.
    #[expect(clippy::must_use_candidate, reason = "it asserts by itself")]
    pub fn refused(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:?}");
        let sentence = self.stderr.strip_suffix('\n').unwrap_or_default();
        assert!(sentence.starts_with("logmill: ") && sentence.lines().count() == 1, "{self:?}");
        assert!(!sentence.contains("panicked"), "{self:?}");
        sentence
    }
}

/// Takes away what the caller's environment sets for the program.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOGMILL_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs any command to its end. Input and output go through files, so that nobody waits on a pipe.
#[must_use]
pub fn finish(mut command: Command, input: &[u8]) -> Outcome {
    let mut stdin = scratch_file();
    stdin.write_all(input).expect("a temporary file can be written");
    stdin.seek(SeekFrom::Start(0)).expect("a file can be rewound");
    let (stdout, stderr) = (scratch_file(), scratch_file());
    command.stdin(stdin).stdout(share(&stdout)).stderr(share(&stderr));
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let status = wait(&mut child, LIMIT);
    let (stdout, stderr) = (text_of(&stdout), text_of(&stderr));
    let Some(status) = status else {
        panic!("{command:?} did not end within {LIMIT:?}; it said {stdout:?} and {stderr:?}")
    };
    Outcome { code: code_of(status), stdout, stderr }
}

/// Waits for a child to end; kills it and returns `None` when the time is up.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let clock = SystemClock::new();
    loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => return Some(status),
            None if clock.monotonic() < limit => pause(Duration::from_millis(2)),
            None => {
                child.kill().expect("a child can be killed");
                child.wait().expect("a killed child ends");
                return None;
            }
        }
    }
}

pub(crate) fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -1 - status.signal().unwrap_or_default())
}

/// Stops a child in its tracks, and waits until it stands: a signal takes a moment to reach each of its threads.
pub(crate) fn freeze(child: &Child) {
    send_signal(child, Signal::STOP);
    let stopped = waitpid(Some(Pid::from_child(child)), WaitOptions::UNTRACED);
    let (_, status) = stopped.expect("a child can be waited for").expect("it waits");
    assert!(status.stopped(), "it ended: {status:?}");
}

pub(crate) fn send_signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("a running child can be signalled");
}

/// Waits. Tests poll other processes, which nothing can wake them for.
#[expect(clippy::disallowed_methods, reason = "other processes are not ours to be woken by")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A port that was free a moment ago.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port can be bound");
    listener.local_addr().expect("a bound socket has an address").port()
}

pub(crate) fn scratch_file() -> File {
    tempfile::tempfile().expect("a temporary file can be made")
}

pub(crate) fn share(file: &File) -> Stdio {
    Stdio::from(file.try_clone().expect("a descriptor can be cloned"))
}

/// All that is in the file, whose place is left where it is: a child may write there.
pub(crate) fn text_of(file: &File) -> String {
    let len = file.metadata().expect("a file has a length").len();
    let mut bytes = vec![0; usize::try_from(len).expect("it fits into memory")];
    file.read_exact_at(&mut bytes, 0).expect("a temporary file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
