//! Which encryption new objects get: the rule of a bucket and prefix against what the client asked.
//!
//! What a client asked for stays, unless the rule says `replace`; to what it left open the rule adds
//! its own; `require` then looks at the outcome. Rules are about requests that make objects
//! (PutObject, CopyObject, CreateMultipartUpload): parts and reads carry no encryption of their own.

use http::{HeaderMap, HeaderName, HeaderValue};
use moat_s3::request::{DSSE_ALGORITHM, KMS_ALGORITHM, Operation, SSE_S3_ALGORITHM, header_text};
use moat_s3::{ErrorCode, S3Error};

pub(super) const SSE: HeaderName = HeaderName::from_static("x-amz-server-side-encryption");
pub(super) const SSE_KEY_ID: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-aws-kms-key-id");
const SSE_CONTEXT: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-context");
const SSE_BUCKET_KEY: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-bucket-key-enabled");
const CUSTOMER_ALGORITHM: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-customer-algorithm");
const CUSTOMER_KEY: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-customer-key");

/// A rule for the new objects of a bucket, or of a prefix in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionRule {
    /// The bucket as clients say it; `None`: all that have no rule of their own.
    pub bucket: Option<String>,
    /// What keys begin with; of several rules that with the longest one counts.
    pub prefix: String,
    /// What is added to a request that asks for nothing.
    pub add: Option<Encryption>,
    /// What a request must ask for in the end.
    pub require: Require,
    /// Put the rule in the place of what the client asked for.
    pub replace: bool,
}

/// What a rule adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// SSE-S3.
    S3,
    /// SSE-KMS.
    Kms {
        /// The key; `None`: the default key of the store or of its bucket.
        key: Option<String>,
    },
}

/// What a rule requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Require {
    /// Nothing.
    #[default]
    Nothing,
    /// Any encryption.
    Any,
    /// SSE-KMS.
    Kms,
    /// SSE-KMS with the key of the rule.
    Key,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    S3,
    Kms(Option<String>),
    Customer,
}

impl EncryptionRule {
    pub(super) fn requires_a_key_it_lacks(&self) -> bool {
        let has_key = matches!(self.add, Some(Encryption::Kms { key: Some(_) }));
        self.require == Require::Key && !has_key
    }

    fn key(&self) -> Option<&str> {
        match &self.add {
            Some(Encryption::Kms { key }) => key.as_deref(),
            _ => None,
        }
    }

    fn apply(&self, headers: &mut HeaderMap) -> Result<(), S3Error> {
        let asked = Asked::of(headers)?;
        if self.replace && asked != Asked::Nothing {
            self.replace(&asked, headers)?;
        } else {
            match (asked, &self.add) {
                (Asked::Nothing, Some(add)) => add.set(headers),
                (Asked::Kms(None), Some(Encryption::Kms { key: Some(_) })) => {
                    self.add.iter().for_each(|add| add.set(headers));
                }
                // S3A copies the key id of a source without the algorithm, which S3 refuses.
                (Asked::Kms(Some(_)), _) => set(headers, SSE, KMS_ALGORITHM),
                _ => {}
            }
        }
        self.check(&Asked::of(headers)?)
    }

    fn replace(&self, asked: &Asked, headers: &mut HeaderMap) -> Result<(), S3Error> {
        let Some(add) = &self.add else {
            return Ok(());
        };
        if *asked == Asked::Customer {
            return Err(refused(
                "This bucket's encryption rule does not take customer keys (SSE-C).",
            ));
        }
        if !matches!((asked, add), (Asked::Kms(_), Encryption::Kms { .. })) {
            headers.remove(SSE_CONTEXT);
            headers.remove(SSE_BUCKET_KEY);
        }
        headers.remove(SSE_KEY_ID);
        add.set(headers);
        Ok(())
    }

    fn check(&self, asked: &Asked) -> Result<(), S3Error> {
        let fits = match (self.require, asked) {
            (Require::Nothing, _) => true,
            (Require::Any, asked) => *asked != Asked::Nothing,
            (Require::Kms, asked) => matches!(asked, Asked::Kms(_)),
            (Require::Key, Asked::Kms(Some(key))) => {
                self.key().is_some_and(|own| key_name(own) == key_name(key))
            }
            (Require::Key, _) => false,
        };
        if fits {
            return Ok(());
        }
        Err(refused(match self.require {
            Require::Key => {
                "This bucket takes objects encrypted with SSE-KMS under its own key only. Ask for aws:kms with that key, or for no encryption."
            }
            Require::Kms => {
                "This bucket takes objects encrypted with SSE-KMS only. Send x-amz-server-side-encryption: aws:kms."
            }
            _ => "This bucket takes no unencrypted objects. Send x-amz-server-side-encryption.",
        }))
    }
}

impl Encryption {
    fn set(&self, headers: &mut HeaderMap) {
        match self {
            Self::S3 => set(headers, SSE, SSE_S3_ALGORITHM),
            Self::Kms { key } => {
                set(headers, SSE, KMS_ALGORITHM);
                if let Some(key) = key {
                    set(headers, SSE_KEY_ID, key);
                }
            }
        }
    }
}

/// The value is the configuration's, which checked that it fits into a header.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

impl Asked {
    fn of(headers: &HeaderMap) -> Result<Self, S3Error> {
        if headers.contains_key(CUSTOMER_ALGORITHM) || headers.contains_key(CUSTOMER_KEY) {
            return Ok(Self::Customer);
        }
        let (algorithm, key) = (SSE, SSE_KEY_ID);
        let key = header_text(headers, key.as_str())?.filter(|key| !key.is_empty());
        match header_text(headers, algorithm.as_str())? {
            None if key.is_none() => Ok(Self::Nothing),
            None | Some(KMS_ALGORITHM | DSSE_ALGORITHM) => Ok(Self::Kms(key.map(str::to_owned))),
            Some(SSE_S3_ALGORITHM) => Ok(Self::S3),
            Some(_) => Err(S3Error::new(
                ErrorCode::InvalidArgument,
                "The encryption method specified is not supported",
            )),
        }
    }
}

/// The name in a key id: `NAME`, `alias/NAME`, `arn:aws:kms:NAME` or a full ARN.
fn key_name(id: &str) -> &str {
    let resource = match id.strip_prefix("arn:") {
        Some(arn) => arn.rsplit(':').next().unwrap_or_default(),
        None => id,
    };
    resource
        .strip_prefix("key/")
        .or_else(|| resource.strip_prefix("alias/"))
        .unwrap_or(resource)
}

fn refused(message: &'static str) -> S3Error {
    S3Error::new(ErrorCode::AccessDenied, message)
}

/// Whether an operation makes an object and says how it is encrypted.
const fn makes_objects(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::PutObject | Operation::CopyObject | Operation::CreateMultipartUpload
    )
}

/// Puts the rule for an object into force.
///
/// # Errors
/// `AccessDenied` for what the rule does not take, `InvalidArgument` for headers without meaning.
pub(super) fn apply(
    rules: &[EncryptionRule],
    operation: Operation,
    bucket: &str,
    key: &str,
    headers: &mut HeaderMap,
) -> Result<(), S3Error> {
    if !makes_objects(operation) {
        return Ok(());
    }
    let about = |rule: &&EncryptionRule| match &rule.bucket {
        Some(name) => name == bucket,
        None => true,
    };
    let named = rules
        .iter()
        .any(|rule| rule.bucket.as_deref() == Some(bucket));
    let nearest = rules
        .iter()
        .filter(about)
        // Rules for all buckets are about those that have none of their own.
        .filter(|rule| !named || rule.bucket.is_some())
        .filter(|rule| key.starts_with(&rule.prefix))
        .max_by_key(|rule| rule.prefix.len());
    nearest.map_or(Ok(()), |rule| rule.apply(headers))
}

/// Whether an operation may change how a bucket encrypts by itself. Where the gateway has a rule for the
/// bucket, be it for a prefix of it, the operator has decided that: a rule without a key means the bucket's own,
/// and what is without a rule follows it.
///
/// # Errors
/// `AccessDenied`.
pub(super) fn check_change(
    rules: &[EncryptionRule],
    operation: Operation,
    bucket: &str,
) -> Result<(), S3Error> {
    let changes = matches!(
        operation,
        Operation::PutBucketEncryption | Operation::DeleteBucketEncryption
    );
    let about = |rule: &EncryptionRule| rule.bucket.as_deref().is_none_or(|name| name == bucket);
    if changes && rules.iter().any(about) {
        return Err(refused(
            "This bucket's encryption is decided by a rule of the gateway. Ask its operator.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kms(key: Option<&str>) -> Option<Encryption> {
        let key = key.map(str::to_owned);
        Some(Encryption::Kms { key })
    }

    fn rule(
        bucket: &str,
        prefix: &str,
        add: Option<Encryption>,
        require: Require,
    ) -> EncryptionRule {
        EncryptionRule {
            bucket: (bucket != "*").then(|| bucket.to_owned()),
            prefix: prefix.to_owned(),
            add,
            require,
            replace: false,
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let each = pairs.iter();
        each.map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
    }

    const ALGORITHM: &str = "x-amz-server-side-encryption";
    const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
    const CUSTOMER: &str = "x-amz-server-side-encryption-customer-key";
    const CONTEXT: &str = "x-amz-server-side-encryption-context";

    /// What a PUT of `lake/k` with `asked` becomes.
    fn check(
        rule: &EncryptionRule,
        asked: &[(&'static str, &'static str)],
        expected: Option<&[(&'static str, &'static str)]>,
    ) {
        let mut got = headers(asked);
        let rules = std::slice::from_ref(rule);
        let outcome = apply(rules, Operation::PutObject, "lake", "k", &mut got);
        match expected {
            Some(expected) => {
                outcome.unwrap();
                assert_eq!(got, headers(expected), "{rule:?} {asked:?}");
            }
            None => assert_eq!(outcome.unwrap_err().code, ErrorCode::AccessDenied),
        }
    }

    #[test]
    fn a_rule_adds_to_what_asks_for_nothing_and_leaves_the_rest() {
        let add = rule("lake", "", kms(Some("K")), Require::Nothing);
        check(&add, &[], Some(&[(ALGORITHM, "aws:kms"), (KEY_ID, "K")]));
        check(
            &add,
            &[(ALGORITHM, "AES256")],
            Some(&[(ALGORITHM, "AES256")]),
        );
        let own = [(ALGORITHM, "aws:kms"), (KEY_ID, "other")];
        check(&add, &own, Some(&own));
        check(&add, &[(CUSTOMER, "x")], Some(&[(CUSTOMER, "x")]));
        // Who asks for KMS without a key means that of the rule.
        check(
            &add,
            &[(ALGORITHM, "aws:kms")],
            Some(&[(ALGORITHM, "aws:kms"), (KEY_ID, "K")]),
        );
        check(&add, &[(KEY_ID, "other")], Some(&own));
        let s3 = rule("lake", "", Some(Encryption::S3), Require::Any);
        check(&s3, &[], Some(&[(ALGORITHM, "AES256")]));
        let default_key = rule("lake", "", kms(None), Require::Kms);
        check(&default_key, &[], Some(&[(ALGORITHM, "aws:kms")]));
    }

    #[test]
    fn a_requirement_looks_at_the_outcome() {
        check(&rule("lake", "", None, Require::Any), &[], None);
        let sse_s3 = [(ALGORITHM, "AES256")];
        check(
            &rule("lake", "", None, Require::Any),
            &sse_s3,
            Some(&sse_s3),
        );
        check(&rule("lake", "", kms(None), Require::Kms), &sse_s3, None);
        check(
            &rule("lake", "", kms(None), Require::Kms),
            &[(CUSTOMER, "x")],
            None,
        );
        let key = rule("lake", "", kms(Some("K")), Require::Key);
        check(&key, &[], Some(&[(ALGORITHM, "aws:kms"), (KEY_ID, "K")]));
        check(&key, &[(ALGORITHM, "aws:kms"), (KEY_ID, "other")], None);
        let arn = [(ALGORITHM, "aws:kms"), (KEY_ID, "arn:aws:kms:eu:1:key/K")];
        check(&key, &arn, Some(&arn));
        assert!(rule("lake", "", kms(None), Require::Key).requires_a_key_it_lacks());
    }

    #[test]
    fn replacing_leaves_nothing_of_what_was_asked() {
        let mut to_s3 = rule("lake", "", Some(Encryption::S3), Require::Nothing);
        to_s3.replace = true;
        check(
            &to_s3,
            &[(ALGORITHM, "aws:kms"), (KEY_ID, "other"), (CONTEXT, "e30=")],
            Some(&[(ALGORITHM, "AES256")]),
        );
        check(&to_s3, &[(CUSTOMER, "x")], None);
        let mut to_kms = rule("lake", "", kms(Some("K")), Require::Key);
        to_kms.replace = true;
        check(
            &to_kms,
            &[(ALGORITHM, "aws:kms"), (KEY_ID, "other"), (CONTEXT, "e30=")],
            Some(&[(ALGORITHM, "aws:kms"), (KEY_ID, "K"), (CONTEXT, "e30=")]),
        );
    }

    #[test]
    fn the_nearest_rule_counts_and_only_for_new_objects() {
        let rules = [
            rule("*", "", Some(Encryption::S3), Require::Nothing),
            rule("lake", "hr/", kms(Some("hr")), Require::Nothing),
            rule("lake", "hr/open/", Some(Encryption::S3), Require::Nothing),
        ];
        let got = |operation, bucket, key| {
            let mut headers = HeaderMap::new();
            apply(&rules, operation, bucket, key, &mut headers).unwrap();
            headers
                .get(SSE)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let put = Operation::PutObject;
        assert_eq!(got(put, "other", "hr/k").as_deref(), Some("AES256"));
        assert_eq!(got(put, "lake", "hr/k").as_deref(), Some("aws:kms"));
        assert_eq!(got(put, "lake", "hr/open/k").as_deref(), Some("AES256"));
        assert_eq!(got(put, "lake", "k"), None);
        for other in [
            Operation::UploadPart,
            Operation::GetObject,
            Operation::UploadPartCopy,
        ] {
            assert_eq!(got(other, "lake", "hr/k"), None);
        }
        let upload = Operation::CreateMultipartUpload;
        assert_eq!(got(upload, "lake", "hr/k").as_deref(), Some("aws:kms"));
    }

    #[test]
    fn where_there_is_a_rule_the_bucket_s_own_stays() {
        let rules = [rule("lake", "hr/", kms(None), Require::Nothing)];
        let code = |rules: &[EncryptionRule], operation, bucket| {
            check_change(rules, operation, bucket).map_err(|error| error.code)
        };
        for operation in [
            Operation::PutBucketEncryption,
            Operation::DeleteBucketEncryption,
        ] {
            let denied = Err(ErrorCode::AccessDenied);
            assert_eq!(code(&rules, operation, "lake"), denied);
            assert_eq!(code(&rules, operation, "other"), Ok(()));
            let all = [rule("*", "", Some(Encryption::S3), Require::Nothing)];
            assert_eq!(code(&all, operation, "other"), denied);
        }
        assert_eq!(code(&rules, Operation::GetBucketEncryption, "lake"), Ok(()));
    }
}
