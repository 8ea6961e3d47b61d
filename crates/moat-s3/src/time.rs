//! The three date forms of S3, parsed and written without allocation: HTTP dates (RFC 9110
//! section 5.6.7), ISO 8601 with milliseconds (XML documents) and ISO 8601 basic (`x-amz-date`).

use std::fmt;
use std::ops::Deref;

use moat_types::UnixMillis;

const MILLIS_PER_SECOND: i64 = 1000;
const SECONDS_PER_DAY: i64 = 86_400;
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A short ASCII text of `N` bytes on the stack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateText<const N: usize>([u8; N]);

impl<const N: usize> DateText<N> {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("dates are written in ASCII")
    }

    /// The text's bytes.
    pub const fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> Deref for DateText<N> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<const N: usize> fmt::Display for DateText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for DateText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
pub type HttpDate = DateText<29>;
/// `2009-10-12T17:50:30.000Z`.
pub type IsoMillis = DateText<24>;
/// `20130524T000000Z`.
pub type AmzDate = DateText<16>;

/// Writes an HTTP date; milliseconds are cut.
pub fn http_date(at: UnixMillis) -> HttpDate {
    let c = Civil::of(at);
    let mut out = *b"Sun, 00 Jan 0000 00:00:00 GMT";
    out[..3].copy_from_slice(WEEKDAYS[c.weekday].as_bytes());
    digits(&mut out[5..7], c.day);
    out[8..11].copy_from_slice(MONTHS[(c.month - 1) as usize].as_bytes());
    digits(&mut out[12..16], c.year);
    digits(&mut out[17..19], c.hour);
    digits(&mut out[20..22], c.minute);
    digits(&mut out[23..25], c.second);
    DateText(out)
}

/// Writes ISO 8601 with milliseconds, as S3's XML does.
pub fn iso_millis(at: UnixMillis) -> IsoMillis {
    let c = Civil::of(at);
    let mut out = *b"0000-00-00T00:00:00.000Z";
    digits(&mut out[..4], c.year);
    digits(&mut out[5..7], c.month);
    digits(&mut out[8..10], c.day);
    digits(&mut out[11..13], c.hour);
    digits(&mut out[14..16], c.minute);
    digits(&mut out[17..19], c.second);
    digits(&mut out[20..23], c.millis);
    DateText(out)
}

/// Writes the basic form of `x-amz-date`; its first eight characters are the scope date.
pub fn amz_date(at: UnixMillis) -> AmzDate {
    let c = Civil::of(at);
    let mut out = *b"00000000T000000Z";
    digits(&mut out[..4], c.year);
    digits(&mut out[4..6], c.month);
    digits(&mut out[6..8], c.day);
    digits(&mut out[9..11], c.hour);
    digits(&mut out[11..13], c.minute);
    digits(&mut out[13..15], c.second);
    DateText(out)
}

/// Parses the form of `x-amz-date`: `20130524T000000Z`.
pub fn parse_amz_date(text: &str) -> Option<UnixMillis> {
    let b = text.as_bytes();
    if b.len() != 16 || b[8] != b'T' || b[15] != b'Z' {
        return None;
    }
    instant(
        number(&b[..4])?,
        number(&b[4..6])?,
        number(&b[6..8])?,
        [number(&b[9..11])?, number(&b[11..13])?, number(&b[13..15])?],
    )
}

/// Parses `2009-10-12T17:50:30Z` with or without a fraction of a second (cut to milliseconds).
pub fn parse_iso(text: &str) -> Option<UnixMillis> {
    let b = text.as_bytes();
    if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[10] != b'T' {
        return None;
    }
    if b[13] != b':' || b[16] != b':' {
        return None;
    }
    let seconds = instant(
        number(&b[..4])?,
        number(&b[5..7])?,
        number(&b[8..10])?,
        [
            number(&b[11..13])?,
            number(&b[14..16])?,
            number(&b[17..19])?,
        ],
    )?;
    let fraction = b[19..].strip_suffix(b"Z")?;
    Some(UnixMillis(seconds.0 + fraction_millis(fraction)?))
}

/// Parses any of the three forms that RFC 9110 section 5.6.7 asks recipients to take. The day
/// of the week is not checked against the date, as clients get it wrong and it changes nothing.
pub fn parse_http_date(text: &str) -> Option<UnixMillis> {
    let text = text.trim();
    let (weekday, rest) = text.split_once(' ')?;
    match weekday.strip_suffix(',') {
        Some(_) if rest.as_bytes().get(2) == Some(&b'-') => parse_rfc850(rest),
        Some(_) => parse_imf_fixdate(rest),
        None => parse_asctime(rest),
    }
}

/// `06 Nov 1994 08:49:37 GMT`, after the weekday. `UTC`, `+0000` and one-digit days occur too.
fn parse_imf_fixdate(text: &str) -> Option<UnixMillis> {
    let mut words = text.split_ascii_whitespace();
    let day = small_number(words.next()?)?;
    let month = month(words.next()?)?;
    let year = words.next()?;
    let year = (year.len() == 4).then(|| number(year.as_bytes()))??;
    let clock = clock(words.next()?)?;
    if !is_utc(words.next()?) || words.next().is_some() {
        return None;
    }
    instant(year, month, day, clock)
}

/// `06-Nov-94 08:49:37 GMT`, after the weekday.
fn parse_rfc850(text: &str) -> Option<UnixMillis> {
    let mut words = text.split_ascii_whitespace();
    let mut date = words.next()?.split('-');
    let day = small_number(date.next()?)?;
    let month = month(date.next()?)?;
    let year = date.next()?;
    if date.next().is_some() {
        return None;
    }
    let year = match (year.len(), number(year.as_bytes())?) {
        // RFC 9110 wants two-digit years over 50 years ahead taken as past; 1970 is our floor.
        (2, short) if short >= 70 => 1900 + short,
        (2, short) => 2000 + short,
        (4, long) => long,
        _ => return None,
    };
    let clock = clock(words.next()?)?;
    if !is_utc(words.next()?) || words.next().is_some() {
        return None;
    }
    instant(year, month, day, clock)
}

/// `Nov  6 08:49:37 1994`, after the weekday.
fn parse_asctime(text: &str) -> Option<UnixMillis> {
    let mut words = text.split_ascii_whitespace();
    let month = month(words.next()?)?;
    let day = small_number(words.next()?)?;
    let clock = clock(words.next()?)?;
    let year = words.next()?;
    let year = (year.len() == 4).then(|| number(year.as_bytes()))??;
    if words.next().is_some() {
        return None;
    }
    instant(year, month, day, clock)
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "GMT" | "UTC" | "Z" | "+0000")
}

fn month(name: &str) -> Option<u32> {
    let index = MONTHS.iter().position(|m| *m == name)?;
    Some(index as u32 + 1)
}

/// A day of one or two digits.
fn small_number(text: &str) -> Option<u32> {
    (text.len() <= 2).then(|| number(text.as_bytes()))?
}

/// `08:49:37`.
fn clock(text: &str) -> Option<[u32; 3]> {
    let b = text.as_bytes();
    if b.len() != 8 || b[2] != b':' || b[5] != b':' {
        return None;
    }
    Some([number(&b[..2])?, number(&b[3..5])?, number(&b[6..8])?])
}

/// Up to nine decimal digits.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0u32, |value, &b| {
        b.is_ascii_digit().then(|| value * 10 + u32::from(b - b'0'))
    })
}

/// The milliseconds of `.123456`, or 0 for nothing.
fn fraction_millis(text: &[u8]) -> Option<i64> {
    let Some((dot, digits)) = text.split_first() else {
        return Some(0);
    };
    if *dot != b'.' || digits.is_empty() || digits.len() > 9 {
        return None;
    }
    let mut millis = 0;
    for place in 0..3 {
        let digit = digits.get(place).copied().unwrap_or(b'0');
        millis = millis * 10 + i64::from(number(&[digit])?);
    }
    number(digits).map(|_| millis)
}

/// Writes `value` right-aligned with leading zeros; digits that don't fit are cut.
fn digits(out: &mut [u8], value: u32) {
    let mut value = value;
    for place in out.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The instant of a civil date and time in UTC; `None` if there is no such day or time.
fn instant(
    year: u32,
    month: u32,
    day: u32,
    [hour, minute, second]: [u32; 3],
) -> Option<UnixMillis> {
    // A leap second is taken as the last second of its minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // There is no year 0; what is written begins with year 1.
    if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let days = days_from_civil(i64::from(year), month, day);
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second.min(59));
    Some(UnixMillis(
        (days * SECONDS_PER_DAY + seconds) * MILLIS_PER_SECOND,
    ))
}

const fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a Gregorian date, with years that begin in March so that the leap
/// day comes last.
const fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month as i64 + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day as i64 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A civil date and time in UTC. Years are 0 to 9999.
struct Civil {
    year: u32,
    month: u32,
    day: u32,
    weekday: usize,
    hour: u32,
    minute: u32,
    second: u32,
    millis: u32,
}

impl Civil {
    fn of(at: UnixMillis) -> Self {
        // The text forms have four digits for the year; instants outside are clamped to them.
        const FIRST: i64 = -62_135_596_800_000;
        const LAST: i64 = 253_402_300_799_999;
        let millis = at.0.clamp(FIRST, LAST);
        let seconds = millis.div_euclid(MILLIS_PER_SECOND);
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        Self {
            year,
            month,
            day,
            weekday: (days + 4).rem_euclid(7) as usize,
            hour: (of_day / 3600) as u32,
            minute: (of_day / 60 % 60) as u32,
            second: (of_day % 60) as u32,
            millis: millis.rem_euclid(MILLIS_PER_SECOND) as u32,
        }
    }
}

/// The inverse of [`days_from_civil`].
const fn civil_from_days(days: i64) -> (u32, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year as u32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOV_1994: UnixMillis = UnixMillis(784_111_777_000);

    #[test]
    fn forms_are_written_as_documented() {
        assert_eq!(&*http_date(NOV_1994), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&*iso_millis(NOV_1994), "1994-11-06T08:49:37.000Z");
        assert_eq!(&*amz_date(NOV_1994), "19941106T084937Z");
        assert_eq!(&*iso_millis(UnixMillis(-1)), "1969-12-31T23:59:59.999Z");
        assert_eq!(
            &*iso_millis(UnixMillis(i64::MAX)),
            "9999-12-31T23:59:59.999Z"
        );
    }

    #[test]
    fn all_three_http_forms_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 UTC",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_date(text), Some(NOV_1994), "{text}");
        }
    }

    #[test]
    fn impossible_dates_are_refused() {
        for text in [
            "Sun, 30 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "06 Nov 1994",
            "",
        ] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
        assert_eq!(parse_amz_date("00000229T000000Z"), None);
        assert!(parse_amz_date("00010101T000000Z").is_some());
        assert_eq!(parse_amz_date("20130229T000000Z"), None);
        assert_eq!(parse_amz_date("2013022éT00000Z"), None);
        assert!(parse_amz_date("20120229T235960Z").is_some());
    }

    #[test]
    fn iso_fractions_are_cut_to_milliseconds() {
        assert_eq!(
            parse_iso("1994-11-06T08:49:37.1239Z"),
            Some(UnixMillis(NOV_1994.0 + 123))
        );
        assert_eq!(
            parse_iso("1994-11-06T08:49:37.5Z"),
            Some(UnixMillis(NOV_1994.0 + 500))
        );
        assert_eq!(parse_iso("1994-11-06T08:49:37.Z"), None);
        assert_eq!(parse_iso("1994-11-06T08:49:37"), None);
    }

    proptest! {
        #[test]
        fn every_form_round_trips(seconds in 0i64..4_102_444_800, millis in 0i64..1000) {
            let whole = UnixMillis(seconds * 1000);
            let exact = UnixMillis(seconds * 1000 + millis);
            prop_assert_eq!(parse_http_date(&http_date(exact)), Some(whole));
            prop_assert_eq!(parse_amz_date(&amz_date(exact)), Some(whole));
            prop_assert_eq!(parse_iso(&iso_millis(exact)), Some(exact));
            let by_library = exact.to_timestamp().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
            prop_assert_eq!(&*iso_millis(exact), &by_library[..]);
        }

        #[test]
        fn parsers_take_any_text(text in "\\PC{0,40}") {
            let _ = (parse_http_date(&text), parse_amz_date(&text), parse_iso(&text));
        }
    }
}
