//! Gives renamed buckets their clients' names in XML, piece by piece as it comes: in lists, uploads and
//! errors, where each name has its element.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use moat_net::{Body, BoxError};

use super::words::{Rename, Words};

/// The longest tag that is understood. Those of S3 have some dozen bytes, roots a namespace more.
const TAG_BYTES_MAX: usize = 4 * 1024;
/// The longest text that may hold a name: a URL with a key of 1,024 bytes, each of them encoded.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Deeper elements than these hold no names.
const DEPTH_MAX: usize = 8;

/// What the text of an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Name,
    /// The bucket, then perhaps a key.
    Path,
    /// The URL of the object.
    Url,
    /// The host to ask at.
    Host,
}

/// Whether an element, with the one around it, holds a name.
fn holds(parent: &[u8], element: &[u8]) -> Option<Holds> {
    match (parent, element) {
        (b"ListBucketResult" | b"ListVersionsResult", b"Name")
        | (
            b"ListMultipartUploadsResult"
            | b"ListPartsResult"
            | b"InitiateMultipartUploadResult"
            | b"CompleteMultipartUploadResult",
            b"Bucket",
        )
        | (b"Error", b"BucketName" | b"Bucket") => Some(Holds::Name),
        (b"Error", b"Resource") => Some(Holds::Path),
        (b"Error", b"Endpoint") => Some(Holds::Host),
        (b"CompleteMultipartUploadResult", b"Location") => Some(Holds::Url),
        _ => None,
    }
}

/// Translates the bucket of a path.
fn in_path(renames: &[Rename], text: &str) -> String {
    let Some(rest) = text.strip_prefix('/') else {
        return text.to_owned();
    };
    let (bucket, key) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match renames.iter().find(|rename| rename.upstream == bucket) {
        Some(rename) => format!("/{}{key}", rename.client),
        None => text.to_owned(),
    }
}

/// What stands in a URL and means something in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Translates a document piece by piece.
#[derive(Debug)]
struct Translator {
    words: Words,
    /// Names of the open elements, the root first, down to [`DEPTH_MAX`].
    open: Vec<Vec<u8>>,
    depth: usize,
    /// The tag that is being read, from its `<`.
    tag: Vec<u8>,
    /// The text of an element that holds a name.
    text: Option<(Holds, Vec<u8>)>,
    /// What this is can't be told: the rest goes through as it is.
    lost: bool,
}

impl Translator {
    const fn new(words: Words) -> Self {
        Self {
            words,
            open: Vec::new(),
            depth: 0,
            tag: Vec::new(),
            text: None,
            lost: false,
        }
    }

    fn take(&mut self, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(input.len() + 64);
        for (at, byte) in input.iter().enumerate() {
            if self.lost {
                out.extend_from_slice(&input[at..]);
                break;
            }
            match (&mut self.text, self.tag.is_empty()) {
                (_, false) => self.in_tag(*byte, &mut out),
                (_, true) if *byte == b'<' => self.tag.push(b'<'),
                (Some((_, text)), true) => {
                    text.push(*byte);
                    if text.len() > TEXT_BYTES_MAX {
                        self.give_up(&mut out);
                    }
                }
                (None, true) => out.push(*byte),
            }
        }
        out
    }

    fn end(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.give_up(&mut out);
        out
    }

    fn give_up(&mut self, out: &mut Vec<u8>) {
        self.lost = true;
        if let Some((_, text)) = self.text.take() {
            out.extend_from_slice(&text);
        }
        out.append(&mut self.tag);
    }

    fn in_tag(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.tag.push(byte);
        if byte != b'>' {
            if self.tag.len() > TAG_BYTES_MAX {
                self.give_up(out);
            }
            return;
        }
        let tag = std::mem::take(&mut self.tag);
        match tag.get(1) {
            Some(b'/') => self.close(out),
            Some(b'?' | b'!') => {}
            _ if tag.ends_with(b"/>") => {}
            _ => {
                out.extend_from_slice(&tag);
                self.open(&tag);
                return;
            }
        }
        out.extend_from_slice(&tag);
    }

    fn open(&mut self, tag: &[u8]) {
        let name = tag[1..tag.len() - 1]
            .split(u8::is_ascii_whitespace)
            .next()
            .unwrap_or_default();
        let parent = self.open.last().filter(|_| self.depth == self.open.len());
        if let Some(holds) = parent.and_then(|parent| holds(parent, name)) {
            self.text = Some((holds, Vec::new()));
        }
        self.depth += 1;
        if self.open.len() < DEPTH_MAX && self.depth == self.open.len() + 1 {
            self.open.push(name.to_vec());
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some((holds, text)) = self.text.take() {
            match std::str::from_utf8(&text) {
                Ok(text) => out.extend_from_slice(self.translated(holds, text).as_bytes()),
                Err(_) => out.extend_from_slice(&text),
            }
        }
        if self.depth == self.open.len() {
            self.open.pop();
        }
        self.depth = self.depth.saturating_sub(1);
    }

    fn translated(&self, holds: Holds, text: &str) -> String {
        match holds {
            Holds::Path => in_path(&self.words.renames, text),
            Holds::Url => escaped(&self.words.url()),
            Holds::Host => {
                let origin = &self.words.origin;
                escaped(origin.rsplit('/').next().unwrap_or_default())
            }
            Holds::Name => {
                let mut renames = self.words.renames.iter();
                let found = renames.find(|rename| rename.upstream == text);
                found.map_or(text, |rename| &rename.client).to_owned()
            }
        }
    }
}

/// An answer's body with the clients' names.
pub(super) struct Translated {
    source: Body,
    /// `None` after the end.
    translator: Option<Translator>,
}

impl Translated {
    pub(super) fn new(source: Body, words: Words) -> Self {
        Self {
            source,
            translator: Some(Translator::new(words)),
        }
    }
}

impl HttpBody for Translated {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        loop {
            let Some(translator) = &mut this.translator else {
                return Poll::Ready(None);
            };
            let out = match ready!(Pin::new(&mut this.source).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => translator.take(&data),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this
                    .translator
                    .take()
                    .map(Translator::end)
                    .unwrap_or_default(),
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::Rename;
    use super::*;

    fn words() -> Words {
        Words {
            renames: vec![Rename::new("lake-7", "lake"), Rename::new("x", "y")],
            bucket: Some("lake".to_owned()),
            origin: "https://lake.s3.test:8443".to_owned(),
            path: "/a%20b&c".to_owned(),
            region: Some("home-1".to_owned()),
        }
    }

    /// The result is the same wherever the pieces end.
    fn check(document: &str, expected: &str) {
        for size in [1, 3, 7, 1000] {
            let mut translator = Translator::new(words());
            let mut out = Vec::new();
            for piece in document.as_bytes().chunks(size) {
                out.extend(translator.take(piece));
            }
            out.extend(translator.end());
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{size}");
        }
    }

    #[test]
    fn names_in_their_places_are_translated_and_no_others() {
        check(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"u\"><Name>lake-7</Name><Prefix/>\
             <Contents><Key>lake-7</Key><Owner><Name>lake-7</Name></Owner></Contents>\
             <CommonPrefixes><Prefix>lake-7</Prefix></CommonPrefixes></ListBucketResult>",
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"u\"><Name>lake</Name><Prefix/>\
             <Contents><Key>lake-7</Key><Owner><Name>lake-7</Name></Owner></Contents>\
             <CommonPrefixes><Prefix>lake-7</Prefix></CommonPrefixes></ListBucketResult>",
        );
        check(
            " <CompleteMultipartUploadResult><Location>http://h:1/lake-7/a%20b&amp;c</Location><Bucket>lake-7</Bucket><Key>k</Key></CompleteMultipartUploadResult>",
            " <CompleteMultipartUploadResult><Location>https://lake.s3.test:8443/a%20b&amp;c</Location><Bucket>lake</Bucket><Key>k</Key></CompleteMultipartUploadResult>",
        );
        for root in [
            "ListVersionsResult/Name",
            "ListMultipartUploadsResult/Bucket",
            "ListPartsResult/Bucket",
            "InitiateMultipartUploadResult/Bucket",
            "Error/Bucket",
        ] {
            let (root, name) = root.split_once('/').unwrap();
            let with = |bucket| format!("<{root}><{name}>{bucket}</{name}><Key>x</Key></{root}>");
            check(&with("lake-7"), &with("lake"));
            // Of another bucket nothing is known.
            check(&with("lake-77"), &with("lake-77"));
        }
        check(
            "<Error><Code>PermanentRedirect</Code><Endpoint>lake-7.s3.eu-1.amazonaws.com</Endpoint></Error>",
            "<Error><Code>PermanentRedirect</Code><Endpoint>lake.s3.test:8443</Endpoint></Error>",
        );
        check(
            "<Error><Code>NoSuchKey</Code><Key>a</Key><BucketName>lake-7</BucketName><Resource>/lake-7/a&amp;b</Resource></Error>",
            "<Error><Code>NoSuchKey</Code><Key>a</Key><BucketName>lake</BucketName><Resource>/lake/a&amp;b</Resource></Error>",
        );
    }

    #[test]
    fn what_is_no_document_of_s3_goes_through() {
        check("plain text", "plain text");
        check("<a><b>", "<a><b>");
        check(
            "<ListBucketResult><Name>lake-7",
            "<ListBucketResult><Name>lake-7",
        );
        let long = format!("<Error><Resource>{}</Resource></Error>", "a".repeat(20_000));
        check(&long, &long);
        let deep = "<a>".repeat(20) + "<Error><BucketName>x</BucketName></Error>";
        check(&deep, &deep);
    }

    #[test]
    fn paths_are_translated_at_their_first_part() {
        let check =
            |text: &str, expected: &str| assert_eq!(in_path(&words().renames, text), expected);
        check("/lake-7", "/lake");
        check("/lake-7/lake-7", "/lake/lake-7");
        check("/lake-77/k", "/lake-77/k");
        check("lake-7", "lake-7");
        check("", "");
    }
}
