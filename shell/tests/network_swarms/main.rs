//! Real swarms on this machine, each behind a `Network`: commands go in, and the events that come out are checked.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one event among all")]

mod closing_and_turning_away;
mod connecting;
mod dials_fail_with_a_reason;
mod harness;
mod introductions_and_pings;
mod listening;
