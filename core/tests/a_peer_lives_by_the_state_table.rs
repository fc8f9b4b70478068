//! The state table of `State`'s docs, row by row, and the rows that "never happen".

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use common::*;
use kinfolk_core::{
    Ask, CloseCause, Config, ConnectionId, DialError, Direction, Event, Origin, RequestId, Source, view::State,
};

/// Brings peer 1 into a state.
fn rig_in(state: State) -> (Rig, Option<ConnectionId>) {
    let mut rig = Rig::quiet(Config::desktop());
    match state {
        State::Discovered => {
            // Found by the hash table: known, not wanted.
            rig.found(Source::Identify, 1, &[global(1)]);
            (rig, None)
        }
        State::Dialing => {
            rig.found(Source::Mdns, 1, &[near(1)]);
            (rig, None)
        }
        State::Connected => {
            let (mut rig, _) = rig_in(State::Dialing);
            let connection = rig.dial_succeeds(1);
            (rig, Some(connection))
        }
        State::Identified => {
            let (mut rig, connection) = rig_in(State::Connected);
            rig.identified(connection.unwrap(), 1);
            (rig, connection)
        }
        State::Syncing => {
            let (mut rig, connection) = rig_in(State::Identified);
            let ask = Ask::Sync { peer: peer(1), position: Some(7), pending: 1 };
            rig.tell(Event::Asked { request: RequestId(1), ask });
            (rig, connection)
        }
        State::Disconnected => {
            let (mut rig, connection) = rig_in(State::Identified);
            let cause = CloseCause::Remote;
            rig.tell(Event::Disconnected { connection: connection.unwrap(), peer: peer(1), cause });
            (rig, None)
        }
        State::Expired => (rig, None),
    }
}

type Step = fn(&mut Rig, Option<ConnectionId>);

const TABLE: &[(State, &str, Step, State)] = &[
    (State::Expired, "it is found", |rig, _| rig.found(Source::Identify, 1, &[global(1)]), State::Discovered),
    (State::Discovered, "it is dialled", |rig, _| rig.found(Source::Mdns, 1, &[near(1)]), State::Dialing),
    (State::Disconnected, "it is dialled", |rig, _| rig.pass(secs(8)), State::Dialing),
    (State::Discovered, "it comes to us", |rig, _| comes(rig), State::Connected),
    (State::Disconnected, "it comes to us", |rig, _| comes(rig), State::Connected),
    (State::Dialing, "it comes to us", |rig, _| comes(rig), State::Connected),
    (State::Dialing, "the dial succeeds", |rig, _| _ = rig.dial_succeeds(1), State::Connected),
    (State::Dialing, "the dial fails", |rig, _| dial_fails(rig), State::Discovered),
    (State::Dialing, "nobody answers", |rig, _| rig.pass(secs(61)), State::Discovered),
    (State::Connected, "it introduces itself", |rig, on| rig.identified(on.unwrap(), 1), State::Identified),
    (State::Connected, "it never does", |rig, on| never_identifies(rig, on), State::Disconnected),
    (State::Connected, "the connection ends", ends, State::Disconnected),
    (State::Identified, "a sync begins", |rig, _| sync(rig, 1), State::Syncing),
    (State::Identified, "the connection ends", ends, State::Disconnected),
    (State::Identified, "pings are lost", |rig, on| pings_are_lost(rig, on), State::Disconnected),
    (State::Identified, "nothing is heard", |rig, on| silence(rig, on), State::Disconnected),
    (State::Syncing, "the sync ends", |rig, _| sync(rig, 0), State::Identified),
    (State::Syncing, "the sync says nothing", |rig, _| rig.pass(secs(61)), State::Identified),
    (State::Syncing, "the connection ends", ends, State::Disconnected),
    (State::Discovered, "nobody speaks of it", |rig, _| rig.pass(secs(7_200 + 600)), State::Expired),
    (State::Disconnected, "nobody speaks of it", |rig, _| forgotten(rig), State::Expired),
    // What "never happens".
    (State::Connected, "its dial fails after all", |rig, _| dial_fails(rig), State::Connected),
    (State::Connected, "the same connection again", |rig, on| again(rig, on), State::Connected),
    (State::Discovered, "an unknown connection ends", |rig, _| ends(rig, Some(ConnectionId(99))), State::Discovered),
    (State::Discovered, "an unknown one pings", |rig, _| rig.pong(ConnectionId(99), 1), State::Discovered),
    (State::Discovered, "an unknown one speaks", |rig, _| rig.identified(ConnectionId(99), 1), State::Discovered),
    (State::Disconnected, "it ends twice", |rig, _| ends(rig, Some(ConnectionId(1))), State::Disconnected),
    (State::Discovered, "a sync begins", |rig, _| sync(rig, 1), State::Discovered),
];

#[test]
fn every_row_of_the_table() {
    for (from, event, step, to) in TABLE {
        let (mut rig, connection) = rig_in(*from);
        assert_eq!(rig.state(1), *from, "before {event:?}");
        step(&mut rig, connection);
        assert_eq!(rig.state(1), *to, "{from} and {event:?}");
    }
}

#[test]
fn every_state_but_the_last_has_a_deadline() {
    let states =
        [State::Discovered, State::Dialing, State::Connected, State::Identified, State::Syncing, State::Disconnected];
    for state in states {
        let (rig, _) = rig_in(state);
        let deadline = rig.node.next_deadline().expect("a deadline");
        assert!(deadline.at <= rig.now + secs(7_200), "{state}: {deadline:?}");
    }
}

fn comes(rig: &mut Rig) {
    rig.inbound(1, global(1));
}

fn dial_fails(rig: &mut Rig) {
    let (dial, _, addresses) = rig.dials().pop().unwrap();
    let failures = vec![(addresses[0].clone(), DialError::ConnectionRefused)];
    rig.tell(Event::DialFailed { dial, failures, error: DialError::ConnectionRefused });
}

fn ends(rig: &mut Rig, connection: Option<ConnectionId>) {
    let event = Event::Disconnected { connection: connection.unwrap(), peer: peer(1), cause: CloseCause::Remote };
    rig.tell(event);
}

fn never_identifies(rig: &mut Rig, connection: Option<ConnectionId>) {
    rig.pass(secs(29));
    assert_eq!(rig.state(1), State::Connected);
    rig.pass(secs(2));
    assert_eq!(rig.closes().len(), 1);
    ends(rig, connection);
}

fn sync(rig: &mut Rig, pending: u32) {
    rig.tell(Event::Asked { request: RequestId(9), ask: Ask::Sync { peer: peer(1), position: None, pending } });
}

fn pings_are_lost(rig: &mut Rig, connection: Option<ConnectionId>) {
    for _ in 0..2 {
        let result = Err(kinfolk_core::PingError::TimedOut);
        rig.tell(Event::Pinged { connection: connection.unwrap(), peer: peer(1), result });
    }
}

fn silence(rig: &mut Rig, connection: Option<ConnectionId>) {
    rig.pass(secs(121));
    ends(rig, connection);
    rig.tell(Event::Lost { source: Source::Mdns, peer: peer(1), addresses: vec![near(1)] });
}

fn again(rig: &mut Rig, connection: Option<ConnectionId>) {
    rig.tell(Event::Connected {
        connection: connection.unwrap(),
        peer: peer(1),
        direction: Direction::Inbound,
        address: near(1),
        origin: Origin::Inbound,
        took: secs(0),
    });
    assert_eq!(rig.view(1).unwrap().connections.len(), 1);
}

fn forgotten(rig: &mut Rig) {
    rig.tell(Event::Lost { source: Source::Mdns, peer: peer(1), addresses: vec![near(1)] });
    rig.pass(secs(3 * 7_200));
}
