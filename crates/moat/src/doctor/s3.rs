//! What the doctor asks of S3 itself: do the credentials fit, does the region, and will a bucket's
//! encryption work with the clients at hand.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use moat_s3::sigv4::{Credentials, PayloadHash, Signer};
use moat_s3::uri::{Slash, encode};
use moat_types::{Clock, SecretString, SystemClock};

use super::report::Report;
use super::{advice, wire};
use crate::cli::DoctorArgs;
use crate::endpoint::Endpoint;

const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CHECK: &str = "s3";

/// The credentials of `--credentials`, else of the environment.
pub(crate) fn credentials(file: Option<&Path>) -> Result<Option<Credentials>> {
    if let Some(path) = file {
        let found = crate::credentials::Credentials::from_file(path)?;
        return Ok(Some(Credentials {
            access_key_id: found.user,
            secret_access_key: found.password,
            session_token: None,
        }));
    }
    let env = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let Some(access_key_id) = env("AWS_ACCESS_KEY_ID") else {
        return Ok(None);
    };
    let secret = env("AWS_SECRET_ACCESS_KEY")
        .context("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not")?;
    Ok(Some(Credentials {
        access_key_id,
        secret_access_key: SecretString::new(secret),
        session_token: env("AWS_SESSION_TOKEN"),
    }))
}

/// The region of `--region`, else of the environment, else the one that S3 takes for none.
pub(crate) fn region(given: Option<&str>) -> String {
    let env = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    given
        .map(str::to_owned)
        .or_else(|| env("AWS_REGION"))
        .or_else(|| env("AWS_DEFAULT_REGION"))
        .unwrap_or_else(|| "us-east-1".to_owned())
}

/// `, Code: message` of an S3 error document; empty if the body is none.
pub(crate) fn error_text(body: &[u8]) -> String {
    match (element(body, "Code"), element(body, "Message")) {
        (Some(code), Some(message)) => format!(", {code}: {message}"),
        (Some(code), None) => format!(", {code}"),
        _ => String::new(),
    }
}

/// Signed requests to one endpoint.
pub(crate) struct Probe<'a> {
    endpoint: &'a Endpoint,
    address: SocketAddr,
    access_key_id: String,
    signer: Signer,
    region: String,
    args: &'a DoctorArgs,
}

impl<'a> Probe<'a> {
    pub(crate) fn new(
        endpoint: &'a Endpoint,
        address: SocketAddr,
        credentials: Credentials,
        region: &str,
        args: &'a DoctorArgs,
    ) -> Self {
        Self {
            endpoint,
            address,
            access_key_id: credentials.access_key_id.clone(),
            signer: Signer::new(credentials, region, "s3"),
            region: region.to_owned(),
            args,
        }
    }

    /// Lists buckets, then looks into the one that was named.
    pub(crate) async fn run(&self, report: &mut Report) {
        let Some(answer) = self.ask(Method::GET, "/", report).await else {
            return;
        };
        if answer.status() == StatusCode::OK {
            report.fine(
                CHECK,
                format!(
                    "the access key {} and its secret are accepted",
                    self.access_key_id
                ),
            );
        } else if !self.explain(&answer, report) {
            return;
        }
        if let Some(bucket) = &self.args.bucket {
            self.look_into(bucket, report).await;
        }
    }

    async fn look_into(&self, bucket: &str, report: &mut Report) {
        let name = encode(bucket.as_bytes(), Slash::Encode);
        let list = format!("/{name}?list-type=2&max-keys=1");
        let Some(answer) = self.ask(Method::GET, &list, report).await else {
            return;
        };
        if answer.status() != StatusCode::OK {
            self.explain(&answer, report);
            return;
        }
        report.fine("bucket", format!("the bucket {bucket} can be listed"));
        let rule = self.default_encryption(&name, report).await;
        let Some(key) = element(answer.body(), "Key") else {
            report.note(
                "bucket",
                format!("the bucket {bucket} is empty, so no object could be looked at"),
                Vec::new(),
            );
            return;
        };
        self.look_at(&name, &unescape(&key), rule.as_deref(), report)
            .await;
    }

    /// The algorithm of the bucket's rule, if it can be read.
    async fn default_encryption(&self, bucket: &str, report: &mut Report) -> Option<String> {
        let answer = self
            .ask(Method::GET, &format!("/{bucket}?encryption="), report)
            .await?;
        let algorithm = element(answer.body(), "SSEAlgorithm")?;
        let key = element(answer.body(), "KMSMasterKeyID")
            .map_or(String::new(), |key| format!(" with the key {key}"));
        report.fine(
            "encryption",
            format!("the bucket's default encryption is {algorithm}{key}"),
        );
        Some(algorithm)
    }

    /// HEADs an object, which is what Spark does before a rename.
    async fn look_at(&self, bucket: &str, key: &str, rule: Option<&str>, report: &mut Report) {
        let path = format!("/{bucket}/{}", encode(key.as_bytes(), Slash::Keep));
        let Some(answer) = self.ask(Method::HEAD, &path, report).await else {
            return;
        };
        if !answer.status().is_success() {
            report.problem(
                "object",
                format!("HEAD of the object {key} answers {}", answer.status()),
                vec!["If its KMS key is disabled or the key manager is down, a GET says so: the body names the key.".into()],
            );
            return;
        }
        let names_key = answer.headers().contains_key(KEY_ID);
        if self.endpoint.tls || rule != Some("aws:kms") && !names_key {
            return;
        }
        if names_key {
            report.problem(
                "plain-http-kms",
                "HEAD answers on this plain http endpoint name the object's KMS key: Spark 3.x fails at its first rename",
                advice::plain_http_sdk_v1(),
            );
        } else {
            report.fine(
                "plain-http-kms",
                "HEAD answers leave out the KMS key: Spark 3.x can rename on this endpoint",
            );
        }
    }

    /// Sends a signed request. That no answer came is reported here.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        report: &mut Report,
    ) -> Option<Response<Bytes>> {
        match self.send(method, path).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                report.problem(
                    CHECK,
                    format!("{path} got no answer: {error:#}"),
                    Vec::new(),
                );
                None
            }
        }
    }

    async fn send(&self, method: Method, path: &str) -> Result<Response<Bytes>> {
        let uri: Uri = format!("{}{path}", self.endpoint).parse()?;
        let mut headers = HeaderMap::new();
        let payload = PayloadHash::Sha256(moat_s3::sigv4::EMPTY_SHA256);
        self.signer
            .sign(&method, &uri, &mut headers, payload, SystemClock.now())?;
        let mut pairs = Vec::with_capacity(headers.len());
        for (name, value) in &headers {
            pairs.push((name.as_str().to_owned(), value.to_str()?.to_owned()));
        }
        wire::send(self.endpoint, self.address, method, path, &pairs)
            .await
            .map_err(|failure| anyhow::anyhow!("{failure}"))
    }

    /// Says what an error means; whether it makes sense to go on.
    fn explain(&self, answer: &Response<Bytes>, report: &mut Report) -> bool {
        let code = element(answer.body(), "Code").unwrap_or_else(|| answer.status().to_string());
        let said = error_text(answer.body());
        match code.as_str() {
            "AccessDenied" => {
                report.note(
                    CHECK,
                    format!("the access key {} is accepted, but may not do this{said}", self.access_key_id),
                    vec!["A policy of the user, the access key or the bucket denies it, or does not allow it.".into()],
                );
                return true;
            }
            "InvalidAccessKeyId" => report.problem(
                CHECK,
                format!("the server does not know the access key {}", self.access_key_id),
                vec!["Check AWS_ACCESS_KEY_ID or the credentials file, and that this is the right server.".into()],
            ),
            "SignatureDoesNotMatch" => report.problem(
                CHECK,
                format!("the secret does not belong to the access key {}", self.access_key_id),
                vec![
                    "Check the secret (white space at its end, a shell that ate a $ or a +).".into(),
                    "If the secret is right, something between here and the server changes requests: a proxy that".into(),
                    "rewrites the Host header or the path breaks every signature.".into(),
                ],
            ),
            "RequestTimeTooSkewed" => report.problem(
                CHECK,
                "the server refuses the request because the clocks differ by more than 15 minutes".to_owned(),
                vec!["Synchronise both machines with the same time service (timedatectl set-ntp true).".into()],
            ),
            "AuthorizationHeaderMalformed" => self.explain_region(answer, &said, report),
            "NoSuchBucket" => report.problem(CHECK, format!("the bucket does not exist{said}"), Vec::new()),
            _ if code.starts_with("kms:") || code.starts_with("KMS.") => report.problem(
                CHECK,
                format!("the key manager refuses or can't be reached{said}"),
                vec!["moat kms status and moat kms key info NAME, on the server's machine, say which.".into()],
            ),
            _ => report.problem(CHECK, format!("the server answers {}{said}", answer.status()), Vec::new()),
        }
        false
    }

    fn explain_region(&self, answer: &Response<Bytes>, said: &str, report: &mut Report) {
        let region = element(answer.body(), "Region").or_else(|| {
            let header = answer.headers().get("x-amz-bucket-region")?;
            header.to_str().ok().map(str::to_owned)
        });
        let fix = region.map_or_else(
            || "Give the server's region with --region, and set it in the client.".to_owned(),
            |region| {
                format!("Sign for {region}: AWS_REGION={region}, fs.s3a.endpoint.region={region}.")
            },
        );
        report.problem(
            CHECK,
            format!("the server refuses the region {}{said}", self.region),
            vec![fix],
        );
    }
}

/// The text of the first element of this name. The answers come from any server; a full parser
/// would add nothing, since only simple elements are looked for.
fn element(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let start = text.find(&format!("<{name}>"))? + name.len() + 2;
    let len = text[start..].find(&format!("</{name}>"))?;
    Some(text[start..start + len].to_owned())
}

fn unescape(text: &str) -> String {
    // The ampersand last, or an escaped escape would be undone twice.
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_documents_are_read() {
        let body = b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>No.</Message></Error>";
        assert_eq!(error_text(body), ", AccessDenied: No.");
        assert_eq!(error_text(b"<html>"), "");
        assert_eq!(error_text(&[0xff]), "");
    }

    #[test]
    fn keys_are_unescaped_once() {
        assert_eq!(unescape("a&amp;lt;b&lt;c"), "a&lt;b<c");
    }
}
