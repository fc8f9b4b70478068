//! The doorway over real HTTP: what it takes, refuses, keeps and shares.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test names what it expects")]

mod backings_behave_the_same;
mod doorways_share_a_redis_server;
mod floods_are_bounded;
mod foreign_clients;
mod harness;
mod hostile_requests;
mod networks_are_apart;
mod records_come_and_go;
mod records_outlive_the_process;
mod the_client_asks_and_tells;
mod the_description_is_true;
mod the_program;
