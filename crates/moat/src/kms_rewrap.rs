//! `moat kms rewrap`: has a store wrap its epoch keys under the newest versions of their KMS keys.
//!
//! The work is the store's, page by page; this command asks for the pages, shows how far it is and
//! keeps to a rate. It may be stopped at any moment and run again.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Limited};
use moat_net::tls::{ClientTls, ClientTlsConfig, Roots};
use moat_net::{Body, ClientConfig, HttpClient};
use moat_s3::sigv4::{EMPTY_SHA256, PayloadHash, Signer};
use moat_types::{BucketName, Clock, SystemClock};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::cli::ConfigFlag;
use crate::config::Config;
use crate::config::raw::FlagValue;
use crate::credentials::Credentials;
use crate::print;
use crate::servers::local;

/// Epochs of one request; small enough that progress is seen and a stop is quick.
const PAGE_EPOCHS: u32 = 100;
/// Epochs per second unless said otherwise: each is a request of the store to the key manager,
/// which serves tens of thousands, so nobody else notices.
const RATE_DEFAULT: u32 = 500;
/// For one page: 100 requests to a key manager that may be far away.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// A page's answer names at most as many refused epochs as it has.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct KmsRewrapArgs {
    /// The bucket
    #[arg(group = "what")]
    bucket: Option<String>,
    /// Every bucket of the store
    #[arg(long, group = "what")]
    all: bool,
    /// The store [default: the one of the data folder]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The CA that its certificate must come from [default: DIR/ca/ca.crt]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Epochs per second at most
    #[arg(long, value_name = "N", default_value_t = RATE_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// The data folder of the store, with its root credentials [default: ./moat-data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    #[command(flatten)]
    file: ConfigFlag,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the store answers to a page.
#[derive(Deserialize)]
struct Page {
    examined: u64,
    rewrapped: u64,
    refused: Vec<Refused>,
    versions: BTreeMap<String, u32>,
    next: Option<String>,
}

#[derive(Deserialize, serde::Serialize)]
struct Refused {
    bucket: String,
    key: String,
    version: u32,
    reason: String,
}

/// What all pages did.
#[derive(Default)]
struct Total {
    examined: u64,
    rewrapped: u64,
    refused: Vec<Refused>,
    versions: BTreeMap<String, u32>,
}

/// Runs it.
pub(crate) async fn run(args: KmsRewrapArgs) -> Result<ExitCode> {
    let store = Store::of(&args)?;
    let bucket = match &args.bucket {
        Some(name) => Some(BucketName::parse(name)?),
        None => None,
    };
    let total = store.rewrap_all(bucket.as_ref(), args.rate).await?;
    show(&total, args.json)?;
    Ok(match total.refused.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// A store, and root's signature for it.
struct Store {
    client: HttpClient,
    base: String,
    signer: Signer,
}

impl Store {
    fn of(args: &KmsRewrapArgs) -> Result<Self> {
        let flag = FlagValue {
            key: "data",
            flag: "--data",
            values: args.data.iter().cloned().collect(),
        };
        let config = Config::load(args.file.config.as_deref(), vec![flag])?;
        let base = match &args.store {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => local(config.store.listen).to_string(),
        };
        let credentials = match Credentials::from_env(&|name| std::env::var(name).ok())? {
            Some(credentials) => credentials,
            None => Credentials::from_file(&config.store.root_credentials)?,
        };
        let ca = args
            .ca
            .clone()
            .or_else(|| Some(config.data.ca_certificate()).filter(|path| path.exists()));
        let tls = ClientTls::load(ClientTlsConfig {
            roots: Roots {
                system: ca.is_none(),
                files: ca.into_iter().collect(),
                pem: Vec::new(),
            },
            ..ClientTlsConfig::default()
        })?;
        let credentials = moat_s3::sigv4::Credentials {
            access_key_id: credentials.user,
            secret_access_key: credentials.password,
            session_token: None,
        };
        Ok(Self {
            client: HttpClient::new(ClientConfig {
                tls: Some(tls),
                response_timeout: Some(RESPONSE_TIMEOUT),
                ..ClientConfig::default()
            }),
            signer: Signer::new(credentials, &config.store.region, "s3"),
            base,
        })
    }

    async fn rewrap_all(&self, bucket: Option<&BucketName>, rate: u32) -> Result<Total> {
        let shows = std::io::stderr().is_terminal();
        let mut total = Total::default();
        let mut from: Option<String> = None;
        let mut turn = Instant::now();
        let size = PAGE_EPOCHS.min(rate);
        loop {
            sleep_until(turn).await;
            turn = Instant::now() + Duration::from_secs(1) * size / rate;
            let page = self
                .page(bucket, from.as_deref(), size)
                .await
                .with_context(|| {
                    format!(
                        "stopped after {} epochs; run it again to go on",
                        total.examined
                    )
                })?;
            total.examined += page.examined;
            total.rewrapped += page.rewrapped;
            total.refused.extend(page.refused);
            total.versions.extend(page.versions);
            if shows {
                let text = format!("\r{} epochs, {} rewrapped", total.examined, total.rewrapped);
                // Progress that can't be shown is no reason to stop.
                let _ = std::io::stderr().lock().write_all(text.as_bytes());
            }
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        if shows {
            let _ = std::io::stderr().lock().write_all(b"\n");
        }
        Ok(total)
    }

    async fn page(
        &self,
        bucket: Option<&BucketName>,
        from: Option<&str>,
        limit: u32,
    ) -> Result<Page> {
        let mut query = format!("limit={limit}");
        if let Some(bucket) = bucket {
            query = format!("bucket={bucket}&{query}");
        }
        if let Some(from) = from {
            query = format!("from={from}&{query}");
        }
        let uri: Uri = format!("{}/minio/moat/v1/rewrap?{query}", self.base)
            .parse()
            .context("the store's address")?;
        let mut headers = HeaderMap::new();
        let payload = PayloadHash::Sha256(EMPTY_SHA256);
        self.signer.sign(
            &Method::POST,
            &uri,
            &mut headers,
            payload,
            SystemClock.now(),
        )?;
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let answer = self.client.request(request).await.map_err(|error| {
            anyhow::anyhow!("the store at {} does not answer: {error}", self.base)
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let body =
            body.map_err(|error| anyhow::anyhow!("the store's answer broke off: {error}"))?;
        let body = body.to_bytes();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            let message = text
                .split_once("<Message>")
                .and_then(|(_, rest)| rest.split_once("</Message>"))
                .map_or_else(|| status.to_string(), |(message, _)| message.to_owned());
            bail!("the store refused: {message}");
        }
        serde_json::from_slice(&body).context("the store's answer is not understood")
    }
}

fn show(total: &Total, as_json: bool) -> Result<()> {
    if as_json {
        return print::json(&json!({
            "examined": total.examined, "rewrapped": total.rewrapped, "refused": total.refused,
            "versions": total.versions,
        }));
    }
    let mut text = format!(
        "{} epochs looked at, {} wrapped anew\n",
        total.examined, total.rewrapped
    );
    for (key, version) in &total.versions {
        text.push_str(&format!(
            "{key}: all that was asked for is under version {version}\n"
        ));
    }
    for refused in &total.refused {
        text.push_str(&format!(
            "{} stays under {}@{}: {}\n",
            refused.bucket, refused.key, refused.version, refused.reason
        ));
    }
    print::out(&text)
}
