//! Guards the rules of a bucket: whatever parameter or header a request comes with, nothing is written but
//! under the key of the rule, the bucket's own encryption stays, and each operation needs its own right.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "support/mod.rs"]
mod support;

use http::Method;
use moat_proxy::gateway::{BucketRoute, Encryption, EncryptionRule, Require};
use moat_s3::sigv4::PayloadHash;

use support::gateway::{CheckingStore, Draft, Taken, front, gateway, outcome, user};

const SSE: &str = "x-amz-server-side-encryption";
const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const COPY: &str = "x-amz-copy-source";

/// What must come of a request by somebody who may do everything, and by somebody who may only
/// put objects into `lake`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The store makes an object under the rule's key.
    Sealed,
    /// It arrives as it is, and makes no object of its own.
    Passes,
    /// The store hears nothing of it.
    Refused(u16, &'static str),
}
use End::{Passes, Refused, Sealed};

const DENIED: End = Refused(403, "AccessDenied");
const UNKNOWN: End = Refused(501, "NotImplemented");
const UNCLEAR: End = Refused(400, "InvalidRequest");

type Row = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    [End; 2],
);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Objects are made under the rule's key, or not at all.
    ("PUT /lake/k", &[], "x", [Sealed, Sealed]),
    ("PUT /lake/k?x-id=PutObject", &[], "x", [Sealed, Sealed]),
    ("PUT /lake/k", &[(SSE, "aws:kms")], "x", [Sealed, Sealed]),
    ("PUT /lake/k", &[(SSE, "AES256")], "x", [DENIED, DENIED]),
    ("PUT /lake/k", &[(SSE, "aws:kms"), (KEY_ID, "other")], "x", [DENIED, DENIED]),
    ("PUT /lake/k", &[(SSE, "")], "x", [Refused(400, "InvalidArgument"); 2]),
    ("PUT /lake/k", &[(SSE, "aws:kms"), (SSE, "AES256")], "x", [UNCLEAR, UNCLEAR]),
    ("PUT /lake/k", &[("x-amz-server-side-encryption-none", "1")], "x", [UNKNOWN, UNKNOWN]),
    ("POST /lake/k?uploads", &[], "", [Sealed, Sealed]),
    ("POST /lake/k?uploads", &[(SSE, "AES256")], "", [DENIED, DENIED]),
    ("PUT /lake/k", &[(COPY, "other/a")], "", [Sealed, DENIED]),
    ("PUT /lake/k", &[(COPY, "alias/a")], "", [Sealed, DENIED]),
    ("PUT /lake/k", &[(COPY, "alias/a"), (SSE, "AES256")], "", [DENIED, DENIED]),
    ("PUT /lake/k?partNumber=1&uploadId=u", &[], "x", [Passes, Passes]),
    ("PUT /lake/k?partNumber=1&uploadId=u", &[(COPY, "alias/a")], "", [Passes, DENIED]),
    ("PUT /lake/k?partNumber=1&uploadId=u", &[(COPY, "alias/a"), (COPY, "lake/a")], "", [UNCLEAR, UNCLEAR]),
    ("PUT /lake/k?partNumber=1", &[], "x", [Refused(400, "InvalidArgument"); 2]),
    // What adds to objects, moves them, or has the store make them of something else.
    ("PUT /lake/k", &[("x-amz-write-offset-bytes", "0")], "x", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k?append&position=0", &[], "x", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k?renameObject", &[("x-amz-rename-source", "lake/a")], "", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k", &[("x-amz-rename-source", "lake/a")], "", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k?encryption", &[], "<E/>", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k", &[("x-minio-source-replication-request", "true")], "x", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k.tar", &[("x-amz-meta-snowball-auto-extract", "true")], "x", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k", &[("x-goog-copy-source", "other/a")], "", [UNKNOWN, UNKNOWN]),
    ("GET /lake/k", &[("x-http-method-override", "DELETE")], "", [UNKNOWN, UNKNOWN]),
    ("POST /lake", &[("content-type", "multipart/form-data; boundary=x")], "x", [UNKNOWN, UNKNOWN]),
    ("POST /lake/k?restore", &[], "<RestoreRequest><Days>1</Days></RestoreRequest>", [Passes, DENIED]),
    ("POST /lake/k?restore", &[], "<RestoreRequest><OutputLocation/></RestoreRequest>", [UNKNOWN, DENIED]),
    ("PUT /minio/admin/v3/add-user?accessKey=x", &[], "x", [Refused(403, "AllAccessDisabled"); 2]),
    ("GET /minio/v2/metrics/cluster", &[], "", [Refused(403, "AllAccessDisabled"); 2]),
    ("PUT /lake/k", &[(COPY, "minio/admin/v3")], "", [Refused(403, "AllAccessDisabled"); 2]),
    // A parameter of another operation, or of none, does not make it a PutObject.
    ("PUT /lake/k?uploads", &[], "x", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k?delete", &[], "x", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k?versionId=null", &[], "x", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k?Tagging", &[], "x", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k?new-thing", &[], "x", [UNKNOWN, UNKNOWN]),
    ("PUT /lake?new-thing", &[], "x", [UNKNOWN, UNKNOWN]),
    ("DELETE /lake?new-thing", &[], "", [UNKNOWN, UNKNOWN]),
    ("GET /lake/k?lambdaArn=x", &[], "", [UNKNOWN, UNKNOWN]),
    ("PUT /lake/k?acl&tagging", &[], "x", [UNCLEAR, UNCLEAR]),
    ("PUT /lake/k?acl&%61cl", &[], "x", [UNCLEAR, UNCLEAR]),
    ("GET /lake?list-type=2&prefix=a&prefix=b", &[], "", [UNCLEAR, UNCLEAR]),
    // Operations on what is there need rights of their own.
    ("PUT /lake/k?legal-hold", &[], "<L/>", [Passes, DENIED]),
    ("PUT /lake/k?retention", &[], "<R/>", [Passes, DENIED]),
    ("PUT /lake/k?acl", &[], "<A/>", [Passes, DENIED]),
    ("PUT /lake/k?%61cl", &[], "<A/>", [Passes, DENIED]),
    ("PUT /lake/k?tagging", &[], "<T/>", [Passes, DENIED]),
    ("PUT /lake/k?tagging&versionId=v", &[], "<T/>", [Passes, DENIED]),
    ("DELETE /lake/k?tagging", &[], "", [Passes, DENIED]),
    ("PUT /lake/k", &[("x-amz-tagging", "a=b")], "x", [Sealed, DENIED]),
    ("PUT /lake/k", &[("x-amz-acl", "public-read")], "x", [Sealed, DENIED]),
    ("PUT /lake/k", &[("x-amz-grant-read", "id=1")], "x", [Sealed, DENIED]),
    ("PUT /lake/k", &[("x-amz-object-lock-legal-hold", "ON")], "x", [Sealed, DENIED]),
    ("PUT /lake/k", &[("x-amz-object-lock-mode", "GOVERNANCE")], "x", [Sealed, DENIED]),
    ("POST /lake/k?select&select-type=2", &[], "<S/>", [Passes, DENIED]),
    ("GET /lake/k?attributes", &[("x-amz-object-attributes", "ETag")], "", [Passes, DENIED]),
    ("GET /lake/k?torrent", &[], "", [Passes, DENIED]),
    ("GET /lake?list-type=2&metadata=true", &[], "", [Passes, DENIED]),
    ("PUT /lake?object-lock", &[], "<O/>", [Passes, DENIED]),
    ("PUT /lake", &[("x-amz-bucket-object-lock-enabled", "true")], "", [Passes, DENIED]),
    ("DELETE /lake", &[("x-minio-force-delete", "true")], "", [Passes, DENIED]),
    ("DELETE /lake/k", &[("x-minio-force-delete", "true")], "", [UNKNOWN, UNKNOWN]),
    ("DELETE /lake/k?versionId=v", &[("x-amz-bypass-governance-retention", "true")], "", [Passes, DENIED]),
    // And the bucket's own encryption is the operator's.
    ("GET /lake?encryption", &[], "", [Passes, DENIED]),
    ("PUT /lake?encryption", &[], "<E/>", [DENIED, DENIED]),
    ("DELETE /lake?encryption", &[], "", [DENIED, DENIED]),
    ("PUT /other?encryption", &[], "<E/>", [Passes, DENIED]),
];

/// The request goes to another place than the client's, so what is compared is what it is about.
fn check_arrived(end: End, row: &Row, taken: &Taken) {
    match end {
        Sealed => {
            assert_eq!(taken.header(SSE), Some("aws:kms"), "{row:?}");
            assert_eq!(taken.header(KEY_ID), Some("K"), "{row:?}");
        }
        _ => assert_eq!(taken.header(SSE), None, "{row:?}"),
    }
    if let Some(source) = taken.header(COPY) {
        assert!(!source.contains("alias"), "{row:?}: {source}");
    }
    let query = taken.uri.query().unwrap_or_default();
    assert!(
        !query.contains("metadata") && !query.contains('%'),
        "{query}"
    );
}

#[tokio::test]
async fn no_parameter_and_no_header_leads_past_a_rule_or_a_policy() {
    let mut config = gateway();
    let puts = r#"{"Statement": {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::lake/*"}}"#;
    config.users.push(user("bob", puts));
    config.buckets = vec![BucketRoute {
        name: "alias".to_owned(),
        store: 0,
        upstream_name: "behind".to_owned(),
    }];
    config.encryption = vec![EncryptionRule {
        bucket: Some("lake".to_owned()),
        prefix: String::new(),
        add: Some(Encryption::Kms {
            key: Some("K".to_owned()),
        }),
        require: Require::Key,
        replace: false,
    }];
    let store = CheckingStore::new();
    let server = store.start(None);
    let front = front(&server, None, config);
    for row in ROWS {
        let (request, headers, body, ends) = row;
        let (method, uri) = request.split_once(' ').unwrap();
        for (end, account) in ends
            .iter()
            .zip([("ann", "ann-secret"), ("bob", "bob-secret")])
        {
            let method: Method = method.parse().unwrap();
            let mut draft = Draft {
                as_user: account,
                ..Draft::new(method, uri)
            };
            draft.body = (*body).into();
            draft.form = PayloadHash::Unsigned;
            for (name, value) in *headers {
                draft = draft.with(name, value);
            }
            let before = store.taken().len();
            let got = outcome(draft.send(&front).await).await;
            let arrived = store.taken().split_off(before);
            match end {
                Refused(status, code) => {
                    assert_eq!(got, (*status, (*code).to_owned()), "{account:?} {row:?}");
                    assert!(arrived.is_empty(), "{account:?} {row:?}");
                }
                _ => {
                    assert_eq!(got.0, 200, "{account:?} {row:?}: {}", got.1);
                    check_arrived(*end, row, &arrived[0]);
                }
            }
        }
    }
}
