//! Texts with `*` for any characters and `?` for one.

/// A pattern of a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pattern(Box<[u8]>);

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        matches(&self.0, text.as_bytes(), |a, b| a == b)
    }

    pub(super) fn matches_ignore_case(&self, text: &str) -> bool {
        matches(&self.0, text.as_bytes(), |a, b| a.eq_ignore_ascii_case(&b))
    }
}

/// Tries the shortest text for each `*` first and goes back to the last `*` alone, so that a pattern
/// with many of them takes no more than the product of both lengths.
fn matches(pattern: &[u8], text: &[u8], equal: fn(u8, u8) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last `*`, and up to where it reaches.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(b'?') => {
                p += 1;
                // One character, which may have several bytes.
                t += 1;
                while text.get(t).is_some_and(|b| b & 0xc0 == 0x80) {
                    t += 1;
                }
            }
            Some(literal) if equal(*literal, text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, reached)) => {
                    p = after;
                    t = reached + 1;
                    star = Some((after, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("lake/*", "lake/", true),
            ("lake/*", "lake", false),
            ("l?ke", "lake", true),
            ("l?ke", "lke", false),
            ("l?ke", "l\u{e4}ke", true),
            ("*a*b*", "xxaxxb", true),
            ("*a*b", "xxaxxbx", false),
            ("a**c", "abc", true),
            ("a\u{e9}*", "a\u{e9}z", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(text),
                expected,
                "{pattern} {text}"
            );
        }
        assert!(Pattern::new("s3:get*").matches_ignore_case("s3:GetObject"));
        assert!(!Pattern::new("s3:get*").matches("s3:GetObject"));
    }

    #[test]
    fn a_pattern_of_stars_does_not_take_forever() {
        let pattern = Pattern::new(&"a*".repeat(200));
        assert!(!pattern.matches(&"a".repeat(150)));
    }

    /// The obvious way, exponential in the number of stars.
    fn simple(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                simple(rest, text)
                    || text
                        .split_first()
                        .is_some_and(|(_, tail)| simple(pattern, tail))
            }
            (Some((b'?', rest)), Some((_, tail))) => simple(rest, tail),
            (Some((a, rest)), Some((b, tail))) => a == b && simple(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_obvious_way(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(
                Pattern::new(&pattern).matches(&text),
                simple(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
