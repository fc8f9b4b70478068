//! Real swarms on this machine, each behind a `Network`: commands go in, and the events that come out are checked.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one event among all")]
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod circuits;
mod closing_and_turning_away;
mod connecting;
mod dials_fail_with_a_reason;
mod foreign;
mod harness;
mod hash_table;
mod held_dials;
mod hostile_peers;
mod hostile_relays;
mod introductions_and_pings;
mod listening;
mod logs;
mod logs_of_rogues;
mod probes_for_others;
mod probes_of_ours;
mod punching;
mod punching_with_others;
mod punching_with_rogues;
mod relayed;
mod relaying_for_others;
mod reservations;
mod stock_relays;
mod without_tokio;
