//! A store that checks what a gateway sends it, a gateway in front of it, and a client that signs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use moat_net::Body;
use moat_proxy::gateway::{GatewayConfig, KeySource, Store, User};
use moat_proxy::{Config, Mode};
use moat_s3::authenticate::{Account, Authenticator};
use moat_s3::chunked::{
    AnnouncedTrailers, ChunkedEncoder, Framing, Reframe, Source, Trailers, encoded_length,
};
use moat_s3::policy::Policy;
use moat_s3::sigv4::{ChunkSeed, Credentials, PayloadHash, RequestParts, Signer};
use moat_types::{Clock, SecretString, SystemClock, UnixMillis};

use super::{Front, Pki, Server, client, config, soon};

/// What the store took: requests that were signed right, with bodies that were whole and right.
#[derive(Clone, Debug)]
pub struct Taken {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub payload: PayloadHash,
    pub body: Bytes,
    pub trailers: Trailers,
}

impl Taken {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

type Answer = Arc<dyn Fn(&Taken) -> Response<Body> + Send + Sync>;

/// A store that knows one key.
#[derive(Clone)]
pub struct CheckingStore {
    /// Requests that arrived, be they good or not.
    pub begun: Arc<AtomicUsize>,
    taken: Arc<Mutex<Vec<Taken>>>,
    authenticator: Arc<Authenticator>,
    answer: Answer,
}

pub const STORE_KEY: (&str, &str) = ("store-key", "store-secret");
pub const REGION: &str = "store-1";

impl CheckingStore {
    pub fn new() -> Self {
        Self::answering(|_| Response::new(Body::empty()))
    }

    /// A store that knows another key.
    pub fn knowing(account: Account) -> Self {
        Self {
            authenticator: Arc::new(Authenticator::new(vec![account], REGION.to_owned())),
            ..Self::new()
        }
    }

    pub fn answering(answer: impl Fn(&Taken) -> Response<Body> + Send + Sync + 'static) -> Self {
        let account = Account {
            access_key_id: STORE_KEY.0.to_owned(),
            secret_access_key: SecretString::new(STORE_KEY.1.to_owned()),
            session_token: None,
        };
        Self {
            begun: Arc::default(),
            taken: Arc::default(),
            authenticator: Arc::new(Authenticator::new(vec![account], REGION.to_owned())),
            answer: Arc::new(answer),
        }
    }

    pub fn start(&self, pki: Option<&Pki>) -> Server {
        let store = self.clone();
        Server::upstream(pki.map(Pki::server), move |request| {
            let store = store.clone();
            async move { store.take(request).await }
        })
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    pub fn begun(&self) -> usize {
        self.begun.load(SeqCst)
    }

    async fn take(&self, request: Request<Body>) -> Response<Body> {
        self.begun.fetch_add(1, SeqCst);
        let (head, body) = request.into_parts();
        match self.read(&head, body).await {
            Ok(taken) => {
                let answer = (self.answer)(&taken);
                self.taken.lock().unwrap().push(taken);
                answer
            }
            Err(why) => {
                let mut response = Response::new(Body::full(format!("the store says: {why}")));
                *response.status_mut() = StatusCode::IM_A_TEAPOT;
                response
            }
        }
    }

    async fn read(&self, head: &http::request::Parts, body: Body) -> Result<Taken, String> {
        let request = RequestParts::new(&head.method, &head.uri, &head.headers);
        let proven = self
            .authenticator
            .authenticate(&request, None, SystemClock.now())
            .map_err(|refused| refused.error.to_string())?;
        let whole = body.collect().await.map_err(|error| error.to_string())?;
        let raw = whole.to_bytes();
        let announced = head.headers.get(CONTENT_LENGTH);
        if let Some(length) = announced
            && length.to_str().unwrap() != raw.len().to_string()
        {
            return Err(format!("{} bytes for {length:?}", raw.len()));
        }
        let announced = AnnouncedTrailers::from_headers(&head.headers).unwrap();
        let length = || {
            let text = head.headers["x-amz-decoded-content-length"]
                .to_str()
                .unwrap();
            Some(text.parse().unwrap())
        };
        let (source, length) = match Framing::new(proven.payload, proven.chunk_seed.as_ref()) {
            Some(framing) => (Source::Chunked(framing, announced), length()),
            None => match proven.payload {
                PayloadHash::Sha256(hash) => (Source::Hashed(hash), None),
                _ => (Source::Plain, None),
            },
        };
        let (body, trailers) =
            Reframe::read_whole(source, length, raw).map_err(|error| error.to_string())?;
        Ok(Taken {
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
            payload: proven.payload,
            body,
            trailers,
        })
    }
}

pub fn credentials(id: &str, secret: &str) -> Credentials {
    Credentials {
        access_key_id: id.to_owned(),
        secret_access_key: SecretString::new(secret.to_owned()),
        session_token: None,
    }
}

pub fn user(name: &str, policy: &str) -> User {
    let policy = Policy::built_in(policy)
        .unwrap_or_else(|| Policy::parse(policy).expect("the policy is well formed"));
    User {
        name: name.to_owned(),
        credentials: credentials(name, &format!("{name}-secret")),
        policies: vec![policy],
    }
}

/// The first store is the only one until a test adds others.
pub fn gateway() -> GatewayConfig {
    let store = Store {
        name: "default".to_owned(),
        sites: 0..1,
        region: REGION.to_owned(),
        keys: KeySource::Fixed(credentials(STORE_KEY.0, STORE_KEY.1)),
    };
    GatewayConfig::new(vec![user("ann", "readwrite")], store)
}

pub fn front(upstream: &Server, pki: Option<&Pki>, gateway: GatewayConfig) -> Front {
    front_with(upstream, pki, gateway, |_| {})
}

pub fn front_with(
    upstream: &Server,
    pki: Option<&Pki>,
    gateway: GatewayConfig,
    change: impl FnOnce(&mut Config),
) -> Front {
    let scheme = if pki.is_some() { "https" } else { "http" };
    let mut config: Config = config(&[upstream.url(scheme)]);
    config.sites[0].tls = pki.map(Pki::client);
    config.mode = Mode::Gateway(Arc::new(gateway));
    change(&mut config);
    Front::start(config, pki)
}

/// A request before it is signed.
#[derive(Clone)]
pub struct Draft {
    pub method: Method,
    pub uri: String,
    pub headers: HeaderMap,
    pub form: PayloadHash,
    pub body: Bytes,
    pub trailer: Option<(&'static str, &'static str)>,
    pub chunk: usize,
    pub at: UnixMillis,
    pub as_user: (&'static str, &'static str),
}

impl Draft {
    pub fn new(method: Method, uri: &str) -> Self {
        Self {
            method,
            uri: uri.to_owned(),
            headers: HeaderMap::new(),
            form: PayloadHash::Unsigned,
            body: Bytes::new(),
            trailer: None,
            chunk: 64 * 1024,
            at: SystemClock.now(),
            as_user: ("ann", "ann-secret"),
        }
    }

    pub fn get(uri: &str) -> Self {
        Self::new(Method::GET, uri)
    }

    pub fn put(uri: &str, form: PayloadHash, body: impl Into<Bytes>) -> Self {
        Self {
            form,
            body: body.into(),
            ..Self::new(Method::PUT, uri)
        }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
        self.headers.append(name, value);
        self
    }

    #[must_use]
    pub fn with_trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailer = Some((name, value));
        self.with("x-amz-trailer", name)
    }

    pub fn signer(&self) -> Signer {
        Signer::new(
            credentials(self.as_user.0, self.as_user.1),
            "us-east-1",
            "s3",
        )
    }

    /// Signs, and frames the body.
    pub fn signed(&self, host: &str) -> (Request<Body>, Bytes) {
        let uri: Uri = self.uri.parse().unwrap();
        let mut headers = self.headers.clone();
        headers
            .entry("host")
            .or_insert_with(|| host.parse().unwrap());
        let length = self.body.len() as u64;
        if self.form.is_chunked() {
            headers.insert("x-amz-decoded-content-length", length.into());
        }
        let trailers: Vec<_> = self.trailer.iter().map(|(n, v)| (*n, v.len())).collect();
        let framed = encoded_length(self.form, length, self.chunk as u64, &trailers);
        if self.method != Method::GET && self.method != Method::HEAD {
            headers.insert(CONTENT_LENGTH, framed.into());
        }
        let seed = self
            .signer()
            .sign(&self.method, &uri, &mut headers, self.form, self.at)
            .unwrap();
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        (request, self.framed(&seed))
    }

    fn framed(&self, seed: &ChunkSeed) -> Bytes {
        let Some(framing) = Framing::new(self.form, Some(seed)) else {
            return self.body.clone();
        };
        let mut encoder = ChunkedEncoder::new(framing);
        let mut out = VecDeque::new();
        for chunk in self.body.chunks(self.chunk) {
            out.extend(encoder.chunk(Bytes::copy_from_slice(chunk)));
        }
        out.push_back(encoder.finish(self.trailer.as_slice()));
        Vec::from(out).concat().into()
    }

    /// Signs and sends through the plain listener.
    pub async fn send(&self, front: &Front) -> Response<Body> {
        let (mut request, body) = self.signed(&front.plain.addr.to_string());
        *request.body_mut() = Body::full(body);
        send(front, request).await
    }
}

pub async fn send(front: &Front, request: Request<Body>) -> Response<Body> {
    soon(client(None).send(&front.plain_endpoint(), request))
        .await
        .unwrap()
}

/// Status, and the code of the error document if there is one.
pub async fn outcome(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let text = super::text(response).await;
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map_or(text.clone(), |(code, _)| code.to_owned());
    (status, code)
}
