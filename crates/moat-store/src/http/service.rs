//! The S3 service: from a request to an answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_net::health::Probe;
use moat_net::{Body, Peer, RequestIds, Service, access_log, health};
use moat_s3::ErrorCode;
use moat_s3::authenticate::Authenticator;
use moat_s3::request::{Address, BaseDomains, CustomerKey, Operation, Query};
use moat_s3::sigv4::RequestParts;
use moat_types::{BucketName, ObjectKey};

use super::admin::REWRAP_PATH;
use super::answer::{Answer, ErrorPage, empty, set_ids};
use super::auth::{RootCredentials, is_secure};
use super::call::Call;
use crate::Store;
use crate::error::{Error, Result};

/// How long a client may take for the next bytes of a body (S3 answers `RequestTimeout` then).
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Paths that monitoring systems read, as MinIO has them.
const METRICS_PATHS: [&str; 4] = [
    "/metrics",
    "/minio/v2/metrics/cluster",
    "/minio/v2/metrics/node",
    "/minio/prometheus/metrics",
];

/// What the service needs to know beside the store.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// The access keys of root.
    pub root: RootCredentials,
    /// Addresses of proxies whose `X-Forwarded-Proto` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// This server's name in answers (`x-amz-id-2`).
    pub host_id: String,
}

/// S3 over a [`Store`].
pub struct S3Service<M, B> {
    pub(super) store: Arc<Store<M, B>>,
    authenticator: Authenticator,
    domains: BaseDomains,
    trusted_proxies: Vec<IpAddr>,
    host_id: String,
    pub(super) body_idle_timeout: Duration,
    request_ids: RequestIds,
}

/// What a request is about.
struct Target<'a> {
    address: Address<'a>,
    query: Query<'a>,
    operation: Operation,
}

impl<M: MetaStore, B: BlobStore> S3Service<M, B> {
    /// A service for `store`.
    pub fn new(store: Arc<Store<M, B>>, config: ServiceConfig) -> Self {
        let region = store.settings.region.clone();
        let domains = BaseDomains::new(&store.settings.domains);
        Self {
            authenticator: config.root.authenticator(region),
            domains,
            trusted_proxies: config.trusted_proxies,
            host_id: config.host_id,
            body_idle_timeout: BODY_IDLE_TIMEOUT,
            request_ids: RequestIds::new(Arc::clone(&store.random)),
            store,
        }
    }

    /// Answers a request about an object, a bucket or the service.
    async fn answer(&self, peer: &Arc<Peer>, request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let id = self.request_ids.next();
        let mut operation = None;
        let (mut parts, body) = request.into_parts();
        let result = if parts.uri.path() == REWRAP_PATH {
            self.rewrap(&parts).await
        } else {
            self.handle(peer, &mut parts, body, &mut operation).await
        };
        let name = operation.map_or("Unknown", Operation::name);
        let mut answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                log_error(&error, &id, name);
                ErrorPage {
                    error: &error,
                    resource: parts.uri.path(),
                    request_id: &id,
                    host_id: &self.host_id,
                    head: parts.method == Method::HEAD,
                }
                .answer()
            }
        };
        set_ids(answer.headers_mut(), &id, &self.host_id);
        count(name, answer.status(), started.elapsed());
        if access_log::enabled() {
            log_access(peer, &parts, &id, &answer, started.elapsed());
        }
        answer
    }

    async fn handle(
        &self,
        peer: &Arc<Peer>,
        parts: &mut Parts,
        body: Body,
        operation: &mut Option<Operation>,
    ) -> Result<Answer> {
        let secure = is_secure(peer, &parts.headers, &self.trusted_proxies);
        let mut target = self.target(parts, secure)?;
        *operation = Some(target.operation);
        let authenticated = self.authenticator.authenticate(
            &RequestParts::new(&parts.method, &parts.uri, &parts.headers),
            target.address.host_bucket(),
            self.store.clock.now(),
        )?;
        if let Some(hoisting) = authenticated.hoisting {
            let query = Query::parse(parts.uri.query().unwrap_or_default())?;
            hoisting.restore(&query, &mut parts.headers);
            // A hoisted header counts as one that was sent, be it a copy source or an SSE-C key.
            target = self.target(parts, secure)?;
            *operation = Some(target.operation);
        }
        let Target { address, query, .. } = &target;
        let call = Call {
            parts,
            query,
            operation: target.operation,
            bucket: address
                .bucket
                .as_deref()
                .map(|name| bucket_name(name, target.operation))
                .transpose()?,
            key: address.key.as_deref().map(object_key).transpose()?,
            secure,
            payload: authenticated.payload,
            chunk_seed: authenticated.chunk_seed,
        };
        self.dispatch(&call, body).await
    }

    /// Checks the signature of a request that is about no bucket.
    pub(super) fn authenticate_root(&self, request: &RequestParts<'_>) -> Result<()> {
        let now = self.store.clock.now();
        self.authenticator
            .authenticate(request, None, now)
            .map(drop)
            .map_err(Error::from)
    }

    /// Finds out what a request is about, and refuses SSE-C keys that came in the clear.
    fn target<'a>(&self, parts: &'a Parts, secure: bool) -> Result<Target<'a>> {
        let request = RequestParts::new(&parts.method, &parts.uri, &parts.headers);
        let address = Address::parse(request.host, request.path, &self.domains)?;
        let query = Query::parse(request.query)?;
        let operation = Operation::resolve(&parts.method, &address, &query, &parts.headers)?;
        if !secure && CustomerKey::is_in(&parts.headers) {
            return Err(CustomerKey::needs_tls().into());
        }
        Ok(Target {
            address,
            query,
            operation,
        })
    }

    async fn dispatch(&self, call: &Call<'_>, body: Body) -> Result<Answer> {
        match call.operation {
            Operation::ListBuckets => self.list_buckets(call).await,
            Operation::CreateBucket => self.create_bucket(call, body).await,
            Operation::HeadBucket => self.head_bucket(call).await,
            Operation::DeleteBucket => self.delete_bucket(call).await,
            Operation::GetBucketLocation => self.bucket_location(call).await,
            Operation::GetBucketVersioning => self.bucket_versioning(call).await,
            Operation::GetBucketEncryption => self.bucket_encryption(call).await,
            Operation::PutBucketEncryption => self.put_bucket_encryption(call, body).await,
            Operation::DeleteBucketEncryption => self.delete_bucket_encryption(call).await,
            Operation::GetBucketAcl => self.bucket_acl(call).await,
            Operation::GetObjectAcl => self.object_acl(call).await,
            Operation::ListObjects => self.list_objects(call).await,
            Operation::ListObjectsV2 => self.list_objects_v2(call).await,
            Operation::ListObjectVersions => self.list_versions(call).await,
            Operation::ListMultipartUploads => self.list_uploads(call).await,
            Operation::DeleteObjects => self.delete_objects(call, body).await,
            Operation::GetObject | Operation::HeadObject => self.get_object(call).await,
            Operation::PutObject => self.put_object(call, body).await,
            Operation::CopyObject => self.copy_object(call).await,
            Operation::DeleteObject => self.delete_object(call).await,
            Operation::CreateMultipartUpload => self.create_upload(call).await,
            Operation::UploadPart => self.upload_part(call, body).await,
            Operation::UploadPartCopy => self.upload_part_copy(call).await,
            Operation::CompleteMultipartUpload => self.complete_upload(call, body).await,
            Operation::AbortMultipartUpload => self.abort_upload(call).await,
            Operation::ListParts => self.list_parts(call).await,
            other => self.absent(call, other).await,
        }
    }

    /// Operations on configurations that no bucket has: reading one says so with the code that
    /// clients look for, anything else is not offered.
    async fn absent(&self, call: &Call<'_>, operation: Operation) -> Result<Answer> {
        let Some(code) = operation.absent_configuration() else {
            let message = format!("{} is not supported.", operation.name());
            return Err(Error::new(ErrorCode::NotImplemented, message));
        };
        self.store.bucket_row(call.bucket()?).await?;
        Err(code.into())
    }

    async fn probe(&self, probe: Probe) -> Response<Body> {
        match probe {
            Probe::Live => health::answer(true),
            Probe::Ready | Probe::Cluster | Probe::ClusterRead => {
                health::answer(self.store.is_ready().await)
            }
        }
    }
}

impl<M: MetaStore, B: BlobStore> Service for S3Service<M, B> {
    async fn call(&self, peer: &Arc<Peer>, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads && let Some(probe) = Probe::of_path(path) {
            return self.probe(probe).await;
        }
        if reads && METRICS_PATHS.contains(&path) {
            return self.metrics(peer, &request);
        }
        self.answer(peer, request).await
    }
}

impl<M: MetaStore, B: BlobStore> S3Service<M, B> {
    /// Metrics name operations and sizes, no object and no key. They are served to this machine
    /// (but not through a proxy on it), and elsewhere to root's signature.
    fn metrics(&self, peer: &Peer, request: &Request<Body>) -> Response<Body> {
        let local = peer.addr.ip().to_canonical().is_loopback()
            && !request.headers().contains_key("x-forwarded-for");
        let signed = RequestParts::new(request.method(), request.uri(), request.headers());
        let now = self.store.clock.now();
        if local || self.authenticator.authenticate(&signed, None, now).is_ok() {
            moat_net::metrics::response()
        } else {
            empty(StatusCode::FORBIDDEN)
        }
    }
}

fn bucket_name(name: &str, operation: Operation) -> Result<BucketName> {
    BucketName::parse(name).map_err(|error| {
        let code = match operation {
            Operation::CreateBucket => ErrorCode::InvalidBucketName,
            // A name that no bucket can have is one that does not exist.
            _ => ErrorCode::NoSuchBucket,
        };
        let prefix = match code {
            ErrorCode::InvalidBucketName => "The specified bucket is not valid",
            _ => "The specified bucket does not exist",
        };
        Error::new(code, format!("{prefix}: the {error}.")).with("BucketName", name)
    })
}

fn object_key(key: &str) -> Result<ObjectKey> {
    ObjectKey::parse(key).map_err(|_| {
        Error::from(ErrorCode::KeyTooLong)
            .with("Size", key.len().to_string())
            .with("MaxSizeAllowed", ObjectKey::BYTES_MAX.to_string())
    })
}

fn log_error(error: &Error, request_id: &str, operation: &'static str) {
    let code = error.code();
    if code.status().is_server_error() || code == ErrorCode::ObjectDamaged {
        tracing::error!(request_id, operation, code = %code, cause = %error.cause, "request failed");
    } else {
        tracing::debug!(request_id, operation, code = %code, cause = %error.cause, "request refused");
    }
}

fn count(operation: &'static str, status: StatusCode, elapsed: Duration) {
    let class = match status.as_u16() {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    metrics::counter!("moat_s3_requests_total", "api" => operation, "status" => class).increment(1);
    metrics::histogram!("moat_s3_request_seconds", "api" => operation)
        .record(elapsed.as_secs_f64());
}

fn log_access(peer: &Peer, parts: &Parts, id: &str, answer: &Answer, elapsed: Duration) {
    let length = |headers: &http::HeaderMap| {
        let value = headers.get(http::header::CONTENT_LENGTH);
        value
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    access_log::Access {
        request_id: id,
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        status: answer.status(),
        bytes_in: length(&parts.headers),
        bytes_out: length(answer.headers()),
        duration: elapsed,
    }
    .log(peer);
}
