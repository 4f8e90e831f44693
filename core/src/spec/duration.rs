//! Durations as people write them: `500ms`, `30s`, `10m`, `2h`, `1d`, `1h30m`.

use std::time::Duration;

/// Units from large to small, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a duration; `None` when the text is none, or longer than 1000 days.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0_u64;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let worth = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        // Units fall from left to right, so that `5m1h` is told to be a mistake.
        if worth >= last {
            return None;
        }
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(worth)?)?;
        last = worth;
        rest = tail;
    }
    let valid = last != u64::MAX && total <= 1000 * UNITS[0].1;
    valid.then(|| Duration::from_millis(total))
}

/// Writes a duration so that [`parse`] reads it back, down to milliseconds.
pub(crate) fn format(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, worth) in UNITS {
        if rest >= worth {
            text += &(rest / worth).to_string();
            text += unit;
            rest %= worth;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86_400), ("1h30m", 5400), ("0s", 0)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
            assert_eq!(format(Duration::from_secs(seconds)), text);
        }
        assert_eq!(parse("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(format(Duration::from_millis(90_500)), "1m30s500ms");
        assert_eq!(parse("90s"), Some(Duration::from_secs(90)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "30", "s", "1.5h", "-1s", "1 h", "5m1h", "1h1h", "9999999999999999999s", "1001d", "10min", "١s"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
