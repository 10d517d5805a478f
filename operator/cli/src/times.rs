//! Times for people.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// How long something is: the two largest units, as kubectl shows it.
pub(crate) fn span(from: Timestamp, to: Timestamp) -> String {
    let duration = to.duration_since(from);
    let seconds = duration.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..600 => two(seconds, 60, "m", 1, "s"),
        600..3600 => format!("{}m", seconds / 60),
        3600..86400 => two(seconds, 3600, "h", 60, "m"),
        _ => two(seconds, 86400, "d", 3600, "h"),
    }
}

fn two(seconds: i64, large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    match seconds % large / small {
        0 => format!("{}{large_unit}", seconds / large),
        rest => format!("{}{large_unit}{rest}{small_unit}", seconds / large),
    }
}

/// The time of day in the local time zone.
pub(crate) fn clock(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// Reads `90s`, `10m`, `1h30m`, or a number of seconds.
pub(crate) fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let seconds = text.parse::<i64>().map(SignedDuration::from_secs);
    let duration = seconds.or_else(|_| text.parse::<SignedDuration>());
    let wrong = || format!("'{text}' is no duration; write 90s, 10m or 1h30m");
    let duration = duration.map_err(|_| wrong())?;
    std::time::Duration::try_from(duration).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_at_most_two_units() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (61, "1m1s"), (120, "2m"), (1200, "20m"), (7260, "2h1m"), (90000, "1d1h")]
        {
            assert_eq!(span(at(0), at(seconds)), text);
        }
        assert_eq!(span(at(5), at(0)), "0s");
    }

    #[test]
    fn durations_are_those_of_kubectl() {
        let seconds = |text: &str| parse_duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert!(seconds("soon").is_err());
        assert!(seconds("-5s").is_err());
    }
}
