//! The local time of day.

use chrono::{DateTime, Local, Utc};

/// `14:03:27`, from milliseconds since 1970.
pub(super) fn time_of_day(unix_ms: u64) -> String {
    let utc = i64::try_from(unix_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis).unwrap_or_default();
    utc.with_timezone(&Local).format("%H:%M:%S").to_string()
}

/// `2026-11-24 14:03:27`, from seconds since 1970.
pub(super) fn day_and_time(unix: u64) -> String {
    let utc = i64::try_from(unix).ok().and_then(|unix| DateTime::<Utc>::from_timestamp(unix, 0)).unwrap_or_default();
    utc.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Milliseconds since 1970.
pub(super) fn now_unix_ms() -> u64 {
    u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default()
}
