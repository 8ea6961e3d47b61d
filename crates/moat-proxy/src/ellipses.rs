//! Endpoints written as a range: `https://minio{1...4}:9000` is four of them.
//!
//! The notation is that of MinIO and Sidekick: three dots, both ends included, several ranges in one
//! text give every combination (the last range counts fastest). An end is read as decimal, else as
//! lower-case hexadecimal; one hexadecimal end makes the output hexadecimal. A leading zero, or a
//! last value that is written with one, pads all values to the length of the last: `{01...10}`.

/// What one text may expand to. A cluster has some hundred nodes; a mistyped range has billions.
pub const EXPANSION_MAX: usize = 4096;

/// Why a text with braces is not a list of endpoints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// A brace without its partner, or something else than `{N...M}` between braces.
    #[error(
        "{0:?} holds braces that are no range: write {{1...4}} with three dots and both ends, or no braces"
    )]
    Braces(String),
    /// An end of a range that is no number.
    #[error("{0:?} holds a range whose ends are not decimal or lower-case hexadecimal numbers")]
    End(String),
    /// A range that runs backwards.
    #[error("{0:?} holds a range whose first value is above its last")]
    Backwards(String),
    /// More values than any cluster has.
    #[error("{0:?} stands for more than {EXPANSION_MAX} endpoints")]
    TooMany(String),
}

/// All texts that `pattern` stands for, at least one; a text without braces stands for itself.
///
/// # Errors
/// What about the braces is not understood.
pub fn expand(pattern: &str) -> Result<Vec<String>, PatternError> {
    let mut texts = vec![String::new()];
    let mut rest = pattern;
    while let Some(open) = rest.find(['{', '}']) {
        let braces = || PatternError::Braces(pattern.to_owned());
        let (before, from_open) = rest.split_at(open);
        let inner = from_open.strip_prefix('{').ok_or_else(braces)?;
        let (inner, after) = inner.split_once('}').ok_or_else(braces)?;
        let (first, last) = inner.split_once("...").ok_or_else(braces)?;
        if inner.contains('{') || last.contains('.') {
            return Err(braces());
        }
        let range = Range::parse(pattern, first, last)?;
        if texts.len().saturating_mul(range.count()) > EXPANSION_MAX {
            return Err(PatternError::TooMany(pattern.to_owned()));
        }
        texts = combine(&texts, before, &range);
        rest = after;
    }
    texts.iter_mut().for_each(|text| text.push_str(rest));
    Ok(texts)
}

fn combine(texts: &[String], before: &str, range: &Range) -> Vec<String> {
    let each = |text: &String| {
        let text = text.clone();
        range
            .values()
            .map(move |value| format!("{text}{before}{value}"))
    };
    texts.iter().flat_map(each).collect()
}

struct Range {
    first: u64,
    last: u64,
    hexadecimal: bool,
    /// Digits that values are padded to; 0: not padded.
    width: usize,
}

impl Range {
    fn parse(pattern: &str, first: &str, last: &str) -> Result<Self, PatternError> {
        let bad_end = || PatternError::End(pattern.to_owned());
        let (from, hex_from) = number(first).ok_or_else(bad_end)?;
        let (to, hex_to) = number(last).ok_or_else(bad_end)?;
        if from > to {
            return Err(PatternError::Backwards(pattern.to_owned()));
        }
        let padded = (first.len() > 1 && first.starts_with('0')) || last.starts_with('0');
        Ok(Self {
            first: from,
            last: to,
            hexadecimal: hex_from || hex_to,
            width: if padded { last.len() } else { 0 },
        })
    }

    fn count(&self) -> usize {
        let above_first = usize::try_from(self.last - self.first).unwrap_or(usize::MAX);
        above_first.saturating_add(1)
    }

    fn values(&self) -> impl Iterator<Item = String> {
        let (width, hexadecimal) = (self.width, self.hexadecimal);
        (self.first..=self.last).map(move |value| {
            if hexadecimal {
                format!("{value:0width$x}")
            } else {
                format!("{value:0width$}")
            }
        })
    }
}

/// The number, and whether it could only be read as hexadecimal.
fn number(text: &str) -> Option<(u64, bool)> {
    let plain = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    if text.is_empty() || !text.bytes().all(plain) {
        return None;
    }
    let decimal = text.parse().ok().map(|value| (value, false));
    decimal.or_else(|| Some((u64::from_str_radix(text, 16).ok()?, true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, expected: &[&str]) {
        assert_eq!(expand(pattern).unwrap(), expected, "{pattern}");
    }

    #[test]
    fn ranges_include_both_ends() {
        check("https://m:9000", &["https://m:9000"]);
        check(
            "http://m{1...3}:9000",
            &["http://m1:9000", "http://m2:9000", "http://m3:9000"],
        );
        check("{7...7}", &["7"]);
    }

    #[test]
    fn several_ranges_give_every_combination() {
        check(
            "r{1...2}-n{1...3}",
            &["r1-n1", "r1-n2", "r1-n3", "r2-n1", "r2-n2", "r2-n3"],
        );
    }

    #[test]
    fn zeros_pad_to_the_length_of_the_last_value() {
        check("{08...10}", &["08", "09", "10"]);
        check("{0...2}", &["0", "1", "2"]);
        check("{1...03}", &["01", "02", "03"]);
        check("{001...2}", &["1", "2"]);
    }

    #[test]
    fn one_hexadecimal_end_makes_all_values_hexadecimal() {
        check("{9...b}", &["9", "a", "b"]);
        check("{0a...0c}", &["0a", "0b", "0c"]);
        // The first end is decimal ten, shown as what it is in hexadecimal.
        check("{10...c}", &["a", "b", "c"]);
    }

    #[test]
    fn other_braces_are_refused() {
        let refused = |pattern: &str| expand(pattern).unwrap_err();
        for pattern in [
            "a{",
            "a}",
            "{1..4}",
            "{1....4}",
            "{{1...2}}",
            "{1...2}}",
            "{a,b}",
            "{}",
            "{1...{2...3}}",
        ] {
            assert!(
                matches!(refused(pattern), PatternError::Braces(_)),
                "{pattern}"
            );
        }
        for pattern in ["{...4}", "{1...}", "{A...F}", "{1...z}", "{-1...4}"] {
            assert!(
                matches!(refused(pattern), PatternError::End(_)),
                "{pattern}"
            );
        }
        assert!(matches!(refused("{4...1}"), PatternError::Backwards(_)));
        assert!(matches!(refused("{1...4097}"), PatternError::TooMany(_)));
        assert!(matches!(
            refused("{1...100}{1...100}"),
            PatternError::TooMany(_)
        ));
        assert!(matches!(
            refused("{0...18446744073709551615}"),
            PatternError::TooMany(_)
        ));
    }
}
