//! Keys from an STS: AssumeRoleWithWebIdentity (AWS STS API reference; MinIO speaks it, too).

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};
use moat_net::{Body, Endpoint, HttpClient};
use moat_s3::sigv4::Credentials;
use moat_s3::uri::{Slash, encode};
use moat_s3::xml::read_sts_credentials;
use moat_types::{Clock, UnixMillis};

use super::Current;

/// The first wait after a failure; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Old keys are usually still good, so there is no hurry that would burden an STS in trouble.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Used where the answer says nothing about the end: STS gives an hour.
const LIFE_DEFAULT: Duration = Duration::from_secs(3600);
/// New keys are asked for when this share of the old one's life is left.
const RENEW_AT_LEFT: u32 = 4;
/// The shortest wait between two questions, whatever the life of the keys.
const RENEW_MIN: Duration = Duration::from_secs(5);
/// How long an STS may take; it is asked long before the keys end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// An answer has some two kilobytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How an STS is asked.
pub struct WebIdentity {
    /// The file with the token, read for each question.
    pub token_file: PathBuf,
    /// The role to take on; some stores know only one and need none.
    pub role_arn: Option<String>,
    /// The session's name in the logs of the STS.
    pub session_name: String,
    /// Where it answers.
    pub endpoint: Endpoint,
    /// How it is reached.
    pub client: HttpClient,
}

impl std::fmt::Debug for WebIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "WebIdentity({} at {})",
            self.token_file.display(),
            self.endpoint
        )
    }
}

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
enum StsError {
    #[error("the token file {0} can't be read: {1}")]
    Token(PathBuf, std::io::Error),
    #[error("the sts can't be asked: {0}")]
    Unreachable(#[from] moat_net::ClientError),
    #[error("the sts does not answer in time")]
    Timeout,
    #[error("the sts's answer broke off")]
    Broken,
    #[error("the sts refuses with status {0}{1}")]
    Refused(http::StatusCode, String),
    #[error("the sts's answer is not understood")]
    NotUnderstood,
}

impl WebIdentity {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.token_file == other.token_file
            && self.role_arn == other.role_arn
            && self.session_name == other.session_name
            && self.endpoint == other.endpoint
    }

    /// Asks again and again, before the keys end.
    pub(super) async fn keep_fresh(&self, current: &Current, clock: &dyn Clock) {
        let mut retry = RETRY_MIN;
        loop {
            let wait = match self.ask().await {
                Ok((keys, end)) => {
                    current.replace(&keys);
                    retry = RETRY_MIN;
                    renew_after(clock.now(), end)
                }
                Err(error) => {
                    tracing::warn!(store = current.store, %error, "no keys from the sts");
                    let wait = retry;
                    retry = (retry * 2).min(RETRY_MAX);
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn ask(&self) -> Result<(Credentials, Option<UnixMillis>), StsError> {
        let read = tokio::fs::read_to_string(&self.token_file).await;
        let token = read.map_err(|error| StsError::Token(self.token_file.clone(), error))?;
        let form = self.form(token.trim());
        let mut request = Request::new(Body::full(Bytes::from(form)));
        *request.method_mut() = Method::POST;
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form_type);
        let exchange = async {
            let response = self.client.send(&self.endpoint, request).await?;
            let (head, body) = response.into_parts();
            let whole = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let bytes = whole.map_err(|_| StsError::Broken)?.to_bytes();
            Ok::<_, StsError>((head.status, bytes))
        };
        let (status, bytes) = tokio::time::timeout(ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|_| StsError::Timeout)??;
        if !status.is_success() {
            return Err(StsError::Refused(status, code_in(&bytes)));
        }
        let found = read_sts_credentials(&bytes).map_err(|_| StsError::NotUnderstood)?;
        Ok((found.credentials, found.expiration))
    }

    fn form(&self, token: &str) -> String {
        let mut form = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15".to_owned();
        let fields = [
            ("RoleArn", self.role_arn.as_deref()),
            ("RoleSessionName", Some(&*self.session_name)),
            ("WebIdentityToken", Some(token)),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                form.push('&');
                form.push_str(name);
                form.push('=');
                form.push_str(&encode(value.as_bytes(), Slash::Encode));
            }
        }
        form
    }
}

/// The code of an error document, for the log.
fn code_in(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map_or_else(String::new, |(code, _)| format!(" ({})", code.trim()))
}

fn renew_after(now: UnixMillis, end: Option<UnixMillis>) -> Duration {
    let left = end.map_or(LIFE_DEFAULT, |end| {
        Duration::from_millis(u64::try_from(end.0 - now.0).unwrap_or(0))
    });
    (left - left / RENEW_AT_LEFT).max(RENEW_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_renewed_before_their_end_and_not_in_a_loop() {
        let now = UnixMillis(1_000_000);
        let after = |seconds: i64| renew_after(now, Some(UnixMillis(now.0 + seconds * 1000)));
        assert_eq!(after(3600), Duration::from_secs(2700));
        assert_eq!(after(4), RENEW_MIN);
        assert_eq!(after(-60), RENEW_MIN);
        assert_eq!(renew_after(now, None), Duration::from_secs(2700));
    }
}
