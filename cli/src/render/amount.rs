//! Numbers as people read them.

/// Writes a size: `512 B`, `1.4 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.96 KiB would be printed as 1024 KiB.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 99.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// Writes a measured value with four significant digits: `0.5312`, `86.02`, `3.000e-4`.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return if value.is_nan() { "nan".to_owned() } else { format!("{value}") };
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    match size {
        ..0.01 | 1e6.. => trimmed(&format!("{value:.3e}")),
        0.01..0.099_995 => format!("{value:.5}"),
        0.099_995..0.999_95 => format!("{value:.4}"),
        0.999_95..9.9995 => format!("{value:.3}"),
        9.9995..99.995 => format!("{value:.2}"),
        99.995..999.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Takes the zeros out of `3.000e-4`.
fn trimmed(text: &str) -> String {
    match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => {
            format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text.to_owned(),
    }
}

/// Writes a value that somebody chose, as short as it is exact to four digits: `0.001`, `3e-4`, `96`.
pub(crate) fn parameter(value: f64) -> String {
    let rounded: f64 = format!("{value:.3e}").parse().unwrap_or(value);
    match rounded.abs() {
        0.0 | 1e-3..1e6 => format!("{rounded}"),
        _ => format!("{rounded:e}"),
    }
}

/// Writes a count with its noun: `1 slot`, `3 slots`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_three_digits_and_a_unit() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_503_238_553, "1.4 GiB"),
            (531 << 20, "531 MiB"),
            (100 << 30, "100 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn values_keep_four_digits_whatever_their_size() {
        let cases = [
            (0.0, "0"),
            (0.531_24, "0.5312"),
            (0.001, "1e-3"),
            (0.012_345_6, "0.01235"),
            (0.999_99, "1.000"),
            (9.999_99, "10.00"),
            (-1.5, "-1.500"),
            (86.024, "86.02"),
            (1234.4, "1234"),
            (3e-4, "3e-4"),
            (2.5e-5, "2.5e-5"),
            (12_345_678.0, "1.235e7"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn parameters_are_short() {
        let cases = [(0.0, "0"), (0.001, "0.001"), (3e-4, "3e-4"), (0.123_456, "0.1235"), (96.0, "96"), (2e6, "2e6")];
        for (value, text) in cases {
            assert_eq!(parameter(value), text);
        }
    }

    #[test]
    fn one_is_singular() {
        assert_eq!((count(1, "slot"), count(0, "slot")), ("1 slot".to_owned(), "0 slots".to_owned()));
    }
}
