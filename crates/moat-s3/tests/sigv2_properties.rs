//! Presigned URLs of version 2, made here as a client makes them: every such URL verifies, as it
//! is or with its parameters in another order, and no URL of another meaning does.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test may"
)]

use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use moat_s3::sigv4::{AuthError, Authentication, PayloadHash, RequestParts};
use moat_s3::uri::{Slash, encode};
use moat_types::{SecretString, UnixMillis};
use proptest::prelude::*;

const SECRET: &str = "a secret/of+some length";

/// What a client wants to presign.
#[derive(Clone, Debug)]
struct Link {
    method: &'static str,
    bucket: String,
    virtual_host: bool,
    key: String,
    expires: u32,
    /// Sub-resources and overrides of answer headers.
    signed: Vec<(&'static str, String)>,
    /// Parameters that version 2 does not cover.
    unsigned: Vec<(&'static str, String)>,
    content_type: String,
    /// Names without `x-amz-meta-`.
    metadata: Vec<(String, String)>,
    /// Whether the headers stand in the query.
    hoisted: bool,
}

impl Link {
    fn path(&self) -> String {
        let key = encode(self.key.as_bytes(), Slash::Keep);
        if self.virtual_host {
            format!("/{key}")
        } else if key.is_empty() {
            format!("/{}", self.bucket)
        } else {
            format!("/{}/{key}", self.bucket)
        }
    }

    fn string_to_sign(&self) -> String {
        let mut lines = format!(
            "{}\n\n{}\n{}\n",
            self.method, self.content_type, self.expires
        );
        let mut metadata = self.metadata.clone();
        metadata.sort();
        for (name, value) in &metadata {
            lines += &format!("x-amz-meta-{name}:{value}\n");
        }
        if self.virtual_host {
            lines += &format!("/{}", self.bucket);
        }
        lines += &self.path();
        if !self.virtual_host && self.key.is_empty() {
            lines += "/";
        }
        let mut signed: Vec<String> = self.signed.iter().map(joined).collect();
        signed.sort();
        for (index, parameter) in signed.iter().enumerate() {
            lines += if index == 0 { "?" } else { "&" };
            lines += parameter;
        }
        lines
    }

    /// The decoded parameters of the URL.
    fn parameters(&self) -> Vec<(String, String)> {
        let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
        let signature = STANDARD.encode(sign(&key, self.string_to_sign().as_bytes()));
        let mut parameters = vec![
            ("AWSAccessKeyId".to_owned(), "AK".to_owned()),
            ("Signature".to_owned(), signature),
            ("Expires".to_owned(), self.expires.to_string()),
        ];
        let others = self.signed.iter().chain(&self.unsigned);
        parameters.extend(others.map(|(name, value)| ((*name).to_owned(), value.clone())));
        if self.hoisted {
            parameters.extend(self.headers());
        }
        parameters
    }

    fn headers(&self) -> Vec<(String, String)> {
        let metadata = self.metadata.iter();
        let mut headers: Vec<_> = metadata
            .map(|(name, value)| (format!("x-amz-meta-{name}"), value.clone()))
            .collect();
        if !self.content_type.is_empty() {
            headers.push(("content-type".to_owned(), self.content_type.clone()));
        }
        headers
    }

    /// Verifies the link with these parameters.
    fn verify(&self, parameters: &[(String, String)], now: i64) -> Result<PayloadHash, AuthError> {
        let query: Vec<String> = parameters
            .iter()
            .map(|(name, value)| {
                format!(
                    "{}={}",
                    encode(name.as_bytes(), Slash::Encode),
                    encode(value.as_bytes(), Slash::Encode)
                )
            })
            .collect();
        let uri: Uri = format!("{}?{}", self.path(), query.join("&"))
            .parse()
            .unwrap();
        let mut headers = HeaderMap::new();
        if !self.hoisted {
            for (name, value) in self.headers() {
                let name = HeaderName::try_from(name).unwrap();
                headers.insert(name, HeaderValue::try_from(value).unwrap());
            }
        }
        let method: Method = self.method.parse().unwrap();
        let request = RequestParts::new(&method, &uri, &headers);
        let Authentication::PresignedV2(claim) = Authentication::parse(&request)? else {
            panic!("not presigned with version 2");
        };
        let bucket = self.virtual_host.then_some(&*self.bucket);
        let secret = SecretString::new(SECRET.to_owned());
        claim.verify(&request, bucket, &secret, UnixMillis(now * 1000))
    }
}

fn joined((name, value): &(&'static str, String)) -> String {
    if value.is_empty() {
        (*name).to_owned()
    } else {
        format!("{name}={value}")
    }
}

fn link() -> impl Strategy<Value = Link> {
    let signed = proptest::sample::subsequence(
        vec![
            "acl",
            "attributes",
            "partNumber",
            "response-content-type",
            "uploadId",
            "versionId",
        ],
        0..4,
    );
    let unsigned = proptest::sample::subsequence(vec!["prefix", "max-keys", "utm"], 0..3);
    let metadata = proptest::collection::btree_map("[a-z]{1,4}", "[!-~]([ -~]{0,6}[!-~])?", 0..3);
    let request = (
        proptest::sample::select(vec!["GET", "PUT", "HEAD", "DELETE", "POST"]),
        "[a-z]{3,8}",
        any::<bool>(),
        "\\PC{0,12}",
        1_000_000u32..,
    );
    let rest = (
        proptest::collection::vec("[ -~é]{0,8}", 6),
        "([a-z]{1,5}/[a-z]{1,5})?",
        any::<bool>(),
    );
    (request, signed, unsigned, metadata, rest).prop_map(
        |(request, signed, unsigned, metadata, (values, content_type, hoisted))| {
            let (method, bucket, virtual_host, key, expires) = request;
            let with_values =
                |names: Vec<&'static str>| names.into_iter().zip(values.iter().cloned()).collect();
            Link {
                method,
                bucket,
                virtual_host,
                key,
                expires,
                signed: with_values(signed),
                unsigned: with_values(unsigned),
                content_type,
                metadata: metadata.into_iter().collect(),
                hoisted,
            }
        },
    )
}

proptest! {
    #[test]
    fn every_link_verifies_in_any_order_of_its_parameters(
        (link, parameters) in link().prop_flat_map(|link| {
            let parameters = Just(link.parameters()).prop_shuffle();
            (Just(link), parameters)
        }),
    ) {
        let expires = i64::from(link.expires);
        prop_assert_eq!(link.verify(&parameters, expires), Ok(PayloadHash::Unsigned));
        prop_assert_eq!(link.verify(&parameters, expires + 1), Err(AuthError::Expired));
    }

    #[test]
    fn a_link_is_good_for_nothing_else(
        link in link(),
        change in 0..8usize,
        added in proptest::sample::select(vec!["cors", "tagging", "retention", "restore", "x-amz-acl"]),
    ) {
        let mut parameters = link.parameters();
        let mut other = link.clone();
        match change {
            0 => other.key += "x",
            1 => other.bucket += "x",
            2 => other.method = "PATCH",
            3 => parameters[2].1 = (link.expires.saturating_sub(1)).to_string(),
            4 => parameters.push((added.to_owned(), String::new())),
            5 if !link.signed.is_empty() => {
                parameters.remove(3);
            }
            6 if !link.signed.is_empty() => parameters[3].1.push('x'),
            _ => {
                let signature = &mut parameters[1].1;
                let first = if signature.starts_with('A') { "B" } else { "A" };
                signature.replace_range(..1, first);
            }
        }
        prop_assert_eq!(other.verify(&parameters, 0), Err(AuthError::SignatureMismatch));
    }
}
