//! What one connection does in a row, one operation at a time.

use anyhow::{Context, Result, ensure};
use http::Method;

use crate::content::{BIG_BYTES, MIDDLE_BYTES, RANGE_BYTES, SMALL_BYTES, content};
use crate::request::{Body, Request, Signed, Target};
use crate::rows::{self, FOLDER_KEYS, PAGE_KEYS, Row, TREE_KEYS, Unit};
use crate::spark::Job;
use crate::wire::{Connection, Keep};

/// Requests that a read row signs before the clock starts, for each connection.
const CYCLE_REQUESTS: usize = 128;

/// The work of one connection.
#[derive(Debug)]
pub(crate) enum Work {
    /// The same signed requests again and again.
    Cycle { requests: Vec<Signed>, next: usize },
    /// New keys all the time, signed as they are sent.
    Fresh {
        row: Row,
        prefix: String,
        next: usize,
    },
    /// The whole tree, page by page, again and again.
    Walk,
    /// One Spark job after the other.
    Jobs { prefix: String, next: usize },
}

impl Work {
    /// The work of connection number `connection`. New keys go below `prefix`, which no other run uses.
    ///
    /// # Errors
    /// If a request can't be signed.
    pub(crate) fn new(target: &Target, row: Row, connection: usize, prefix: &str) -> Result<Self> {
        let prefix = format!("{prefix}/{connection}");
        Ok(match row {
            Row::PutSmall
            | Row::PutMiddle
            | Row::PutBig
            | Row::PutBigAlone
            | Row::CopySmall
            | Row::CopyHuge => Self::Fresh {
                row,
                prefix,
                next: 0,
            },
            Row::ListTree => Self::Walk,
            Row::Spark => Self::Jobs { prefix, next: 0 },
            Row::GetSmall
            | Row::HeadFound
            | Row::HeadMissing
            | Row::GetMiddle
            | Row::GetBig
            | Row::GetBigAlone
            | Row::Range
            | Row::ListFolder => {
                let requests = (0..CYCLE_REQUESTS)
                    .map(|i| target.sign(read(row, connection * CYCLE_REQUESTS + i)))
                    .collect::<Result<_>>()?;
                Self::Cycle { requests, next: 0 }
            }
        })
    }

    /// One operation.
    ///
    /// # Errors
    /// If the answer is not the right one.
    pub(crate) async fn step(
        &mut self,
        target: &Target,
        connection: &mut Connection,
    ) -> Result<()> {
        match self {
            Self::Cycle { requests, next } => {
                let request = &requests[*next % requests.len()];
                *next += 1;
                request.send(connection, Keep::Count).await?;
            }
            Self::Fresh { row, prefix, next } => {
                let request = write(target, *row, prefix, *next);
                *next += 1;
                target.sign(request)?.send(connection, Keep::Count).await?;
            }
            Self::Walk => walk(target, connection).await?,
            Self::Jobs { prefix, next } => {
                let job = Job::new(target.bucket(), prefix, *next);
                *next += 1;
                job.run(target, connection).await?;
            }
        }
        Ok(())
    }
}

/// Read number `index` of a row.
fn read(row: Row, index: usize) -> Request {
    let get =
        |path: String, bytes: usize| Request::new(Method::GET, path).with_length(bytes as u64);
    match row {
        Row::HeadFound => Request::new(Method::HEAD, rows::small_path(index)),
        Row::HeadMissing => Request::new(Method::HEAD, format!("/missing/{index:04}")).answers(404),
        Row::GetMiddle => get(rows::middle_path(index), MIDDLE_BYTES),
        Row::GetBig | Row::GetBigAlone => get(rows::big_path(index), BIG_BYTES),
        Row::Range => {
            let (first, last) = rows::range(index);
            get(rows::big_path(index), RANGE_BYTES)
                .header("range", format!("bytes={first}-{last}"))
                .answers(206)
        }
        Row::ListFolder => list(&format!(
            "delimiter=%2F&list-type=2&prefix=tree%2Fd{:02}%2F",
            index % 100
        ))
        .holding(FOLDER_COUNT),
        _ => get(rows::small_path(index), SMALL_BYTES),
    }
}

const FOLDER_COUNT: &str = "<KeyCount>100</KeyCount>";
const _: () = assert!(FOLDER_KEYS == 100, "FOLDER_COUNT says so");

/// Write number `index` below `prefix`.
fn write(target: &Target, row: Row, prefix: &str, index: usize) -> Request {
    let path = format!("{prefix}/{index}");
    let copy = |source: String| {
        Request::new(Method::PUT, path.clone())
            .header("x-amz-copy-source", format!("/{}{source}", target.bucket()))
            .holding("CopyObjectResult")
    };
    match row {
        Row::CopyHuge => copy(HUGE_PATH.to_owned()),
        Row::CopySmall => copy(rows::small_path(index)),
        _ => {
            let bytes = match row.unit() {
                Unit::Bytes(bytes) => usize::try_from(bytes).unwrap_or(BIG_BYTES),
                _ => SMALL_BYTES,
            };
            put(path, index as u64, bytes)
        }
    }
}

/// The object of 1 GiB.
pub(crate) const HUGE_PATH: &str = "/huge/source";

/// A PUT of object number `index`, as clients send it: the type that they send where they know no better.
pub(crate) fn put(path: String, index: u64, bytes: usize) -> Request {
    Request::new(Method::PUT, path)
        .header("content-type", "application/octet-stream")
        .body(Body::Shared(content(index, bytes)))
}

fn list(query: &str) -> Request {
    Request::new(Method::GET, format!("?{query}"))
}

fn page(token: Option<&str>) -> Request {
    let token = token.map_or(String::new(), |token| {
        let encoded = moat_s3::uri::encode(token.as_bytes(), moat_s3::uri::Slash::Encode);
        format!("continuation-token={encoded}&")
    });
    list(&format!(
        "{token}list-type=2&max-keys={PAGE_KEYS}&prefix=tree%2F"
    ))
}

/// Lists the whole tree and counts. A server may end with an empty page.
async fn walk(target: &Target, connection: &mut Connection) -> Result<()> {
    let (mut token, mut keys) = (None, 0);
    loop {
        let request = target.sign(page(token.as_deref()))?;
        let answer = request.send(connection, Keep::All).await?;
        let text = std::str::from_utf8(&answer.body).context("a page is not text")?;
        let on_page = text.matches("<Key>").count();
        keys += on_page;
        ensure!(on_page <= PAGE_KEYS, "a page of {on_page} keys");
        token = next_token(text)?;
        if token.is_none() {
            ensure!(keys == TREE_KEYS, "{keys} keys instead of {TREE_KEYS}");
            return Ok(());
        }
    }
}

/// The token of the next page; none behind the last one.
fn next_token(page: &str) -> Result<Option<String>> {
    if page.contains("<IsTruncated>false</IsTruncated>") {
        return Ok(None);
    }
    let token = page
        .split_once("<NextContinuationToken>")
        .and_then(|(_, rest)| rest.split_once("</NextContinuationToken>"))
        .context("a cut page without a token")?;
    Ok(Some(token.0.replace("&amp;", "&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(page: &str, expected: Option<Option<&str>>) {
        let got = next_token(page).ok();
        assert_eq!(got.as_ref().map(Option::as_deref), expected);
    }

    #[test]
    fn a_cut_page_must_have_a_token() {
        let more = "<IsTruncated>true</IsTruncated>";
        let token = "<NextContinuationToken>a&amp;b=</NextContinuationToken>";
        check(&format!("{more}{token}"), Some(Some("a&b=")));
        check("<IsTruncated>false</IsTruncated>", Some(None));
        check(more, None);
    }
}
