use std::{fmt, time::Duration};

/// A moment of the wall clock, seconds since 1970, shown as `2026-11-24 11:30:00 UTC`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        // Years are counted from March on, so that the leap day comes last; 400 of them have 146 097 days.
        let shifted = days + 719_468;
        let (era, day) = (shifted / 146_097, shifted % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = era * 400 + year + carry;
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

/// A span of time as people say it, with two units at most: `350 µs`, `12.5 s`, `3 min 5 s`, `2 d 4 h`.
pub fn span(span: Duration) -> String {
    let (nanos, seconds) = (span.as_nanos(), span.as_secs());
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {small_unit}"),
    };
    match seconds {
        0 if nanos == 0 => "0 s".to_string(),
        0 if nanos < 1_000 => format!("{nanos} ns"),
        0 if nanos < 1_000_000 => format!("{} µs", nanos / 1_000),
        0 => format!("{} ms", nanos / 1_000_000),
        1..60 if span.subsec_millis() >= 100 => format!("{seconds}.{} s", span.subsec_millis() / 100),
        1..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        86_400.. => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

/// Reads a span of time: `90` and `90s` are seconds; `ms`, `m`, `h` and `d` go too, also one after another (`1h30m`),
/// and with a decimal point (`1.5s`).
///
/// # Errors
/// When the text is something else; in words.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time; write seconds (90, 1.5) or units (250ms, 90s, 5m, 1h30m, 2d)");
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let nanos_per_unit: u64 = match unit {
            "ms" => 1_000_000,
            "" | "s" => 1_000_000_000,
            "m" | "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return Err(wrong()),
        };
        let part = decimal(number, nanos_per_unit).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    Ok(total)
}

/// `number` (digits, at most one point) times `unit` nanoseconds.
fn decimal(number: &str, unit: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    let digits = &fraction[..fraction.len().min(9)];
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let fraction = u128::from(digits.parse::<u64>().ok()?) * u128::from(unit) / scale;
    let nanos = u128::from(whole) * u128::from(unit) + fraction;
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_shown_in_utc() {
        for (unix, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_709_164_800, "2024-02-29 00:00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (1_790_000_000, "2026-09-21 14:13:20 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(Utc(unix).to_string(), text);
        }
        let _ = Utc(u64::MAX).to_string();
    }

    #[test]
    fn spans_are_said_with_two_units() {
        let said = |nanos| span(Duration::from_nanos(nanos));
        let seconds = |secs| span(Duration::from_secs(secs));
        assert_eq!([said(0), said(7), said(7_900), said(7_900_000)], ["0 s", "7 ns", "7 µs", "7 ms"]);
        assert_eq!([said(12_540_000_000), said(12_040_000_000)], ["12.5 s", "12 s"]);
        assert_eq!(
            [seconds(60), seconds(185), seconds(7_260), seconds(187_200)],
            ["1 min", "3 min 5 s", "2 h 1 min", "2 d 4 h"]
        );
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        let read = |text| parse_span(text).map(|span| span.as_millis());
        for (text, millis) in [
            ("90", 90_000),
            ("1.5", 1_500),
            ("250ms", 250),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("0.001s", 1),
        ] {
            assert_eq!(read(text), Ok(millis), "{text}");
        }
        for text in ["", "-1", "1y", "h", "1..5", "1h-", "99999999999999999999", ".", "1.", "99999999999d"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
