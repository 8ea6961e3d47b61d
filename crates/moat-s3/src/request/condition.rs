//! Conditional headers, with the precedence of RFC 9110 section 13.2.2 (S3 documents the same
//! results for its pairs of headers).

use http::HeaderMap;
use moat_types::UnixMillis;

use super::header_text;
use crate::error::{ErrorCode, S3Error};
use crate::time::parse_http_date;

/// The most entity tags that one header may list; S3's own clients send one.
const ETAGS_MAX: usize = 64;

/// The conditions of one request. Default: none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conditions {
    /// `If-Match`.
    pub if_match: Option<EtagCondition>,
    /// `If-None-Match`.
    pub if_none_match: Option<EtagCondition>,
    /// `If-Modified-Since`; a value that is no date is ignored, as RFC 9110 wants.
    pub if_modified_since: Option<UnixMillis>,
    /// `If-Unmodified-Since`; likewise.
    pub if_unmodified_since: Option<UnixMillis>,
}

/// The value of `If-Match` or `If-None-Match`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EtagCondition {
    /// `*`: any object.
    Any,
    /// One of these.
    OneOf(Vec<EtagPattern>),
}

/// One listed entity tag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtagPattern {
    /// The tag without quotes.
    pub tag: String,
    /// Whether it was written `W/"..."`.
    pub weak: bool,
}

/// What conditions are compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectFacts<'a> {
    /// The entity tag as clients see it, without quotes.
    pub etag: &'a str,
    /// The time of the last change.
    pub last_modified: UnixMillis,
}

/// The result for a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConditionOutcome {
    /// Serve the request.
    Proceed,
    /// 304, without a body.
    NotModified,
    /// 412.
    PreconditionFailed,
}

impl Conditions {
    /// Reads `If-Match`, `If-None-Match`, `If-Modified-Since`, `If-Unmodified-Since`.
    ///
    /// # Errors
    /// `InvalidArgument` if a value is not text or lists too many tags.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, S3Error> {
        Self::from_named(
            headers,
            [
                "if-match",
                "if-none-match",
                "if-modified-since",
                "if-unmodified-since",
            ],
        )
    }

    /// Reads `x-amz-copy-source-if-*`.
    ///
    /// # Errors
    /// As [`Conditions::from_headers`].
    pub fn from_copy_source_headers(headers: &HeaderMap) -> Result<Self, S3Error> {
        Self::from_named(
            headers,
            [
                "x-amz-copy-source-if-match",
                "x-amz-copy-source-if-none-match",
                "x-amz-copy-source-if-modified-since",
                "x-amz-copy-source-if-unmodified-since",
            ],
        )
    }

    fn from_named(headers: &HeaderMap, names: [&str; 4]) -> Result<Self, S3Error> {
        let [matches, none_match, modified, unmodified] = names;
        let tags = |name| etag_condition(headers, name);
        let date = |name| Ok::<_, S3Error>(header_text(headers, name)?.and_then(parse_http_date));
        Ok(Self {
            if_match: tags(matches)?,
            if_none_match: tags(none_match)?,
            if_modified_since: date(modified)?,
            if_unmodified_since: date(unmodified)?,
        })
    }

    /// Whether there is no condition.
    pub const fn is_empty(&self) -> bool {
        self.if_match.is_none()
            && self.if_none_match.is_none()
            && self.if_modified_since.is_none()
            && self.if_unmodified_since.is_none()
    }

    /// The result for GET and HEAD of an object that exists.
    pub fn for_read(&self, object: ObjectFacts<'_>) -> ConditionOutcome {
        let changed_after = |at: UnixMillis| object.last_modified.seconds() > at.seconds();
        let precondition = match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) => tags.matches_strongly(object.etag),
            (None, Some(at)) => !changed_after(at),
            (None, None) => true,
        };
        if !precondition {
            return ConditionOutcome::PreconditionFailed;
        }
        let fresh_wanted = match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) => !tags.matches_weakly(object.etag),
            (None, Some(at)) => changed_after(at),
            (None, None) => true,
        };
        if fresh_wanted {
            ConditionOutcome::Proceed
        } else {
            ConditionOutcome::NotModified
        }
    }

    /// The result for the source of a copy: what would be 304 for a read is 412.
    ///
    /// # Errors
    /// `PreconditionFailed`.
    pub fn for_copy_source(&self, object: ObjectFacts<'_>) -> Result<(), ErrorCode> {
        match self.for_read(object) {
            ConditionOutcome::Proceed => Ok(()),
            _ => Err(ErrorCode::PreconditionFailed),
        }
    }

    /// The result for a write or delete over `current`, the object that stands at the key now.
    ///
    /// # Errors
    /// `NoSuchKey` for `If-Match` on an absent object, as S3 answers; else `PreconditionFailed`.
    pub fn for_write(&self, current: Option<ObjectFacts<'_>>) -> Result<(), ErrorCode> {
        let Some(object) = current else {
            return match self.if_match {
                Some(_) => Err(ErrorCode::NoSuchKey),
                None => Ok(()),
            };
        };
        // RFC 9110 gives If-Modified-Since a meaning for GET and HEAD only.
        let conditions = Self {
            if_modified_since: None,
            ..self.clone()
        };
        match conditions.for_read(object) {
            ConditionOutcome::Proceed => Ok(()),
            _ => Err(ErrorCode::PreconditionFailed),
        }
    }
}

impl EtagCondition {
    /// Parses a header value: `*`, or tags that are quoted, weak or (SDK v1) bare.
    pub fn parse(value: &str) -> Self {
        let value = value.trim();
        if value == "*" || value == "\"*\"" {
            return Self::Any;
        }
        Self::OneOf(EtagPatterns { rest: value }.collect())
    }

    /// Strong comparison: a weak tag never matches. For `If-Match`.
    pub fn matches_strongly(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(patterns) => patterns.iter().any(|p| !p.weak && p.tag == etag),
        }
    }

    /// Weak comparison: only the text counts. For `If-None-Match`.
    pub fn matches_weakly(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(patterns) => patterns.iter().any(|p| p.tag == etag),
        }
    }
}

/// Splits a list of entity tags at commas outside quotes.
struct EtagPatterns<'a> {
    rest: &'a str,
}

impl Iterator for EtagPatterns<'_> {
    type Item = EtagPattern;

    fn next(&mut self) -> Option<EtagPattern> {
        self.rest = self.rest.trim_start_matches([',', ' ', '\t']);
        if self.rest.is_empty() {
            return None;
        }
        let (weak, text) = match self.rest.strip_prefix("W/") {
            Some(text) => (true, text),
            None => (false, self.rest),
        };
        let tag = match text.strip_prefix('"') {
            Some(quoted) => {
                let (tag, rest) = quoted.split_once('"').unwrap_or((quoted, ""));
                self.rest = rest;
                tag
            }
            None => {
                let (tag, rest) = text.split_once(',').unwrap_or((text, ""));
                self.rest = rest;
                tag.trim_end()
            }
        };
        Some(EtagPattern {
            tag: tag.to_owned(),
            weak,
        })
    }
}

fn etag_condition(headers: &HeaderMap, name: &str) -> Result<Option<EtagCondition>, S3Error> {
    let Some(text) = header_text(headers, name)? else {
        return Ok(None);
    };
    if text.bytes().filter(|b| *b == b',').count() >= ETAGS_MAX {
        return Err(S3Error::new(
            ErrorCode::InvalidArgument,
            format!("The header {name} lists too many entity tags."),
        ));
    }
    Ok(Some(EtagCondition::parse(text)))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::time::http_date;

    const AT: UnixMillis = UnixMillis(1_700_000_000_500);
    const OBJECT: ObjectFacts<'static> = ObjectFacts {
        etag: "abc-1",
        last_modified: AT,
    };

    fn conditions(pairs: &[(&'static str, &str)]) -> Conditions {
        let headers = pairs
            .iter()
            .map(|(n, v)| {
                (
                    HeaderName::from_static(n),
                    HeaderValue::from_str(v).unwrap(),
                )
            })
            .collect();
        Conditions::from_headers(&headers).unwrap()
    }

    fn check(pairs: &[(&'static str, &str)], expected: ConditionOutcome) {
        assert_eq!(conditions(pairs).for_read(OBJECT), expected, "{pairs:?}");
    }

    #[test]
    fn tags_match_quoted_bare_weak_and_listed() {
        use ConditionOutcome::{NotModified, PreconditionFailed, Proceed};
        for value in [
            "\"abc-1\"",
            "abc-1",
            "*",
            "\"x\", \"abc-1\"",
            "x,abc-1 ",
            "\"a,b\",\"abc-1\"",
        ] {
            check(&[("if-match", value)], Proceed);
            check(&[("if-none-match", value)], NotModified);
        }
        check(&[("if-match", "W/\"abc-1\"")], PreconditionFailed);
        check(&[("if-none-match", "W/\"abc-1\"")], NotModified);
        for value in ["\"abc\"", "", "\"abc-1"] {
            let expected = if value == "\"abc-1" {
                Proceed
            } else {
                PreconditionFailed
            };
            check(&[("if-match", value)], expected);
        }
        check(&[("if-none-match", "\"abc\"")], Proceed);
    }

    #[test]
    fn dates_compare_in_whole_seconds() {
        use ConditionOutcome::{NotModified, PreconditionFailed, Proceed};
        let same = http_date(AT);
        let before = http_date(UnixMillis(AT.0 - 1000));
        check(&[("if-modified-since", &same)], NotModified);
        check(&[("if-modified-since", &before)], Proceed);
        check(&[("if-unmodified-since", &same)], Proceed);
        check(&[("if-unmodified-since", &before)], PreconditionFailed);
        check(&[("if-unmodified-since", "yesterday")], Proceed);
    }

    #[test]
    fn tags_win_over_dates() {
        use ConditionOutcome::{NotModified, Proceed};
        let before = http_date(UnixMillis(AT.0 - 1000));
        let same = http_date(AT);
        check(
            &[("if-match", "abc-1"), ("if-unmodified-since", &before)],
            Proceed,
        );
        check(
            &[("if-none-match", "abc-1"), ("if-modified-since", &before)],
            NotModified,
        );
        check(
            &[("if-none-match", "x"), ("if-modified-since", &same)],
            Proceed,
        );
    }

    #[test]
    fn writes_and_copies_answer_412_and_404() {
        let none_match = conditions(&[("if-none-match", "*")]);
        assert_eq!(none_match.for_write(None), Ok(()));
        assert_eq!(
            none_match.for_write(Some(OBJECT)),
            Err(ErrorCode::PreconditionFailed)
        );
        let matches = conditions(&[("if-match", "\"abc-1\"")]);
        assert_eq!(matches.for_write(Some(OBJECT)), Ok(()));
        assert_eq!(matches.for_write(None), Err(ErrorCode::NoSuchKey));
        let same = http_date(AT);
        let modified = conditions(&[("if-modified-since", &same)]);
        assert_eq!(modified.for_write(Some(OBJECT)), Ok(()));
        assert_eq!(
            modified.for_copy_source(OBJECT),
            Err(ErrorCode::PreconditionFailed)
        );
    }

    #[test]
    fn floods_of_tags_are_refused() {
        let mut headers = HeaderMap::new();
        let value = "a,".repeat(ETAGS_MAX + 1);
        headers.insert("if-match", HeaderValue::from_str(&value).unwrap());
        assert!(Conditions::from_headers(&headers).is_err());
    }
}
