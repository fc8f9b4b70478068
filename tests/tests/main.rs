//! The whole-system tests, one topic a file. What they stand on is in `tests/src`.

#![allow(clippy::unwrap_used, reason = "where there is nothing to unwrap, the test has failed")]

mod a_copied_identity_is_noticed;
mod a_cut_line_heals;
mod a_doorway_is_needed_once;
mod a_network_is_known_again;
mod a_pinned_peer_comes_back;
mod a_router_maps_ports;
mod a_server_is_reached_however_it_is_written;
mod a_small_machine_soaks;
mod builds_need_nothing_special;
mod clocks_may_be_wrong;
mod embedded_nodes_take_part;
mod foreign_peers_traverse_nats;
mod guests_may_flood;
mod helpers_may_lie;
mod hostile_peers_are_bounded;
mod js_libp2p;
mod lan_nodes_find_each_other;
mod logs_reach_everybody;
mod nats_allow_what_they_allow;
mod nats_are_what_they_say;
mod networks_change_under_nodes;
mod relays_come_and_go;
mod ten_nodes_join_at_once;
mod the_doctor_tells_what_a_network_allows;
mod the_first_node_waits_alone;
mod the_lab_is_what_it_says;
mod two_lans_meet_through_a_server;

/// Before anything else runs, while there is one thread: a user namespace, in which networks can be made without root.
#[ctor::ctor(unsafe)]
fn enter_user_namespace() {
    unsafe { patchbay::init_userns_for_ctor() }
}
