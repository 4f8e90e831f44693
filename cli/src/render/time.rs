//! Times and durations as people read them.

use std::time::Duration;

use jiff::tz::TimeZone;
use unimse_core::time::Timestamp;

/// Writes a duration for a table: `12s`, `41m`, `2h10m`, `3d4h`.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..600 => pair(seconds / 60, "m", seconds % 60, "s"),
        600..3600 => format!("{}m", seconds / 60),
        3600..86_400 => pair(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

fn pair(large: u64, unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
}

fn moment(at: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

/// Writes a point in time for programs: RFC 3339 in UTC, to the millisecond.
pub(crate) fn rfc3339(at: Timestamp) -> Option<String> {
    Some(format!("{:.3}", moment(at)?))
}

/// Writes a point in time for people, in a time zone of theirs: `2026-11-21 20:41:03`.
pub(crate) fn date_and_time(at: Timestamp, zone: &TimeZone) -> String {
    moment(at).map_or_else(|| at.to_string(), |at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// Writes the time of day: `20:41:03`.
pub(crate) fn time_of_day(at: Timestamp, zone: &TimeZone) -> String {
    moment(at).map_or_else(|| at.to_string(), |at| at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_exact_as_they_are_short() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (95, "1m35s"),
            (2460, "41m"),
            (7800, "2h10m"),
            (10_800, "3h"),
            (273_600, "3d4h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn points_in_time_have_a_form_for_people_and_one_for_programs() {
        let at = Timestamp(1_795_293_663_250);
        assert_eq!(rfc3339(at).as_deref(), Some("2026-11-21T20:41:03.250Z"));
        assert_eq!(date_and_time(at, &TimeZone::UTC), "2026-11-21 20:41:03");
        assert_eq!(time_of_day(at, &TimeZone::fixed(jiff::tz::offset(1))), "21:41:03");
        assert_eq!(rfc3339(Timestamp(u64::MAX)), None);
    }
}
