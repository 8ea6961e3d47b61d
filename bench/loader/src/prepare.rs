//! Makes the bucket and the objects that rows read, checks that what comes back is what was
//! written, and removes what rows leave behind.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::answer::header;
use crate::content::content;
use crate::request::{Request, Target};
use crate::rows::{self, HUGE_PARTS, Row, Stock, stock_bytes};
use crate::spark::delete_many;
use crate::wire::Keep;
use crate::work::{HUGE_PATH, put};

/// Connections that write at once.
const WRITERS: usize = 8;
/// Keys that one bulk delete may name (S3's own limit).
const DELETE_KEYS_MAX: usize = 1_000;

/// Makes the bucket unless it is there, and gives it a rule: SSE-KMS with the named key.
///
/// # Errors
/// If the server refuses.
pub(crate) async fn bucket(target: &Target, kms_key: Option<&str>) -> Result<()> {
    let mut connection = target.connect().await?;
    let made = target
        .sign(Request::new(Method::PUT, ""))?
        .try_out(&mut connection)
        .await?;
    ensure!(
        matches!(made.status, 200 | 409),
        "making the bucket was answered with {}: {}",
        made.status,
        made.text()
    );
    let Some(key) = kms_key else { return Ok(()) };
    let rule = format!(
        "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>\
         <SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>{key}</KMSMasterKeyID>\
         </ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"
    );
    let request = Request::new(Method::PUT, "?encryption=").document(rule);
    target
        .ask(&mut connection, request)
        .await
        .context("setting the bucket's encryption rule")?;
    Ok(())
}

/// Writes what `rows` read and checks one object of each kind. The result says, for each kind,
/// which encryption and key the server reports.
///
/// # Errors
/// If a write fails, or an object does not come back as it was written.
pub(crate) async fn objects(target: &Arc<Target>, rows: &[Row]) -> Result<Value> {
    let mut seen = serde_json::Map::new();
    for stock in [
        Stock::Small,
        Stock::Middle,
        Stock::Big,
        Stock::Tree,
        Stock::Huge,
    ] {
        if rows.iter().any(|row| row.stock() == Some(stock)) {
            write_stock(target, stock)
                .await
                .with_context(|| format!("writing {stock:?} objects"))?;
            let encryption = check(target, stock)
                .await
                .with_context(|| format!("checking {stock:?} objects"))?;
            seen.insert(format!("{stock:?}").to_lowercase(), encryption);
        }
    }
    Ok(Value::Object(seen))
}

async fn write_stock(target: &Arc<Target>, stock: Stock) -> Result<()> {
    if stock == Stock::Huge {
        return write_huge(target).await;
    }
    let (count, path) = stock_paths(stock);
    each(target, count, move |index| {
        put(path(index), index as u64, stock_bytes(stock))
    })
    .await
}

/// How many objects there are of a kind, and where.
fn stock_paths(stock: Stock) -> (usize, fn(usize) -> String) {
    match stock {
        Stock::Small => (rows::SMALL_OBJECTS, rows::small_path),
        Stock::Middle => (rows::MIDDLE_OBJECTS, rows::middle_path),
        Stock::Big => (rows::BIG_OBJECTS, rows::big_path),
        Stock::Tree => (rows::TREE_KEYS, rows::tree_path),
        Stock::Huge => (1, |_| HUGE_PATH.to_owned()),
    }
}

/// Sends `count` requests over some connections at once.
async fn each(
    target: &Arc<Target>,
    count: usize,
    request: impl Fn(usize) -> Request + Clone + Send + 'static,
) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (target, request) = (Arc::clone(target), request.clone());
        writers.spawn(async move {
            let mut connection = target.connect().await?;
            for index in (writer..count).step_by(WRITERS) {
                let signed = target.sign(request(index))?;
                signed.send(&mut connection, Keep::Count).await?;
            }
            Ok::<(), anyhow::Error>(())
        });
    }
    writers.join_all().await.into_iter().collect()
}

/// The huge object is a multipart upload, as it would be with every client.
async fn write_huge(target: &Target) -> Result<()> {
    let mut connection = target.connect().await?;
    let begun = target
        .ask(
            &mut connection,
            Request::new(Method::POST, format!("{HUGE_PATH}?uploads=")),
        )
        .await?;
    let upload = element(&begun.text(), "UploadId").context("no upload id")?;
    let mut parts = String::new();
    for number in 1..=HUGE_PARTS {
        let path = format!("{HUGE_PATH}?partNumber={number}&uploadId={upload}");
        let part = target
            .ask(
                &mut connection,
                put(path, number as u64, stock_bytes(Stock::Huge)),
            )
            .await?;
        let etag = header(&part.head, "etag").context("a part without an ETag")?;
        parts.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        ));
    }
    let complete = Request::new(Method::POST, format!("{HUGE_PATH}?uploadId={upload}"))
        .document(format!(
            "<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        ))
        .holding("CompleteMultipartUploadResult");
    target.ask(&mut connection, complete).await?;
    Ok(())
}

/// Reads one object back and compares; for the huge one its beginning. Says how it is encrypted.
async fn check(target: &Target, stock: Stock) -> Result<Value> {
    let (count, path) = stock_paths(stock);
    let path = path(count - 1);
    let wanted = match stock {
        Stock::Huge => &content(1, stock_bytes(stock))[..1 << 20],
        Stock::Big => &content(count as u64 - 1, stock_bytes(stock))[..1 << 20],
        _ => content(count as u64 - 1, stock_bytes(stock)),
    };
    let mut connection = target.connect().await?;
    let read = Request::new(Method::GET, path.clone())
        .header("range", format!("bytes=0-{}", wanted.len() - 1))
        .answers(206);
    let got = target.ask(&mut connection, read).await?;
    ensure!(got.body == wanted, "{path} does not hold what was written");
    let head = target
        .ask(&mut connection, Request::new(Method::HEAD, path))
        .await?;
    Ok(json!({
        "algorithm": header(&head.head, "x-amz-server-side-encryption"),
        "key": header(&head.head, "x-amz-server-side-encryption-aws-kms-key-id"),
    }))
}

/// Removes all objects whose path begins with `prefix`.
///
/// # Errors
/// If a LIST or a delete fails.
pub(crate) async fn remove_below(target: &Target, prefix: &str) -> Result<()> {
    let mut connection = target.connect().await?;
    let encoded = moat_s3::uri::encode(
        prefix.trim_start_matches('/').as_bytes(),
        moat_s3::uri::Slash::Encode,
    );
    loop {
        let list = Request::new(
            Method::GET,
            format!("?list-type=2&max-keys={DELETE_KEYS_MAX}&prefix={encoded}%2F"),
        );
        let page = target.ask(&mut connection, list).await?.text();
        let paths: Vec<String> = elements(&page, "Key")
            .map(|key| format!("/{key}"))
            .collect();
        if paths.is_empty() {
            return Ok(());
        }
        let answer = target
            .ask(&mut connection, delete_many(&paths))
            .await?
            .text();
        if let Some(message) = element(&answer, "Message") {
            bail!("a bulk delete answered: {message}");
        }
    }
}

/// The text of the first element of that name. The names that are looked for nest nowhere.
fn element(document: &str, name: &str) -> Option<String> {
    elements(document, name).next().map(str::to_owned)
}

fn elements<'a>(document: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = document;
    std::iter::from_fn(move || {
        let (_, behind) = rest.split_once(open.as_str())?;
        let (text, behind) = behind.split_once(close.as_str())?;
        rest = behind;
        Some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_one_after_the_other() {
        let document = "<R><Key>a</Key><Size>1</Size><Key>b/c</Key></R>";
        assert_eq!(elements(document, "Key").collect::<Vec<_>>(), ["a", "b/c"]);
        assert_eq!(element(document, "Size").as_deref(), Some("1"));
        assert_eq!(element(document, "Message"), None);
    }
}
