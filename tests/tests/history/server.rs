//! The node under test: a process that is killed, stopped, held and started again over one directory.
//!
//! Clients keep their address through it all, the proxy's; each start takes a free port, so that nobody else
//! can have it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use logmill_tests::{Node, Program};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::proxy::{Proxy, Target};

pub(crate) struct Server {
    program: Program,
    data: PathBuf,
    args: Vec<String>,
    stderr: Option<PathBuf>,
    node: Option<Node>,
    address: watch::Sender<Option<SocketAddr>>,
}

impl Server {
    /// A node over `data`.
    pub(crate) async fn start(program: Program, data: &Path) -> Self {
        let mut server = Self::new(program, data);
        server.resume().await;
        server
    }

    /// One that is not started yet.
    pub(crate) fn new(program: Program, data: &Path) -> Self {
        let (data, address) = (data.to_owned(), watch::Sender::new(None));
        Self { program, data, args: Vec::new(), stderr: None, node: None, address }
    }

    /// What it is told besides, from its next start on.
    pub(crate) fn set_args(&mut self, args: &[&str]) {
        self.args = args.iter().map(ToString::to_string).collect();
    }

    /// Where what it says on standard error goes, from its next start on.
    pub(crate) fn set_stderr(&mut self, path: PathBuf) {
        self.stderr = Some(path);
    }

    /// Starts it, for the first time or again.
    pub(crate) async fn resume(&mut self) {
        let command = self.command();
        let node = spawn_blocking(move || Node::from_command(command)).await.unwrap();
        let address = node.url().strip_prefix("http://").unwrap().parse().unwrap();
        self.address.send_replace(Some(address));
        self.node = Some(node);
    }

    /// Starts it and kills it so long after, ready or not.
    pub(crate) async fn resume_and_kill(&self, after: Duration) {
        let mut child = self.command().stdout(Stdio::null()).spawn().unwrap();
        sleep(after).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn command(&self) -> Command {
        let mut command = self.program.command(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(&self.data).args(&self.args).env("LOGMILL_LOG", "warn");
        if let Some(path) = &self.stderr {
            command.stderr(File::create(path).unwrap());
        }
        command
    }

    /// A proxy in front of it.
    pub(crate) async fn proxy(&self) -> Proxy {
        Proxy::start(self.target()).await
    }

    /// Where it is, for a proxy.
    pub(crate) fn target(&self) -> Target {
        self.address.subscribe()
    }

    /// Its own address, without a proxy.
    pub(crate) fn url(&self) -> &str {
        self.running().url()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.address.send_replace(None);
        self.node.take().expect("it runs").kill();
    }

    /// SIGTERM; gives the exit code. Meanwhile clients can still reach it.
    pub(crate) async fn terminate(&mut self) -> i32 {
        let node = self.node.take().expect("it runs");
        let code = spawn_blocking(move || node.terminate()).await.unwrap();
        self.address.send_replace(None);
        code
    }

    /// SIGTERM, and nothing is waited for.
    pub(crate) fn ask_to_stop(&self) {
        self.running().signal(Signal::TERM);
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// SIGSTOP: it is there, and does nothing.
    pub(crate) fn pause(&self) {
        self.running().freeze();
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) {
        self.running().resume();
    }

    fn running(&self) -> &Node {
        self.node.as_ref().expect("it runs")
    }
}
