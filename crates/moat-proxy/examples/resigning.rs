//! What re-signing costs: uploads in signed chunks through the gateway, beside the same bytes through
//! the transparent proxy.
//!
//! `cargo run --release -p moat-proxy --example resigning [SECONDS [ROW]]` starts a responder that
//! drops what it reads, the proxy in both modes, and loads them. The client's bytes are the same in
//! each round and signed once, so the loader hashes nothing. All share the machine: the rate is what
//! one gets there, CPU seconds per GiB are what the proxy's process used.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use moat_net::{Body, ClientConfig, Endpoint, HttpClient, Peer, Service};
use moat_proxy::gateway::{GatewayConfig, KeySource, Store, User};
use moat_proxy::{Config, Mode, Proxy, Upstream};
use moat_s3::chunked::{ChunkedEncoder, Framing, encoded_length};
use moat_s3::policy::Policy;
use moat_s3::sigv4::{Credentials, PayloadHash, Signer};
use moat_types::{Clock as _, SecretString, SystemClock};

use rig::{Process, client_tls, make_certificate, serve};

const LARGE: u64 = 64 * 1024 * 1024;
/// As the SDKs have them.
const CHUNK: usize = 128 * 1024;

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match args.get(1).map(String::as_str) {
        Some("respond") => runtime.block_on(serve(&args[2], args[3] == "tls", Arc::new(Sink))),
        Some("proxy") => runtime.block_on(proxy(&args[2], args[3] == "tls", &args[4], &args[5])),
        seconds => {
            let seconds = seconds.map_or(3, |text| text.parse().unwrap());
            let row = args.get(2).map(String::as_str).unwrap_or_default();
            runtime.block_on(measure(Duration::from_secs(seconds), row));
        }
    }
}

/// Reads what it is sent.
struct Sink;

impl Service for Sink {
    async fn call(&self, _: &Arc<Peer>, request: Request<Body>) -> Response<Body> {
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            drop(frame);
        }
        Response::new(Body::empty())
    }
}

fn credentials() -> Credentials {
    Credentials {
        access_key_id: "access-key".to_owned(),
        secret_access_key: SecretString::new("secret-key".to_owned()),
        session_token: None,
    }
}

async fn proxy(dir: &str, tls: bool, mode: &str, upstream: &str) {
    let mut config = Config::new(vec![Upstream::parse(upstream).unwrap()]);
    config.sites[0].tls = Some(client_tls(dir));
    if mode == "gateway" {
        let user = User {
            name: "user".to_owned(),
            credentials: credentials(),
            policies: Policy::built_in("readwrite").into_iter().collect(),
        };
        let store = Store {
            name: "store".to_owned(),
            sites: 0..1,
            region: "us-east-1".to_owned(),
            keys: KeySource::Fixed(credentials()),
        };
        config.mode = Mode::Gateway(Arc::new(GatewayConfig::new(vec![user], store)));
    }
    serve(dir, tls, Arc::new(Proxy::new(config).unwrap())).await;
}

/// An upload, signed and framed once.
struct Upload {
    uri: Uri,
    headers: HeaderMap,
    frames: Arc<[Bytes]>,
}

impl Upload {
    fn new(form: PayloadHash) -> Self {
        let uri = Uri::from_static("/bucket/key");
        let mut headers = HeaderMap::new();
        headers.insert("host", "gateway.test".parse().unwrap());
        let framed = encoded_length(form, LARGE, CHUNK as u64, &[]);
        headers.insert("content-length", framed.into());
        if form.is_chunked() {
            headers.insert("x-amz-decoded-content-length", LARGE.into());
        }
        let now = SystemClock.now();
        let seed = Signer::new(credentials(), "us-east-1", "s3")
            .sign(&Method::PUT, &uri, &mut headers, form, now)
            .unwrap();
        let data = Bytes::from(vec![b'p'; CHUNK]);
        let mut frames = Vec::new();
        let mut encoder = Framing::new(form, Some(&seed)).map(ChunkedEncoder::new);
        for _ in 0..LARGE / CHUNK as u64 {
            match &mut encoder {
                Some(encoder) => frames.extend(encoder.chunk(data.clone())),
                None => frames.push(data.clone()),
            }
        }
        frames.extend(encoder.map(|encoder| encoder.finish(&[])));
        Self {
            uri,
            headers,
            frames: frames.into(),
        }
    }

    fn request(&self) -> Request<Body> {
        let frames = Arc::clone(&self.frames);
        let frames = futures_util::stream::iter(0..frames.len())
            .map_to_frames(move |index| frames[index].clone());
        let mut request = Request::put(self.uri.clone()).body(frames).unwrap();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// A stream of indices as a body of what stands there.
trait Frames: Sized {
    fn map_to_frames(self, at: impl Fn(usize) -> Bytes + Send + 'static) -> Body;
}

impl<S: futures_util::Stream<Item = usize> + Send + 'static> Frames for S {
    fn map_to_frames(self, at: impl Fn(usize) -> Bytes + Send + 'static) -> Body {
        use futures_util::StreamExt as _;
        let frames = self.map(move |index| Ok::<_, std::io::Error>(Frame::data(at(index))));
        Body::stream(StreamBody::new(frames))
    }
}

async fn measure(time: Duration, row: &str) {
    let dir = tempfile::tempdir().unwrap();
    make_certificate(dir.path());
    let dir = dir.path().to_str().unwrap();
    println!(
        "{:<44}{:>12}{:>12}{:>14}",
        "64 MiB uploads, 4 connections", "", "rate", "proxy"
    );
    let signed = PayloadHash::StreamingSigned;
    for (name, form, from, to) in [
        ("signed chunks, http to http", signed, "plain", "plain"),
        ("signed chunks, http to https", signed, "plain", "tls"),
        ("signed chunks, https to https", signed, "tls", "tls"),
        (
            "unsigned, https to https",
            PayloadHash::Unsigned,
            "tls",
            "tls",
        ),
    ] {
        if !name.contains(row) {
            continue;
        }
        let responder = Process::start(&["respond", dir, to]);
        for mode in ["transparent", "gateway"] {
            let proxy = Process::start(&["proxy", dir, from, mode, &responder.url]);
            let upload = Arc::new(Upload::new(form));
            // Connections are made, and a first upload is through.
            load(&proxy.url, dir, &upload, Duration::ZERO).await;
            let before = proxy.cpu();
            let began = Instant::now();
            let count = load(&proxy.url, dir, &upload, time).await;
            let gib = (count * LARGE) as f64 / (1024.0 * 1024.0 * 1024.0);
            let rate = gib * 1024.0 / began.elapsed().as_secs_f64();
            let cpu = (proxy.cpu() - before) / gib;
            println!("{name:<44}{mode:>12}{rate:>6.0} MiB/s{cpu:>8.2} s/GiB");
        }
    }
}

async fn load(url: &str, dir: &str, upload: &Arc<Upload>, time: Duration) -> u64 {
    let client = HttpClient::new(ClientConfig {
        tls: Some(client_tls(dir)),
        ..ClientConfig::default()
    });
    let endpoint = Endpoint::parse(url).unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + time;
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (client, endpoint) = (client.clone(), endpoint.clone());
            let (done, upload) = (Arc::clone(&done), Arc::clone(upload));
            tokio::spawn(async move {
                loop {
                    let response = client.send(&endpoint, upload.request()).await.unwrap();
                    assert_eq!(response.status(), 200);
                    done.fetch_add(1, Relaxed);
                    if Instant::now() >= end {
                        break;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    done.load(Relaxed)
}
