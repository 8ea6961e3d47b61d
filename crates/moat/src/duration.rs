//! Durations as people and Go programs write them: `5s`, `1m30s`, `1.5h`, `250ms`.

use std::time::Duration;

/// Longer ones are mistakes: what is meant to last for ever has a word of its own.
const MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads one. A number without a unit is refused, since it could be anything; `0` is clear.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let letters = behind
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(behind.len());
        let (unit, next) = behind.split_at(letters);
        seconds += number * seconds_each(unit)?;
        rest = next;
        if rest.is_empty() {
            break;
        }
    }
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    // Decimal fractions of seconds are not exact in binary, and nobody means fractions of nanoseconds.
    let rounded = Duration::from_micros(
        u64::try_from((duration + Duration::from_nanos(500)).as_micros()).ok()?,
    );
    (rounded <= MAX).then_some(if rounded.is_zero() { duration } else { rounded })
}

fn seconds_each(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, millis) in [
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("2h45m30.5s", 9_930_500),
            ("0", 0),
            ("0s", 0),
            ("+1s", 1_000),
            ("1000us", 1),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "", "5", "s", "5 s", "-5s", "5x", "1.2.3s", "5s5", "9999999h", "+",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
