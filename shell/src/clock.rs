//! The node's clock, and what the machine says of the wall clock.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use kinfolk_core::{Event, Time};

/// Boot time and monotonic time part by at least this much before a sleep is reported; less is measuring noise.
const SLEPT: Duration = Duration::from_secs(2);

/// The file that systemd-timesyncd keeps while the clock is synchronised.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";

/// Time since the node started, on a clock that runs on while the machine sleeps (`CLOCK_BOOTTIME` on Linux, the
/// monotonic clock elsewhere).
#[derive(Debug)]
pub struct Clock {
    start: Duration,
    parted: Duration,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        let start = boot_time();
        Self { start, parted: start.saturating_sub(monotonic()) }
    }

    /// Time since the start.
    pub fn now(&self) -> Time {
        Time::ZERO + boot_time().saturating_sub(self.start)
    }

    /// How long the machine slept since the last call, if it did.
    pub fn slept(&mut self) -> Option<Duration> {
        // Monotonic first: a pause between the two readings then looks like a sleep of that length, which `SLEPT`
        // hides, and not like time that went back.
        let monotonic = monotonic();
        self.slept_by(boot_time().saturating_sub(monotonic))
    }

    fn slept_by(&mut self, parted: Duration) -> Option<Duration> {
        let asleep = parted.saturating_sub(self.parted);
        if asleep < SLEPT {
            return None;
        }
        self.parted = parted;
        Some(asleep)
    }
}

#[cfg(target_os = "linux")]
fn boot_time() -> Duration {
    read(rustix::time::ClockId::Boottime)
}

#[cfg(not(target_os = "linux"))]
fn boot_time() -> Duration {
    monotonic()
}

fn monotonic() -> Duration {
    read(rustix::time::ClockId::Monotonic)
}

fn read(clock: rustix::time::ClockId) -> Duration {
    let spec = rustix::time::clock_gettime(clock);
    // These clocks begin at the start of the machine and do not go back, so neither part is negative.
    Duration::new(spec.tv_sec.unsigned_abs(), u32::try_from(spec.tv_nsec).unwrap_or(0))
}

/// The wall clock, since 1970; zero if it stands before that.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The wall clock, seconds since 1970.
pub fn unix_secs() -> u64 {
    unix_time().as_secs()
}

/// The wall clock, milliseconds since 1970.
pub fn unix_millis() -> u64 {
    u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX)
}

/// What the wall clock says now. It counts as synchronised where systemd-timesyncd says so; other time services leave
/// no word that can be read without system calls of their own, so with them it does not.
pub fn wall_clock() -> Event {
    Event::WallClock { unix_time: unix_secs(), synced: Path::new(SYNCHRONIZED).exists() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_begins_at_zero_and_does_not_go_back() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(first < Time::from_secs(5), "{first}");
        assert!(clock.now() >= first);
    }

    #[test]
    fn a_sleep_is_told_once() {
        let mut clock = Clock { start: Duration::ZERO, parted: Duration::from_secs(100) };
        assert_eq!(clock.slept_by(Duration::from_millis(101_999)), None);
        assert_eq!(clock.slept_by(Duration::from_secs(103)), Some(Duration::from_secs(3)));
        assert_eq!(clock.slept_by(Duration::from_secs(103)), None);
        assert_eq!(clock.slept_by(Duration::from_secs(3_703)), Some(Duration::from_secs(3_600)));
        assert_eq!(Clock::start().slept(), None);
    }
}
