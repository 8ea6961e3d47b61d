//! Handing the audit on: to standard output, a file, or a web hook, as it grows.
//!
//! The audit's own files are the buffer: an exporter remembers the number of the last line that was
//! taken, reads on from there, and holds one batch in memory. So a receiver that is away for a day
//! costs no memory and no line, a restart goes on where it was, and a slow receiver holds up
//! nobody. Each line is delivered at least once, in order, as it stands in the audit, chain and all:
//! a receiver that gets one twice sees it by its number.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::BodyExt;
use moat_net::tls::{ClientTls, ClientTlsConfig, Roots, Versions};
use moat_net::{Body, ClientConfig, HttpClient};
use moat_types::SecretString;
use tokio::sync::watch;

use super::{AuditError, Filter, after};

/// Where lines go.
#[derive(Clone, Debug)]
pub enum ExportTarget {
    /// Standard output of the server.
    Stdout,
    /// The end of a file, which is opened for each batch: it may be moved away at any time.
    File(PathBuf),
    /// A POST for each batch, newline-delimited JSON; an answer of 2xx takes it.
    Webhook {
        /// `http://` or `https://`.
        url: Uri,
        /// Who vouches for its certificate.
        roots: Roots,
        /// For the header `Authorization: Bearer ...`.
        token: Option<SecretString>,
    },
}

impl ExportTarget {
    /// What tells one target from another, also after a restart.
    fn name(&self) -> String {
        match self {
            Self::Stdout => "stdout".into(),
            Self::File(path) => format!("file:{}", path.display()),
            Self::Webhook { url, .. } => url.to_string(),
        }
    }
}

/// Lines of one batch: a quarter of a megabyte.
const BATCH_LINES: usize = 500;
/// What a receiver may take to answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pauses between attempts at the same batch: the first one, doubled up to the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Http(#[from] moat_net::ClientError),
    #[error("it answered with status {0}")]
    Status(http::StatusCode),
    #[error("it did not answer in time")]
    Timeout,
    #[error("the request could not be made: {0}")]
    Request(#[from] http::Error),
}

/// Hands the lines of an audit on to one target.
pub(crate) struct Exporter {
    folder: PathBuf,
    /// The file with the number of the last line that was taken.
    cursor: PathBuf,
    target: ExportTarget,
    http: Option<HttpClient>,
    pause_first: Duration,
}

impl Exporter {
    /// An exporter of the audit in `folder`.
    ///
    /// # Errors
    /// If the roots of a web hook can't be loaded.
    pub(crate) fn new(folder: &Path, target: ExportTarget) -> Result<Self, moat_net::Error> {
        let name = target.name();
        let hash = hex::encode(&digest(&SHA256, name.as_bytes()).as_ref()[..8]);
        let http = match &target {
            ExportTarget::Webhook { roots, .. } => Some(HttpClient::new(ClientConfig {
                tls: Some(ClientTls::load(ClientTlsConfig {
                    roots: roots.clone(),
                    identity: None,
                    insecure: false,
                    versions: Versions::default(),
                })?),
                response_timeout: Some(RESPONSE_TIMEOUT),
                ..ClientConfig::default()
            })),
            ExportTarget::Stdout | ExportTarget::File(_) => None,
        };
        Ok(Self {
            folder: folder.to_owned(),
            cursor: folder.join(format!("export-{hash}.cursor")),
            target,
            http,
            pause_first: PAUSE_FIRST,
        })
    }

    /// Hands on what there is and what comes, until the audit is closed. What is there then is
    /// tried once more; the rest waits for the next start.
    pub(crate) async fn run(self, mut heads: watch::Receiver<u64>) {
        let name = self.target.name();
        let mut pause = self.pause_first;
        let mut closed = false;
        loop {
            heads.borrow_and_update();
            match self.deliver_all(&mut heads).await {
                Ok(()) => {
                    pause = self.pause_first;
                    if closed || heads.changed().await.is_err() {
                        if closed {
                            return;
                        }
                        closed = true;
                    }
                }
                Err(_) if closed => return,
                Err(error) => {
                    metrics::counter!("moat_kms_audit_export_failures_total", "target" => name.clone())
                        .increment(1);
                    tracing::warn!(target = %name, %error, pause = ?pause, "audit lines were not taken; they are sent again");
                    closed = tokio::time::timeout(pause, until_closed(&mut heads))
                        .await
                        .is_ok();
                    pause = (pause * 2).min(PAUSE_LONGEST);
                }
            }
        }
    }

    /// Hands on batch after batch until there is no further line.
    async fn deliver_all(&self, heads: &mut watch::Receiver<u64>) -> Result<(), ExportError> {
        let mut last = self.read_cursor();
        loop {
            let folder = self.folder.clone();
            let read = move || {
                let filter = Filter {
                    all_kinds: true,
                    ..Filter::default()
                };
                after(&folder, &filter, last, BATCH_LINES)
            };
            let found = tokio::task::spawn_blocking(read).await;
            let found = found.map_err(|_| AuditError::Closed)??;
            let lag = heads.borrow().saturating_sub(found.last_seq);
            metrics::gauge!("moat_kms_audit_export_lag_lines", "target" => self.target.name())
                .set(lag as f64);
            if found.lines.is_empty() {
                return Ok(());
            }
            let mut text = Vec::with_capacity(found.lines.len() * 640);
            for line in &found.lines {
                serde_json::to_writer(&mut text, line)
                    .expect("a line of texts and numbers is JSON");
                text.push(b'\n');
            }
            self.deliver(text.into()).await?;
            last = found.last_seq;
            self.write_cursor(last)?;
        }
    }

    async fn deliver(&self, text: Bytes) -> Result<(), ExportError> {
        match &self.target {
            ExportTarget::Stdout => {
                let written = tokio::task::spawn_blocking(move || {
                    let mut stdout = std::io::stdout().lock();
                    stdout.write_all(&text).and_then(|()| stdout.flush())
                });
                file_result(Path::new("standard output"), written.await)
            }
            ExportTarget::File(path) => {
                let opened = path.clone();
                let written = tokio::task::spawn_blocking(move || append(&opened, &text));
                file_result(path, written.await)
            }
            ExportTarget::Webhook { url, token, .. } => {
                let http = self.http.as_ref().expect("web hooks have a client");
                post(http, url, token.as_ref(), text).await
            }
        }
    }

    /// The number of the last line that was taken. Without one everything is handed on.
    fn read_cursor(&self) -> u64 {
        let text = std::fs::read_to_string(&self.cursor).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    fn write_cursor(&self, seq: u64) -> Result<(), ExportError> {
        let beside = self.cursor.with_extension("new");
        // Not synced: after a power cut some lines come twice, which receivers must stand anyway.
        std::fs::write(&beside, format!("{seq}\n"))
            .and_then(|()| std::fs::rename(&beside, &self.cursor))
            .map_err(|source| ExportError::File {
                path: self.cursor.clone(),
                source,
            })
    }
}

async fn until_closed(heads: &mut watch::Receiver<u64>) {
    while heads.changed().await.is_ok() {}
}

fn append(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    file.sync_data()
}

fn file_result(
    path: &Path,
    written: Result<std::io::Result<()>, tokio::task::JoinError>,
) -> Result<(), ExportError> {
    let written = written.map_err(|_| AuditError::Closed)?;
    written.map_err(|source| ExportError::File {
        path: path.to_owned(),
        source,
    })
}

async fn post(
    http: &HttpClient,
    url: &Uri,
    token: Option<&SecretString>,
    text: Bytes,
) -> Result<(), ExportError> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(url.clone())
        .header(header::CONTENT_TYPE, "application/x-ndjson");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
    }
    let answer = http.request(request.body(Body::full(text))?).await?;
    let status = answer.status();
    // Read to its end, so that the connection can be used again; what it says does not matter.
    let body = http_body_util::Limited::new(answer.into_body(), 64 << 10).collect();
    let _ = tokio::time::timeout(RESPONSE_TIMEOUT, body)
        .await
        .map_err(|_| ExportError::Timeout)?;
    if status.is_success() {
        Ok(())
    } else {
        Err(ExportError::Status(status))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::net::TcpListener;
    use std::sync::Arc;

    use moat_types::SystemClock;

    use super::super::{Asked, AuditConfig, AuditLog, CheckpointSigner, Facts, Outcome};
    use super::*;

    fn log(folder: &Path) -> AuditLog {
        let signer = CheckpointSigner::from_seed(&[1; 32]).unwrap();
        let config = AuditConfig {
            // Several files, so that an exporter has to go from one to the next.
            file_bytes_max: 4096,
            ..AuditConfig::new(folder)
        };
        AuditLog::open(config, signer, Arc::new(SystemClock), None).unwrap()
    }

    fn facts(number: usize) -> Facts {
        let asked = Asked {
            time: moat_types::UnixMillis(0),
            request_id: number.to_string().into(),
            identity: None,
            source: "".into(),
            enclave: None,
            operation: "KEY:LIST",
        };
        Facts {
            outcome: Outcome::Allowed,
            ..Facts::new(Arc::new(asked))
        }
    }

    fn written(folder: &Path) -> String {
        let files = super::super::files::list(folder).unwrap();
        let texts = files
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap());
        texts.collect()
    }

    #[tokio::test]
    async fn a_file_gets_each_line_once_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let (audit, out) = (folder.path().join("audit"), folder.path().join("out"));
        for round in 0..2 {
            let log = log(&audit);
            let target = ExportTarget::File(out.clone());
            let exporter = Exporter::new(&audit, target).unwrap();
            let running = tokio::spawn(exporter.run(log.heads()));
            for number in 0..20 {
                log.commit(&facts(round * 20 + number)).await.unwrap();
            }
            log.close().await.unwrap();
            drop(log);
            running.await.unwrap();
        }
        assert_eq!(std::fs::read_to_string(&out).unwrap(), written(&audit));
    }

    /// Answers one connection after the other with these statuses; what came with a good one is
    /// sent on.
    fn receiver(statuses: Vec<u16>) -> (Uri, std::sync::mpsc::Receiver<(String, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/audit", listener.local_addr().unwrap());
        let (sender, taken) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut statuses = statuses.into_iter();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if line.trim().is_empty() {
                        break;
                    }
                    let lower = line.to_ascii_lowercase();
                    if let Some(number) = lower.strip_prefix("content-length:") {
                        length = number.trim().parse().unwrap();
                    }
                    head.push_str(&lower);
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let status = statuses.next().unwrap_or(204);
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
                if (200..300).contains(&status) {
                    let body = String::from_utf8(body).unwrap();
                    if sender.send((head, body)).is_err() {
                        return;
                    }
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (url.parse().unwrap(), taken)
    }

    #[tokio::test]
    async fn a_web_hook_that_fails_gets_the_same_lines_again() {
        let folder = tempfile::tempdir().unwrap();
        let (url, taken) = receiver(vec![503, 500, 200]);
        let log = log(folder.path());
        for number in 0..(BATCH_LINES + 10) {
            log.note(&facts(number)).await.unwrap();
        }
        log.commit(&facts(0)).await.unwrap();
        let target = ExportTarget::Webhook {
            url,
            roots: Roots::default(),
            token: Some(SecretString::new("t0ken".into())),
        };
        let mut exporter = Exporter::new(folder.path(), target).unwrap();
        exporter.pause_first = Duration::from_millis(1);
        let running = tokio::spawn(exporter.run(log.heads()));
        let mut all = String::new();
        let mut heads = Vec::new();
        let last = *log.heads().borrow();
        let mut taken = taken;
        while !all.contains(&format!("\"seq\":{last},")) {
            let (receiver, next) = tokio::task::spawn_blocking(move || {
                let next = taken.recv_timeout(Duration::from_secs(20)).unwrap();
                (taken, next)
            })
            .await
            .unwrap();
            taken = receiver;
            heads.push(next.0);
            all.push_str(&next.1);
        }
        assert_eq!(all, written(folder.path()));
        assert!(heads[0].starts_with("post /audit "), "{}", heads[0]);
        assert!(heads[0].contains("authorization: bearer t0ken"));
        assert!(heads.len() >= 2);
        log.close().await.unwrap();
        drop(log);
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_receiver_that_is_away_does_not_hold_up_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path());
        log.commit(&facts(0)).await.unwrap();
        let nowhere = folder.path().join("no/such/folder/out");
        let exporter = Exporter::new(folder.path(), ExportTarget::File(nowhere)).unwrap();
        let running = tokio::spawn(exporter.run(log.heads()));
        log.close().await.unwrap();
        drop(log);
        running.await.unwrap();
    }
}
