//! The node under load: one that runs already, or one of our own in a process of its own, so that
//! its processor time and memory are its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::args::Common;
use super::process::Process;
use crate::failure::{Exit, Failure, exit_of_io};
use crate::node::blocking;

/// A node under load.
pub(super) struct Target {
    pub(super) url: String,
    /// What can be measured of it from here.
    pub(super) process: Option<Process>,
    own: Option<OwnNode>,
}

/// A node that ends with this, and its directory with it.
struct OwnNode {
    child: Child,
    data_dir: PathBuf,
}

impl Target {
    pub(super) async fn start(args: &Common) -> Result<Self, Failure> {
        if let Some(url) = &args.server {
            let process = args.server_pid.map(Process::other);
            if process.is_some_and(|process| process.cpu_time().is_none()) {
                let message = "no process with the id of --server-pid can be measured";
                return Err(Failure::new(Exit::NotFound, message));
            }
            return Ok(Self { url: url.clone(), process, own: None });
        }
        let data_dir = args
            .data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("logmill-bench-data-{}", std::process::id())));
        if data_dir.exists() {
            let message = format!(
                "{} is there already: the bench makes its directory and removes it",
                data_dir.display()
            );
            return Err(Failure::new(Exit::Conflict, message));
        }
        let (own, url) = blocking(move || OwnNode::start(data_dir)).await??;
        Ok(Self { url, process: Some(Process::other(own.child.id())), own: Some(own) })
    }

    pub(super) async fn end(self) -> Result<(), Failure> {
        match self.own {
            Some(own) => blocking(move || own.end()).await?,
            None => Ok(()),
        }
    }
}

impl OwnNode {
    fn start(data_dir: PathBuf) -> Result<(Self, String), Failure> {
        let cannot = |error| Failure::new(Exit::Failed, format!("cannot start a node: {error}"));
        let program = std::env::current_exe().map_err(cannot)?;
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data_dir);
        command.env("LOGMILL_LOG", "error").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(cannot)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(cannot)?;
        }
        let own = Self { child, data_dir };
        match line.split_whitespace().find(|word| word.starts_with("http://")) {
            Some(url) => Ok((own, url.to_owned())),
            // It has said why on standard error.
            None => {
                own.end()?;
                Err(Failure::new(Exit::Unavailable, "the node for the bench did not start"))
            }
        }
    }

    /// Nobody wants its data, so there is nothing to finish.
    fn end(mut self) -> Result<(), Failure> {
        self.kill();
        remove(&self.data_dir).map_err(|error| {
            let dir = self.data_dir.display();
            Failure::new(exit_of_io(&error), format!("cannot remove {dir}, which the bench made: {error}"))
        })
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::disallowed_methods, reason = "a directory that nobody needs, and that no test tears")]
fn remove(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
