//! What the measuring tools share: servers as processes of their own, and what each process used.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use moat_net::tls::{ClientAuth, ClientTls, ClientTlsConfig, Roots, ServerTls};
use moat_net::{Drain, Limits, Listener, ListenerConfig, Service};

/// Makes the key and the certificate of all servers, `key` and `crt` in `dir`.
pub(crate) fn make_certificate(dir: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(dir.join("crt"), cert.pem()).unwrap();
    fs::write(dir.join("key"), key.serialize_pem()).unwrap();
}

/// Serves for ever, on an address that is printed first.
pub(crate) async fn serve<S: Service>(dir: &str, tls: bool, service: Arc<S>) {
    let file = |name| format!("{dir}/{name}");
    let load = || ServerTls::load(file("crt"), file("key"), ClientAuth::None).unwrap();
    let listener = Listener::bind(ListenerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        tls: tls.then(load),
        limits: Limits::default(),
    })
    .unwrap();
    let scheme = if tls { "https" } else { "http" };
    println!("{scheme}://{}", listener.local_addr());
    listener.serve(service, Drain::new()).await;
}

/// Trusts the certificate of the servers.
pub(crate) fn client_tls(dir: &str) -> ClientTls {
    ClientTls::load(ClientTlsConfig {
        roots: Roots {
            files: vec![format!("{dir}/crt").into()],
            ..Roots::default()
        },
        ..ClientTlsConfig::default()
    })
    .unwrap()
}

/// A server in a process of its own, which ends with this.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

impl Process {
    /// A process that listens at `url`.
    pub(crate) const fn new(child: Child, url: String) -> Self {
        Self { child, url }
    }

    /// This program with other arguments, which make it a server.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut url).unwrap();
        Self::new(child, url.trim().to_owned())
    }

    /// User and system time so far of the process and its children, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.pids().iter().map(|pid| cpu_of(*pid)).sum()
    }

    /// The process and its children.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        std::iter::once(pid).chain(children).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx ends its workers on SIGTERM only.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

fn cpu_of(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}
