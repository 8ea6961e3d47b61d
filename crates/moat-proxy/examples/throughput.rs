//! What a listener and the proxy cost: CPU seconds per GiB and per small request.
//!
//! `cargo run --release -p moat-proxy --example throughput [SECONDS [ROW]]` starts a fixed responder and a
//! proxy in front of it as processes of their own, loads them over TLS 1.3, and prints what each
//! process used, as the kernel counts it. Loader and servers share the machine, so CPU is the figure
//! to compare, not the rate. With `NGINX_BIN=/path/to/nginx` the same is done with an nginx of equal
//! settings in the proxy's place.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

mod rig;

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use moat_net::{Body, ClientConfig, Endpoint, HttpClient, Peer, Service};
use moat_proxy::{Config, Proxy, Upstream};

use rig::{Process, client_tls, make_certificate, serve};

/// What a store reads, opens and hands over at a time.
const PIECE: usize = 256 * 1024;
const LARGE: u64 = 64 * 1024 * 1024;

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match args.get(1).map(String::as_str) {
        Some("respond") => runtime.block_on(respond(&args[2])),
        Some("proxy") => runtime.block_on(proxy(&args[2], &args[3])),
        seconds => {
            let seconds = seconds.map_or(3, |text| text.parse().unwrap());
            let row = args.get(2).map(String::as_str).unwrap_or_default();
            runtime.block_on(measure(Duration::from_secs(seconds), row));
        }
    }
}

/// Answers `GET /N` with N bytes and reads what it is sent.
struct Responder(Bytes);

impl Service for Responder {
    async fn call(&self, _: &Arc<Peer>, request: Request<Body>) -> Response<Body> {
        let size: u64 = request.uri().path()[1..].parse().unwrap_or(0);
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            drop(frame);
        }
        if size <= PIECE as u64 {
            return Response::new(Body::full(self.0.slice(..size as usize)));
        }
        let piece = self.0.clone();
        let frames = futures_util::stream::iter(0..size / PIECE as u64)
            .map(move |_| Ok::<_, std::io::Error>(Frame::data(piece.clone())));
        let mut response = Response::new(Body::stream(StreamBody::new(frames)));
        response.headers_mut().insert("content-length", size.into());
        response
    }
}

async fn respond(dir: &str) {
    let service = Arc::new(Responder(Bytes::from(vec![b'm'; PIECE])));
    serve(dir, true, service).await;
}

async fn proxy(dir: &str, upstream: &str) {
    let mut config = Config::new(vec![Upstream::parse(upstream).unwrap()]);
    config.sites[0].tls = Some(client_tls(dir));
    serve(dir, true, Arc::new(Proxy::new(config).unwrap())).await;
}

fn rss_mib(process: &Process) -> u64 {
    process.pids().into_iter().map(rss_kib_of).sum::<u64>() / 1024
}

fn rss_kib_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// nginx as a proxy with the settings of ours: TLS 1.3, streaming, kept connections.
fn nginx(binary: &str, dir: &str, upstream: &str) -> Process {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let upstream = upstream.trim_start_matches("https://");
    let config = format!(
        "daemon off; worker_processes 2; pid {dir}/nginx.pid; error_log {dir}/error.log;
         events {{ worker_connections 4096; }}
         http {{
           access_log off; client_max_body_size 0; keepalive_requests 1000000000;
           client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
           uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
           upstream store {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
           server {{
             listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3;
             ssl_certificate {dir}/crt; ssl_certificate_key {dir}/key;
             location / {{
               proxy_pass https://store; proxy_http_version 1.1; proxy_set_header Connection '';
               proxy_set_header Host $http_host; proxy_ssl_protocols TLSv1.3;
               proxy_request_buffering off; proxy_max_temp_file_size 0;
             }}
           }}
         }}"
    );
    fs::write(format!("{dir}/nginx.conf"), config).unwrap();
    let child = Command::new(binary)
        .args(["-p", dir, "-c", "nginx.conf", "-e", "error.log"])
        .spawn()
        .unwrap();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::yield_now();
    }
    let url = format!("https://127.0.0.1:{port}");
    Process::new(child, url)
}

async fn measure(time: Duration, row: &str) {
    let dir = tempfile::tempdir().unwrap();
    make_certificate(dir.path());
    let dir = dir.path().to_str().unwrap();

    let responder = Process::start(&["respond", dir]);
    let proxy = Process::start(&["proxy", dir, &responder.url]);
    let other = std::env::var("NGINX_BIN").ok();
    let other = other.map(|binary| nginx(&binary, dir, &responder.url));
    let mut targets = vec![("direct", &responder), ("proxied", &proxy)];
    targets.extend(other.as_ref().map(|nginx| ("nginx", nginx)));
    println!(
        "{:<28}{:>8}{:>12}{:>14}{:>14}",
        "", "", "rate", "responder", "proxy"
    );
    for (name, size, put, connections) in [
        ("GET 4 KiB, 1 connection", 4096, false, 1),
        ("GET 4 KiB, 8 connections", 4096, false, 8),
        ("GET 4 KiB, 64 connections", 4096, false, 64),
        ("GET 4 KiB, 1000 connections", 4096, false, 1000),
        ("PUT 4 KiB, 8 connections", 4096, true, 8),
        ("GET 64 MiB, 1 connection", LARGE, false, 1),
        ("GET 64 MiB, 8 connections", LARGE, false, 8),
        ("PUT 64 MiB, 1 connection", LARGE, true, 1),
        ("PUT 64 MiB, 8 connections", LARGE, true, 8),
    ] {
        if !name.contains(row) {
            continue;
        }
        for (through, target) in &targets {
            let before = (responder.cpu(), target.cpu());
            let began = Instant::now();
            let count = load(&target.url, dir, size, put, connections, time).await;
            let wall = began.elapsed().as_secs_f64();
            let used = [responder.cpu() - before.0, target.cpu() - before.1];
            let gib = (count * size) as f64 / (1024.0 * 1024.0 * 1024.0);
            let figures = if size < LARGE {
                let per = |cpu: f64| format!("{:.4} ms", cpu * 1000.0 / count as f64);
                [
                    format!("{:.0}/s", count as f64 / wall),
                    per(used[0]),
                    per(used[1]),
                ]
            } else {
                let per = |cpu: f64| format!("{:.2} s/GiB", cpu / gib);
                [
                    format!("{:.0} MiB/s", gib * 1024.0 / wall),
                    per(used[0]),
                    per(used[1]),
                ]
            };
            println!(
                "{name:<28}{through:>8}{:>12}{:>14}{:>14}",
                figures[0], figures[1], figures[2]
            );
        }
    }
    for (name, target) in &targets {
        println!("memory {name:<8}{:>5} MiB", rss_mib(target));
    }
}

/// Repeats one request on each connection for a while; returns how many were answered.
async fn load(
    url: &str,
    dir: &str,
    size: u64,
    put: bool,
    connections: usize,
    time: Duration,
) -> u64 {
    let client = HttpClient::new(ClientConfig {
        tls: Some(client_tls(dir)),
        ..ClientConfig::default()
    });
    let endpoint = Endpoint::parse(url).unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + time;
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (client, endpoint, done) = (client.clone(), endpoint.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                while Instant::now() < end {
                    let response = client.send(&endpoint, request(size, put)).await.unwrap();
                    assert_eq!(response.status(), 200);
                    let mut body = response.into_body();
                    while let Some(frame) = body.frame().await {
                        drop(frame.unwrap());
                    }
                    done.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    done.load(Relaxed)
}

fn request(size: u64, put: bool) -> Request<Body> {
    if !put {
        return Request::get(format!("/{size}"))
            .body(Body::empty())
            .unwrap();
    }
    static PIECE_BYTES: [u8; PIECE] = [b'p'; PIECE];
    let body = if size <= PIECE as u64 {
        Body::full(Bytes::from_static(&PIECE_BYTES[..size as usize]))
    } else {
        let frames = futures_util::stream::iter(0..size / PIECE as u64)
            .map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&PIECE_BYTES))));
        Body::stream(StreamBody::new(frames))
    };
    Request::put("/0")
        .header("content-length", size)
        .body(body)
        .unwrap()
}
