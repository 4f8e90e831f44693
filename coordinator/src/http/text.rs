//! Numbers and times as a page shows them.

#![expect(clippy::trivially_copy_pass_by_ref, reason = "templates hand everything over by reference")]

use std::time::Duration;

use unimse_core::time::Timestamp;

/// `12 s`, `3 min`, `2 h 5 min`.
pub(super) fn ago(now: &Timestamp, then: &Timestamp) -> String {
    humane(&now.since(*then).as_secs())
}

pub(super) fn humane(seconds: &u64) -> String {
    unimse_core::time::humane(Duration::from_secs(*seconds))
}

/// `2026-01-31 12:00:05 UTC`.
pub(super) fn date(at: &Timestamp) -> String {
    let stamp = i64::try_from(at.0).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    stamp.map_or_else(String::new, |stamp| stamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// Four significant digits, without a tail of zeros.
pub(super) fn value(value: &f64) -> String {
    let value = *value;
    if !value.is_finite() {
        return value.to_string();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let places = match size {
        1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        1.0.. => 3,
        _ => 4,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

pub(super) fn bytes(bytes: &u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = *bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let places = usize::from(unit > 0 && size < 100.0);
    format!("{size:.places$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_wrong() {
        let shown = [0.0, 1.0, 0.234_567_8, 1.5, 12.3456, 345.678, 123_456.0, 1e9, 3e-5, -0.5, f64::NAN]
            .map(|number| value(&number));
        assert_eq!(shown, ["0", "1", "0.2346", "1.5", "12.35", "345.7", "123456", "1.00e9", "3.00e-5", "-0.5", "NaN"]);
        assert_eq!(
            [0, 1023, 1024, 5 << 20, 150 << 30].map(|size| bytes(&size)),
            ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "150 GiB"]
        );
        assert_eq!(date(&Timestamp(0)), "1970-01-01 00:00:00 UTC");
    }
}
