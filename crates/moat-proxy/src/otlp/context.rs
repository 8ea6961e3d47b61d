//! W3C trace context: the `traceparent` header (Trace Context level 1, section 3.2).

use std::fmt;

use http::{HeaderMap, HeaderName};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The bit of the flags that says that whoever called records its part of the trace.
const SAMPLED: u8 = 1;
/// `00-`, 32 digits, `-`, 16 digits, `-`, two digits.
const LENGTH: usize = 55;

/// Where in which trace a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) flags: u8,
}

impl Context {
    pub(super) const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace, one step further.
    pub(super) const fn child(&self, span_id: [u8; 8]) -> Self {
        Self { span_id, ..*self }
    }

    /// A new trace that is recorded.
    pub(super) const fn root(trace_id: [u8; 16], span_id: [u8; 8]) -> Self {
        Self {
            trace_id,
            span_id,
            flags: SAMPLED,
        }
    }

    /// What the caller says. `None` if it says nothing, or nothing that can be understood.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (only, None) = (values.next()?, values.next()) else {
            return None;
        };
        Self::parse(only.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // Later versions may say more behind another dash; what comes before stays as it is.
        let known = text.get(..LENGTH)?;
        let more = &text[LENGTH..];
        let version = byte(known.get(..2)?)?;
        let well_formed = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more[0] == b'-',
        };
        let dashes = [2, 35, 52].into_iter().all(|at| known[at] == b'-');
        if !well_formed || !dashes {
            return None;
        }
        let context = Self {
            trace_id: bytes(&known[3..35])?,
            span_id: bytes(&known[36..52])?,
            flags: byte(&known[53..55])?,
        };
        let zero = context.trace_id == [0; 16] || context.span_id == [0; 8];
        (!zero).then_some(context)
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Other flags than the one that is known must not be passed on.
        let flags = self.flags & SAMPLED;
        write!(
            f,
            "00-{}-{}-{flags:02x}",
            hex(&self.trace_id),
            hex(&self.span_id)
        )
    }
}

/// Lower-case digits, which the header demands.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut found = [0; N];
    for (byte_found, pair) in found.iter_mut().zip(digits.chunks(2)) {
        *byte_found = byte(pair)?;
    }
    Some(found)
}

/// Two lower-case digits. Upper case is an error by the standard.
fn byte(pair: &[u8]) -> Option<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let [high, low] = pair else {
        return None;
    };
    Some(digit(*high)? << 4 | digit(*low)?)
}

/// Whether the client signed the header `name`, so that it must reach the store as it is: named in
/// `Authorization`, or in the query of a presigned URL.
pub(super) fn is_signed(headers: &HeaderMap, query: Option<&str>, name: &HeaderName) -> bool {
    let authorization = headers.get(http::header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok());
    let of_header = authorization
        .into_iter()
        .flat_map(|text| text.split([',', ' ']))
        .filter_map(|part| part.strip_prefix("SignedHeaders="));
    let of_query = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter_map(|part| part.split_once('='))
        .filter(|(key, _)| key.eq_ignore_ascii_case("x-amz-signedheaders"))
        .map(|(_, value)| value);
    of_header.chain(of_query).any(|list| {
        let list = list.replace("%3B", ";").replace("%3b", ";");
        list.split(';')
            .any(|one| one.eq_ignore_ascii_case(name.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_standard_is_read_and_written() {
        let context = Context::parse(EXAMPLE.as_bytes()).unwrap();
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), EXAMPLE);
        let child = context.child([0xab; 8]).to_string();
        assert_eq!(
            child,
            EXAMPLE.replace("00f067aa0ba902b7", "abababababababab")
        );
    }

    #[test]
    fn what_the_standard_forbids_is_no_context() {
        let later = EXAMPLE.replacen("00", "cc", 1) + "-more";
        assert!(Context::parse(later.as_bytes()).is_some());
        for bad in [
            String::new(),
            EXAMPLE.to_uppercase(),
            EXAMPLE.replacen("00", "ff", 1),
            EXAMPLE.to_owned() + "-more",
            EXAMPLE.replacen("00", "cc", 1) + "more",
            EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            EXAMPLE.replace('-', "_"),
            EXAMPLE[..54].to_owned(),
        ] {
            assert_eq!(Context::parse(bad.as_bytes()), None, "{bad}");
        }
        let mut twice = HeaderMap::new();
        twice.append(TRACEPARENT, EXAMPLE.parse().unwrap());
        assert!(Context::of(&twice).is_some());
        twice.append(TRACEPARENT, EXAMPLE.parse().unwrap());
        assert_eq!(Context::of(&twice), None);
    }

    #[test]
    fn signed_headers_are_found_in_header_and_query() {
        let check = |authorization: Option<&str>, query| {
            let mut headers = HeaderMap::new();
            if let Some(text) = authorization {
                headers.insert("authorization", text.parse().unwrap());
            }
            is_signed(&headers, query, &TRACEPARENT)
        };
        let with = "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host;traceparent, Signature=c";
        assert!(check(Some(with), None));
        assert!(check(Some(&with.replace(", ", ",")), None));
        assert!(!check(
            Some(&with.replace("traceparent", "x-amz-date")),
            None
        ));
        assert!(check(
            None,
            Some("a=b&X-Amz-SignedHeaders=host%3Btraceparent")
        ));
        assert!(!check(None, Some("a=traceparent")));
        assert!(!check(None, None));
    }
}
