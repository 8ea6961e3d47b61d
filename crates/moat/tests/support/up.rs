//! A running `moat up` (or one of its servers) of a test: on free ports of 127.0.0.1, ended with the test.

#![allow(unreachable_pub, reason = "shared by several test crates")]
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::moat;

/// The flags that put all listeners on free ports.
pub const FREE_PORTS: [&str; 8] = [
    "--store-listen",
    "127.0.0.1:0",
    "--kms-listen",
    "127.0.0.1:0",
    "--proxy-https",
    "127.0.0.1:0",
    "--proxy-http",
    "127.0.0.1:0",
];

/// A server that said `ready`.
pub struct Server {
    child: Child,
    /// What it printed up to then.
    pub said: String,
    log: Option<std::thread::JoinHandle<std::io::Result<String>>>,
}

/// `moat up` on `data` with free ports and these further flags, not yet started.
pub fn up(data: &Path, flags: &[&str]) -> Command {
    let mut command = moat();
    command
        .arg("up")
        .arg("--data")
        .arg(data)
        .args(FREE_PORTS)
        .args(flags);
    command
}

impl Server {
    /// Starts a server and waits until it is ready. One that ends before fails the test with what it said.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap() == 0 {
                let mut errors = String::new();
                child
                    .stderr
                    .take()
                    .unwrap()
                    .read_to_string(&mut errors)
                    .unwrap();
                panic!("the server ended before it was ready: {said}{errors}");
            }
            said.push_str(&line);
            if line.starts_with("ready") {
                break;
            }
        }
        // Read in the background, so that a talkative server is not held up by a full pipe.
        let mut errors = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).map(|_| text)
        });
        Self {
            child,
            said,
            log: Some(log),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first URL behind this word in what it said.
    pub fn url(&self, word: &str) -> String {
        let (_, rest) = self.said.split_once(word).unwrap();
        let start = rest.find("http").unwrap();
        rest[start..].split_whitespace().next().unwrap().to_owned()
    }

    /// The first plain URL in what it said: the proxy's.
    pub fn plain_url(&self) -> String {
        let start = self.said.find("http://").unwrap();
        self.said[start..]
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned()
    }

    pub fn port(&self, word: &str) -> u16 {
        self.url(word).rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(self) -> ExitStatus {
        self.end(Signal::TERM)
    }

    /// Sends SIGTERM and returns what stands on standard error when it has ended.
    pub fn log(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap();
        self.log.take().unwrap().join().unwrap().unwrap()
    }

    /// Sends SIGINT and waits for the end.
    pub fn interrupt(self) -> ExitStatus {
        self.end(Signal::INT)
    }

    fn end(mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
