//! The gateway: ends the client's signature, decides, and signs anew for the store.
//!
//! A request is *admitted* once ([`Gateway::admit`]): who signed it, where its bucket is, what the
//! rule for new objects adds, whether a policy allows it. What comes out is a head in the words of the
//! store and a [`Plan`]. For each attempt to send it, the plan signs it for that endpoint and has the
//! body framed as the endpoint wants it ([`plan`]). A request that is refused never reaches a store; a
//! body that turns out to be wrong is cut before its end, so that the store commits nothing.

mod access;
mod caller;
mod config;
mod encryption;
mod keys;
mod known;
mod listing;
mod names;
mod payload;
mod plan;
mod routes;
mod words;

use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use moat_net::{Body, Peer, access_log};
use moat_s3::authenticate::{Account, Authenticated, Authenticator, Refused};
use moat_s3::request::{Address, BaseDomains, CopySource, Operation, Query};
use moat_s3::sigv4::RequestParts;
use moat_s3::{ErrorCode, S3Error};
use moat_types::SecretString;

pub(crate) use caller::Caller;
pub use config::{BucketRoute, GatewayConfig, GatewayError, SignBody, Store, User};
pub use encryption::{Encryption, EncryptionRule, Require};
pub use keys::{KeySource, ReadKeys, WebIdentity};
pub(crate) use listing::Listing;
pub(crate) use plan::Plan;

use crate::answer::Refusal;
use crate::body::RequestBody;
use crate::config::Config;
use crate::{headers, plain};
use access::Wish;
use keys::Keys;
use listing::{Page, Viewer};
use payload::Payload;
use routes::{Place, Routes};
use words::{Rename, Words};

/// A gateway in use.
pub(crate) struct Gateway {
    config: Arc<GatewayConfig>,
    authenticator: Authenticator,
    domains: BaseDomains,
    routes: Arc<Routes>,
    keys: Vec<Arc<Keys>>,
}

/// A request that may go on.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every request is of the large one, and a box would be an allocation for each"
)]
pub(crate) enum Admitted {
    /// To the store of its bucket; without a gateway there is no plan.
    Request(Option<RequestBody>, Option<Plan>),
    /// To all of them.
    ListBuckets(Box<Listing>),
}

/// What a request is about, in the words of the client.
struct Target {
    operation: Operation,
    bucket: Option<String>,
    key: Option<String>,
    /// Whether the host named the bucket.
    by_host: bool,
}

impl Gateway {
    /// A gateway that has checked its configuration. Must be called inside a tokio runtime.
    pub(crate) fn new(config: &Arc<GatewayConfig>, before: Option<&Self>) -> Self {
        let account = |user: &User| Account {
            access_key_id: user.credentials.access_key_id.clone(),
            secret_access_key: user.credentials.secret_access_key.clone(),
            session_token: user
                .credentials
                .session_token
                .clone()
                .map(SecretString::new),
        };
        let accounts = config.users.iter().map(account).collect();
        let keys = config.stores.iter().enumerate().map(|(index, store)| {
            let before = before.and_then(|before| before.keys.get(index));
            Arc::new(Keys::new(store, before.map(|keys| &**keys), &config.clock))
        });
        Self {
            authenticator: Authenticator::new(accounts, config.client_region.clone()),
            domains: BaseDomains::new(&config.domains),
            routes: Arc::new(Routes::new(&config.buckets)),
            keys: keys.collect(),
            config: Arc::clone(config),
        }
    }

    /// Decides about a request, which was signed with the headers `signed`. Its head is then one for the
    /// store, but for the signature.
    pub(crate) async fn admit(
        &self,
        settings: &Config,
        peer: &Peer,
        signed: &HeaderMap,
        head: &mut Parts,
        body: Body,
    ) -> Result<Admitted, Refusal> {
        let admitted = self.decide(settings, peer, signed, head, body).await;
        admitted.map_err(|refused| {
            let code = refused.error.code.as_str();
            metrics::counter!("moat_gateway_refused_total", "code" => code).increment(1);
            Refusal::Denied(Box::new(refused))
        })
    }

    async fn decide(
        &self,
        settings: &Config,
        peer: &Peer,
        signed: &HeaderMap,
        head: &mut Parts,
        body: Body,
    ) -> Result<Admitted, Refused> {
        let mut target = self.target(head)?;
        let proven = self.authenticate(head, signed, &target)?;
        if access_log::enabled() {
            let bucket = target.bucket.as_deref();
            let caller = Caller::new(&self.config, proven.account, bucket);
            head.extensions.insert(caller);
        }
        if let Some(hoisting) = proven.hoisting {
            let query = head.uri.query().unwrap_or_default().to_owned();
            hoisting.restore(&Query::parse(&query)?, &mut head.headers);
            // A hoisted header counts as one that was sent, be it a copy source or an SSE-C key.
            target = self.target(head)?;
        }
        if !peer.tls && plain::carries_customer_key(&head.headers) {
            return Err(moat_s3::request::CustomerKey::needs_tls().into());
        }
        check_offered(target.operation)?;
        known::check_headers(target.operation, &head.headers)?;
        let place = self.routes.find(target.bucket.as_deref())?;
        if let Some(caller) = head.extensions.get_mut::<Caller>() {
            caller.goes_to(&place);
        }
        if place.bucket != target.bucket {
            check_rename(target.operation)?;
        }
        if let (Some(bucket), Some(key)) = (&target.bucket, &target.key) {
            let rules = &self.config.encryption;
            encryption::apply(rules, target.operation, bucket, key, &mut head.headers)?;
        }
        if let Some(bucket) = &target.bucket {
            encryption::check_change(&self.config.encryption, target.operation, bucket)?;
        }
        let source = self.copy_source(&target, &place, &mut head.headers)?;
        let user = &self.config.users[proven.account];
        let raw_query = head.uri.query().unwrap_or_default();
        let raw_query = routes::query(raw_query, proven.hoisting);
        let raw_query = known::without_extensions(target.operation, &raw_query);
        let query = Query::parse(&raw_query)?;
        known::check_query(target.operation, &query)?;
        let wish = Wish {
            operation: target.operation,
            bucket: target.bucket.as_deref(),
            key: target.key.as_deref(),
            query: &query,
            headers: &head.headers,
            source: source.as_ref(),
            user: &user.name,
            address: headers::client_of(&head.headers, peer),
            secure: head
                .headers
                .get("x-forwarded-proto")
                .is_some_and(|scheme| scheme == "https"),
        };
        if target.operation == Operation::ListBuckets {
            let sees_all = wish.check_list_buckets(&user.policies)?;
            let viewer = Viewer {
                account: proven.account,
                address: wish.address,
                secure: wish.secure,
                sees_all,
            };
            return self.listing(viewer, &query);
        }
        wish.check(&user.policies)?;
        let idle = settings.body_idle_timeout;
        let payload = Payload::new(target.operation, &proven, &head.headers, &body)?;
        let whole = payload
            .collect_if_small(body, target.operation, idle)
            .await?;
        match (target.operation, &whole) {
            (Operation::DeleteObjects, payload::Arrived::Whole(document, _)) => {
                check_deletes(&wish, user, document)?;
            }
            (Operation::RestoreObject, payload::Arrived::Whole(document, _)) => {
                known::check_restore(document)?;
            }
            _ => {}
        }
        let words = self.words(head, &target, &place, source.as_ref());
        rewrite(head, &place, &target, &raw_query)?;
        let (body, payload) = payload.settle(whole, &mut head.headers, idle);
        let plan = self.plan(place.store, target.operation, payload);
        let plan = plan.with_words(words);
        Ok(Admitted::Request(body, Some(plan)))
    }

    fn plan(&self, store: usize, operation: Operation, payload: Payload) -> Plan {
        Plan::new(
            payload,
            operation,
            self.config.sign_body,
            Arc::clone(&self.config.clock),
            Arc::clone(&self.keys[store]),
            &self.config.stores[store],
        )
    }

    fn listing(&self, viewer: Viewer, query: &Query<'_>) -> Result<Admitted, Refused> {
        let page = Page::parse(query)?;
        let ask = |store| self.plan(store, Operation::ListBuckets, Payload::none());
        let listing = Listing::new(&self.config, &self.routes, viewer, page, ask);
        Ok(Admitted::ListBuckets(Box::new(listing)))
    }

    fn target(&self, head: &Parts) -> Result<Target, S3Error> {
        let request = RequestParts::new(&head.method, &head.uri, &head.headers);
        let address = Address::parse(request.host, request.path, &self.domains)?;
        if address.bucket.is_none() && request.path != "/" {
            return Err(ErrorCode::InvalidUri.into());
        }
        if let Some(name) = &address.bucket {
            known::check_bucket(name)?;
        }
        let query = Query::parse(request.query)?;
        if Operation::is_ambiguous(&address, &query) {
            // The policies would be asked about one of them, and the store might do the other.
            return Err(ErrorCode::InvalidRequest.into());
        }
        let operation = Operation::resolve(&head.method, &address, &query, &head.headers)?;
        Ok(Target {
            operation,
            by_host: address.host_bucket().is_some(),
            bucket: address.bucket.map(|name| name.into_owned()),
            key: address.key.map(|key| key.into_owned()),
        })
    }

    fn authenticate(
        &self,
        head: &Parts,
        signed: &HeaderMap,
        target: &Target,
    ) -> Result<Authenticated, Refused> {
        let request = RequestParts::new(&head.method, &head.uri, signed);
        let host_bucket = target.bucket.as_deref().filter(|_| target.by_host);
        let now = self.config.clock.now();
        self.authenticator.authenticate(&request, host_bucket, now)
    }

    /// Reads the source of a copy, and names it as the store does.
    fn copy_source(
        &self,
        target: &Target,
        place: &Place,
        headers: &mut HeaderMap,
    ) -> Result<Option<CopySource>, S3Error> {
        let copies = matches!(
            target.operation,
            Operation::CopyObject | Operation::UploadPartCopy
        );
        if !copies {
            // On another operation it could mean a copy to the store that is none to us.
            return match headers.contains_key("x-amz-copy-source") {
                true => Err(ErrorCode::InvalidRequest.into()),
                false => Ok(None),
            };
        }
        let Some(source) = CopySource::from_headers(headers)? else {
            return Err(ErrorCode::InvalidRequest.into());
        };
        known::check_bucket(&source.bucket)?;
        let there = self.routes.find(Some(&source.bucket))?;
        if there.store != place.store {
            return Err(S3Error::new(
                ErrorCode::NotImplemented,
                "Source and destination are in different stores behind this gateway. Read the object and write it.",
            ));
        }
        let bucket = there.bucket.as_deref().unwrap_or_default();
        let value = routes::copy_source(bucket, &source);
        let value = HeaderValue::from_str(&value).map_err(|_| ErrorCode::InvalidArgument)?;
        headers.insert("x-amz-copy-source", value);
        Ok(Some(source))
    }

    /// The words that the answer must be in, from a head that is still the client's.
    fn words(
        &self,
        head: &Parts,
        target: &Target,
        place: &Place,
        source: Option<&CopySource>,
    ) -> Words {
        let text = |name| {
            let value: Option<&HeaderValue> = head.headers.get(name);
            value.and_then(|value| value.to_str().ok())
        };
        let scheme = text("x-forwarded-proto").unwrap_or_default();
        let host = text("x-forwarded-host").unwrap_or_default();
        let of_source = source.and_then(|source| {
            let there = self.routes.find(Some(&source.bucket)).ok()?;
            Some((there.bucket?, source.bucket.clone()))
        });
        let pairs = [place.bucket.clone().zip(target.bucket.clone()), of_source];
        let renamed = pairs.into_iter().flatten();
        let renamed = renamed.filter(|(upstream, client)| upstream != client);
        let region = &self.config.client_region;
        Words {
            renames: renamed
                .map(|(upstream, client)| Rename::new(&upstream, &client))
                .collect(),
            bucket: target.bucket.clone(),
            origin: format!("{scheme}://{host}"),
            path: head.uri.path().to_owned(),
            region: (!region.is_empty()).then(|| region.clone()),
        }
    }
}

/// Path and query for the store, without what signed the client's request.
fn rewrite(head: &mut Parts, place: &Place, target: &Target, query: &str) -> Result<(), S3Error> {
    head.uri = routes::uri(place.bucket.as_deref(), target.key.as_deref(), query)?;
    for name in [
        AUTHORIZATION.as_str(),
        "x-amz-security-token",
        HOST.as_str(),
    ] {
        head.headers.remove(name);
    }
    Ok(())
}

/// Every key of the document must be one that may be deleted.
fn check_deletes(wish: &Wish<'_>, user: &User, document: &[u8]) -> Result<(), S3Error> {
    for object in moat_s3::xml::read_delete(document)?.objects {
        wish.check_delete(&user.policies, &object.key, object.version_id.is_some())?;
    }
    Ok(())
}

/// What the gateway does not carry, each for its reason.
fn check_offered(operation: Operation) -> Result<(), S3Error> {
    let reason = match operation {
        Operation::PostObject => {
            "Uploads by HTML form (POST) are signed in the form itself, which this gateway does not take. Use a presigned PUT."
        }
        Operation::Sts | Operation::CreateSession => {
            "This gateway hands out no temporary credentials."
        }
        Operation::CorsPreflight => return Err(ErrorCode::AccessDenied.into()),
        Operation::RenameObject | Operation::UpdateObjectEncryption => {
            "This gateway does not carry this operation, since its encryption rules are about new objects."
        }
        _ => return Ok(()),
    };
    Err(S3Error::new(ErrorCode::NotImplemented, reason))
}

/// Operations on documents that name buckets, which would have to be changed on the way.
fn check_rename(operation: Operation) -> Result<(), S3Error> {
    let name = operation.name();
    let holds_names = [
        "BucketPolicy",
        "BucketReplication",
        "BucketLogging",
        "Inventory",
        "Analytics",
        "BucketMetadata",
        "BucketWebsite",
    ]
    .iter()
    .any(|part| name.contains(part));
    if holds_names {
        return Err(S3Error::new(
            ErrorCode::NotImplemented,
            "This bucket has another name behind this gateway, and the document of this operation may hold it. Ask the store itself.",
        ));
    }
    Ok(())
}
