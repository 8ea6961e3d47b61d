//! What a user's policies say about a request: the actions that it needs, on what.

use std::net::IpAddr;

use http::HeaderMap;
use moat_s3::policy::{Facts, Policy, Question, Verdict, is_allowed};
use moat_s3::request::{CopySource, Operation, Query};
use moat_s3::{ErrorCode, S3Error};

use super::encryption::{SSE, SSE_KEY_ID};
use super::known::FORCE_DELETE;

/// What is asked for, in the words of the client.
pub(super) struct Wish<'a> {
    pub(super) operation: Operation,
    pub(super) bucket: Option<&'a str>,
    pub(super) key: Option<&'a str>,
    pub(super) query: &'a Query<'a>,
    pub(super) headers: &'a HeaderMap,
    pub(super) source: Option<&'a CopySource>,
    pub(super) user: &'a str,
    pub(super) address: IpAddr,
    pub(super) secure: bool,
}

impl Wish<'_> {
    /// Whether all that the request does is allowed.
    ///
    /// # Errors
    /// `AccessDenied`, without saying why.
    pub(super) fn check(&self, policies: &[Policy]) -> Result<(), S3Error> {
        let resource = match (self.bucket, self.key) {
            (None, _) => String::new(),
            (Some(bucket), None) => bucket.to_owned(),
            (Some(bucket), Some(key)) => object(bucket, key),
        };
        for action in self.actions() {
            self.ask(policies, action, &resource)?;
        }
        if let Some(source) = self.source {
            let action = match source.version_id {
                Some(_) => "s3:GetObjectVersion",
                None => "s3:GetObject",
            };
            self.ask(policies, action, &object(&source.bucket, &source.key))?;
        }
        Ok(())
    }

    /// Whether a ListBuckets shows all buckets; else those that the policies speak of.
    ///
    /// # Errors
    /// `AccessDenied`, if a policy forbids it.
    pub(super) fn check_list_buckets(&self, policies: &[Policy]) -> Result<bool, S3Error> {
        let facts = self.facts();
        let question = Question {
            action: self.operation.iam_action(),
            resource: "",
            facts: &facts,
        };
        let mut verdicts = policies.iter().map(|policy| policy.judge(&question));
        if verdicts.clone().any(|verdict| verdict == Verdict::Denied) {
            return Err(ErrorCode::AccessDenied.into());
        }
        Ok(verdicts.any(|verdict| verdict == Verdict::Allowed))
    }

    /// Whether a key of a DeleteObjects may be deleted.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(super) fn check_delete(
        &self,
        policies: &[Policy],
        key: &str,
        version: bool,
    ) -> Result<(), S3Error> {
        let action = if version {
            "s3:DeleteObjectVersion"
        } else {
            "s3:DeleteObject"
        };
        let bucket = self.bucket.unwrap_or_default();
        self.ask(policies, action, &object(bucket, key))
    }

    fn actions(&self) -> Vec<&'static str> {
        let mut actions = Vec::with_capacity(2);
        // Its keys stand in the body, and each is asked for by itself.
        if self.operation != Operation::DeleteObjects {
            actions.push(self.main_action());
        }
        let makes = matches!(
            self.operation,
            Operation::PutObject | Operation::CopyObject | Operation::CreateMultipartUpload
        );
        let sent = |name: &str| self.headers.contains_key(name);
        if makes && sent("x-amz-tagging") {
            actions.push("s3:PutObjectTagging");
        }
        let grants = |headers: &HeaderMap| {
            let mut names = headers.keys();
            names.any(|name| {
                name.as_str() == "x-amz-acl" || name.as_str().starts_with("x-amz-grant-")
            })
        };
        if makes && grants(self.headers) {
            actions.push("s3:PutObjectAcl");
        }
        if makes && (sent("x-amz-object-lock-mode") || sent("x-amz-object-lock-retain-until-date"))
        {
            actions.push("s3:PutObjectRetention");
        }
        if makes && sent("x-amz-object-lock-legal-hold") {
            actions.push("s3:PutObjectLegalHold");
        }
        if self.operation == Operation::CreateBucket {
            if grants(self.headers) {
                actions.push("s3:PutBucketAcl");
            }
            if sent("x-amz-bucket-object-lock-enabled") {
                actions.push("s3:PutBucketObjectLockConfiguration");
                actions.push("s3:PutBucketVersioning");
            }
            if sent("x-amz-object-ownership") {
                actions.push("s3:PutBucketOwnershipControls");
            }
        }
        if sent(FORCE_DELETE.as_str()) {
            actions.push("s3:ForceDeleteBucket");
        }
        if sent("x-amz-bypass-governance-retention") {
            actions.push("s3:BypassGovernanceRetention");
        }
        actions
    }

    fn main_action(&self) -> &'static str {
        if !self.query.has("versionId") {
            return self.operation.iam_action();
        }
        match self.operation.iam_action() {
            "s3:GetObject" => "s3:GetObjectVersion",
            "s3:DeleteObject" => "s3:DeleteObjectVersion",
            "s3:GetObjectTagging" => "s3:GetObjectVersionTagging",
            "s3:PutObjectTagging" => "s3:PutObjectVersionTagging",
            "s3:DeleteObjectTagging" => "s3:DeleteObjectVersionTagging",
            "s3:GetObjectAcl" => "s3:GetObjectVersionAcl",
            "s3:PutObjectAcl" => "s3:PutObjectVersionAcl",
            other => other,
        }
    }

    fn facts(&self) -> Facts<'_> {
        let text = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        // The prefix of a ListBuckets is one of buckets' names, of which conditions know nothing.
        let lists = self.bucket.is_some() && self.key.is_none();
        Facts {
            user: Some(self.user),
            source: Some(self.address),
            secure: self.secure,
            prefix: self.query.get("prefix").filter(|_| lists),
            delimiter: self.query.get("delimiter").filter(|_| lists),
            encryption: text(&SSE),
            kms_key_id: text(&SSE_KEY_ID),
        }
    }

    fn ask(&self, policies: &[Policy], action: &str, resource: &str) -> Result<(), S3Error> {
        let facts = self.facts();
        let question = Question {
            action,
            resource,
            facts: &facts,
        };
        if is_allowed(policies, &question) {
            return Ok(());
        }
        tracing::debug!(user = self.user, ?question, "no policy allows it");
        Err(ErrorCode::AccessDenied.into())
    }
}

fn object(bucket: &str, key: &str) -> String {
    [bucket, "/", key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a policy with these actions on `lake/*` allows a request.
    fn check(
        actions: &str,
        operation: Operation,
        query: &str,
        headers: &[(&'static str, &'static str)],
        source: Option<&str>,
    ) -> bool {
        let json = format!(
            r#"{{"Statement": {{"Effect": "Allow", "Action": [{actions}], "Resource": "arn:aws:s3:::lake/*"}}}}"#
        );
        let policy = Policy::parse(&json).unwrap();
        let query = Query::parse(query).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let source = source.map(|text| CopySource::parse(text).unwrap());
        let wish = Wish {
            operation,
            bucket: Some("lake"),
            key: Some("k"),
            query: &query,
            headers: &map,
            source: source.as_ref(),
            user: "ann",
            address: "127.0.0.1".parse().unwrap(),
            secure: true,
        };
        wish.check(&[policy]).is_ok()
    }

    #[test]
    fn every_part_of_a_request_must_be_allowed() {
        let get = Operation::GetObject;
        assert!(check(r#""s3:GetObject""#, get, "", &[], None));
        assert!(!check(r#""s3:GetObject""#, get, "versionId=1", &[], None));
        assert!(check(
            r#""s3:GetObjectVersion""#,
            get,
            "versionId=1",
            &[],
            None
        ));
        let copy = Operation::CopyObject;
        assert!(!check(r#""s3:PutObject""#, copy, "", &[], Some("lake/a")));
        let both = r#""s3:PutObject", "s3:GetObject""#;
        assert!(check(both, copy, "", &[], Some("lake/a")));
        assert!(!check(both, copy, "", &[], Some("other/a")));
        assert!(!check(both, copy, "", &[], Some("lake/a?versionId=1")));
        let put = Operation::PutObject;
        let acl = [("x-amz-acl", "public-read")];
        assert!(!check(r#""s3:PutObject""#, put, "", &acl, None));
        assert!(check(
            r#""s3:PutObject", "s3:PutObjectAcl""#,
            put,
            "",
            &acl,
            None
        ));
        let tags = [("x-amz-tagging", "a=b")];
        assert!(!check(r#""s3:PutObject""#, put, "", &tags, None));
    }

    #[test]
    fn all_buckets_some_or_none() {
        let all = |statements: &[&str]| {
            let json = format!(r#"{{"Statement": [{}]}}"#, statements.join(","));
            let query = Query::parse("prefix=lake").unwrap();
            let wish = Wish {
                operation: Operation::ListBuckets,
                bucket: None,
                key: None,
                query: &query,
                headers: &HeaderMap::new(),
                source: None,
                user: "ann",
                address: "127.0.0.1".parse().unwrap(),
                secure: true,
            };
            let verdict = wish.check_list_buckets(&[Policy::parse(&json).unwrap()]);
            verdict.map_err(|error| error.code)
        };
        let allow = r#"{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}"#;
        let others = r#"{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}"#;
        let deny = r#"{"Effect": "Deny", "Action": "s3:ListAllMyBuckets", "Resource": "*"}"#;
        assert_eq!(all(&[allow]), Ok(true));
        assert_eq!(all(&[others]), Ok(false));
        assert_eq!(all(&[allow, others, deny]), Err(ErrorCode::AccessDenied));
        // The prefix is one of buckets' names, and no `s3:prefix`.
        let prefix = r#"{"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": {"StringEquals": {"s3:prefix": "lake"}}}"#;
        assert_eq!(all(&[prefix]), Ok(false));
    }
}
