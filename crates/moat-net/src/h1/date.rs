//! The `Date` of answers, made once a second.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use moat_types::{Clock as _, SystemClock};

thread_local! {
    /// The second it is about, and its text.
    static LAST: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
}

/// Appends the time as HTTP writes it.
pub(super) fn push(text: &mut Vec<u8>) {
    let seconds = SystemClock.now().seconds();
    LAST.with_borrow_mut(|(of, shown)| {
        if *of != seconds || shown.is_empty() {
            *shown =
                httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs()));
            *of = seconds;
        }
        text.extend_from_slice(shown.as_bytes());
    });
}
