//! Settings to paste: how each client is taught to trust a CA and to find an endpoint.

use std::path::{Path, PathBuf};

use crate::endpoint::Endpoint;
use crate::first_start::TRUSTSTORE_PASSWORD;

/// How JVM, Python and `mc` are made to trust the endpoint's CA.
pub(crate) fn trust(endpoint: &Endpoint, ca: Option<&Path>) -> Vec<String> {
    let ca = ca.map_or_else(|| PathBuf::from("DIR/trust/ca.pem"), Path::to_owned);
    let mut lines = vec![
        "Get the CA's certificate from whoever runs the server (a Moat server has it, and the truststore".to_owned(),
        "below, in DIR/trust of its data folder) and try again with --ca FILE. Then make each client trust it:".to_owned(),
    ];
    lines.extend(jvm(&truststore_beside(&ca)));
    lines.push(format!("boto3, aws cli:  AWS_CA_BUNDLE={}", ca.display()));
    lines.push(format!(
        "mc:              cp {} ~/.mc/certs/CAs/",
        ca.display()
    ));
    lines.push(format!(
        "then check with: moat doctor {endpoint} --ca {}",
        ca.display()
    ));
    lines
}

/// The JVM options for Spark. Driver and executors both need them; forgetting one is the usual
/// reason why "S3A does not work with HTTPS".
pub(crate) fn jvm(truststore: &Path) -> Vec<String> {
    let options = java_options(truststore);
    vec![
        format!("any JVM:         {options}"),
        format!("Spark:           --conf spark.driver.extraJavaOptions=\"{options}\""),
        format!("                 --conf spark.executor.extraJavaOptions=\"{options}\""),
        "                 (PySpark and notebooks start the driver before they read this: set JAVA_TOOL_OPTIONS instead)".to_owned(),
    ]
}

/// The three system properties.
pub(crate) fn java_options(truststore: &Path) -> String {
    format!(
        "-Djavax.net.ssl.trustStore={} -Djavax.net.ssl.trustStorePassword={TRUSTSTORE_PASSWORD} -Djavax.net.ssl.trustStoreType=PKCS12",
        truststore.display()
    )
}

/// The S3A settings that a store which is not AWS needs.
pub(crate) fn s3a(endpoint: &Endpoint, region: &str) -> Vec<String> {
    vec![
        format!("spark.hadoop.fs.s3a.endpoint                 {endpoint}"),
        "spark.hadoop.fs.s3a.path.style.access        true".to_owned(),
        format!("spark.hadoop.fs.s3a.endpoint.region          {region}"),
        "spark.hadoop.fs.s3a.aws.credentials.provider org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider".to_owned(),
    ]
}

/// Why Spark 3.x fails on a plain endpoint, in words. The check sits in the client: no packet
/// leaves the JVM, so only what it is told beforehand helps.
pub(crate) fn plain_http_sdk_v1() -> Vec<String> {
    vec![
        "Spark 3.x and Hadoop up to 3.3 use AWS SDK v1. Over http:// it refuses, inside the JVM, every request that".to_owned(),
        "names a KMS key or an SSE-C key, with the message \"HTTPS must be used when sending customer encryption".to_owned(),
        "keys (SSE-C) to S3\", even when SSE-C is nowhere in play. It happens when".to_owned(),
        "  - fs.s3a.encryption.algorithm is SSE-KMS or SSE-C: use the https endpoint, or remove the setting and let".to_owned(),
        "    the bucket's default encryption do it;".to_owned(),
        "  - a HEAD answer names the KMS key of an object (any bucket with an SSE-KMS rule): S3A copies the key id into".to_owned(),
        "    its rename, and the rename fails. Moat's plain listeners leave that header out of HEAD answers; for".to_owned(),
        "    another store, put `moat proxy` in front and point Spark at its http port, or use https.".to_owned(),
    ]
}

/// The truststore that `moat up` puts beside its CA's PEM file.
fn truststore_beside(ca: &Path) -> PathBuf {
    ca.with_file_name("truststore.p12")
}
