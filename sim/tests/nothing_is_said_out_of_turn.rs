//! The event grammar knows what may not be said: for each rule a story that keeps to it, and the word that breaks it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{address, peer, started};
use kinfolk_core::{
    Action, Asker, CircuitLimit, CloseCause, Command, CommandId, ConnectionId, DialError, Direction, EntryHash, Event,
    Head, HeldId, ListenError, ListenerId, LogId, Mapping, OfferId, Origin, PingError, ProbeVerdict, PunchError,
    PunchRole, PunchWire, Query, Reason, Refusal, ReserveError, SignalError, SignalServices, SyncError, Time, Told,
    Transport,
};
use kinfolk_sim::{
    check::Grammar,
    replay::{Options, replay},
    trace::Reader,
};

/// What happens at a node, one after the other.
enum Line {
    Told(Event),
    Commanded(u64, Action),
}
use Line::{Commanded, Told as Tells};

const C: ConnectionId = ConnectionId(1);

fn connected(connection: u64, origin: Origin) -> Line {
    at("/ip4/45.10.20.30/tcp/4001", connection, origin)
}

fn relayed(connection: u64) -> Line {
    at(&format!("/ip4/45.10.20.30/tcp/4001/p2p/{}/p2p-circuit", peer(9)), connection, Origin::Inbound)
}

fn at(text: &str, connection: u64, origin: Origin) -> Line {
    let (direction, address) = (Direction::Inbound, address(text));
    let took = Duration::ZERO;
    Tells(Event::Connected { connection: ConnectionId(connection), peer: peer(2), direction, address, origin, took })
}

fn ended() -> Line {
    Tells(Event::Disconnected { connection: C, peer: peer(2), cause: CloseCause::Ours })
}

fn pinged() -> Line {
    Tells(Event::Pinged { connection: C, peer: peer(2), result: Err(PingError::TimedOut) })
}

fn dial_failed(dial: u64) -> Line {
    Tells(Event::DialFailed { dial: CommandId(dial), failures: vec![], error: DialError::TimedOut })
}

fn refused(command: u64) -> Line {
    Tells(Event::Refused { command: CommandId(command), refusal: Refusal::NobodyToAsk })
}

fn dial(id: u64) -> Line {
    Commanded(id, Action::Dial { peer: Some(peer(2)), addresses: vec![address("/ip4/45.10.20.30/tcp/4001")] })
}

/// How a grammar takes a story: the first line that is wrong, by its number from 0 on, and why.
fn read(mut grammar: Grammar, story: impl IntoIterator<Item = Line>) -> Option<(usize, String)> {
    for (number, line) in story.into_iter().enumerate() {
        match line {
            Tells(event) => {
                if let Err(wrong) = grammar.event(&event) {
                    return Some((number, wrong.to_string()));
                }
            }
            Commanded(id, action) => {
                grammar.command(&Command { id: CommandId(id), action, reason: Reason::Routine });
            }
        }
    }
    None
}

/// The story is right up to its last line, which is wrong.
fn ends_wrong(story: impl IntoIterator<Item = Line>, why: &str) {
    let story: Vec<Line> = story.into_iter().collect();
    let last = story.len() - 1;
    match read(Grammar::from_the_start(), story) {
        None => panic!("not found to be wrong: {why}"),
        Some((number, what)) => {
            assert_eq!(number, last, "{what}, rather than: {why}");
            assert!(what.contains(why), "{what}, rather than: {why}");
        }
    }
}

#[test]
fn a_connection_begins_and_ends_once() {
    ends_wrong([pinged()], "never began");
    ends_wrong([connected(1, Origin::Inbound), ended(), pinged()], "has ended");
    ends_wrong([connected(1, Origin::Inbound), ended(), ended()], "has ended");
    ends_wrong([connected(2, Origin::Inbound), connected(1, Origin::Inbound)], "connection n1 after 2");
    ends_wrong([connected(1, Origin::Inbound), connected(1, Origin::Inbound)], "connection n1 after 1");
}

#[test]
fn what_lies_within_a_connection_does_not_lie_outside() {
    let identity = || {
        let identified = |event: &Event| matches!(event, Event::Identified { .. });
        common::events().into_iter().find(identified).unwrap()
    };
    let used = Event::CircuitUsed { connection: C, bytes: 1 };
    let limited = Event::CircuitLimited { connection: C, limit: CircuitLimit { duration: None, bytes: None } };
    let offer = OfferId(1);
    let offered = Event::PunchOffered { offer, connection: C, peer: peer(2), mapping: None, candidates: vec![] };
    let told = Event::SyncTold { peer: peer(2), connection: C, sync: None, told: Told::Differs, last: true };
    let failed = Event::IdentifyFailed { connection: C, peer: peer(2), error: "no answer".into() };
    let mut identified = identity();
    if let Event::Identified { connection, .. } = &mut identified {
        *connection = C;
    }
    for within in [used.clone(), limited.clone(), offered, told, failed, identified] {
        assert_eq!(read(Grammar::from_the_start(), [relayed(1), Tells(within.clone())]), None);
        ends_wrong([Tells(within.clone())], "never began");
        ends_wrong([relayed(1), ended(), Tells(within)], "has ended");
    }
    for of_a_circuit in [used, limited] {
        ends_wrong([connected(1, Origin::Inbound), Tells(of_a_circuit)], "is direct");
    }
}

/// Each command that is answered: what may come again and again, and what comes once, as the last of it.
fn answers(id: u64) -> Vec<(Action, Vec<Line>, Vec<Line>)> {
    let (command, relay) = (CommandId(id), peer(9));
    let home = || address("/ip4/192.168.1.9/tcp/4001");
    let server = || "https://signal.example".to_owned();
    let signals_fail = || Tells(Event::SignalFailed { command, error: SignalError::Stale { seq: 1 } });
    let syncs_fail = || Tells(Event::SyncFailed { sync: command, error: SyncError::TimedOut });
    let punch_fails = || Tells(Event::PunchFailed { punch: command, error: PunchError::Declined });
    let told = |last| {
        let told = Told::Same;
        Tells(Event::SyncTold { peer: peer(2), connection: C, sync: Some(command), told, last })
    };
    let (mapping, log, head) =
        (Mapping::Independent, LogId { author: peer(2), epoch: 0 }, Head { position: 1, hash: EntryHash([7; 32]) });
    vec![
        (
            Action::Dial { peer: Some(peer(2)), addresses: vec![home()] },
            vec![],
            vec![dial_failed(id), refused(id), connected(5, Origin::Dial(command))],
        ),
        (
            Action::Query(Query::Record { peer: peer(3) }),
            vec![Tells(Event::QueryFound { query: command, peers: vec![], cut: 0, record: None })],
            vec![Tells(Event::QueryEnded { query: command, successes: 1, failures: 0 }), refused(id)],
        ),
        (
            Action::SignalQuery { server: server(), peer: None, limit: 1 },
            vec![],
            vec![
                Tells(Event::SignalFound { query: command, peers: vec![], cut: 0, backing: None }),
                signals_fail(),
                refused(id),
            ],
        ),
        (
            Action::SignalPublish {
                server: server(),
                addresses: vec![],
                services: SignalServices::default(),
                lifetime: Duration::ZERO,
            },
            vec![],
            vec![
                Tells(Event::SignalPublished { publish: command, expires_in: Duration::ZERO, backing: None }),
                signals_fail(),
                refused(id),
            ],
        ),
        (
            Action::Probe { server: peer(9), address: home() },
            vec![],
            vec![Tells(Event::Probed { probe: command, verdict: ProbeVerdict::Reachable }), refused(id)],
        ),
        (
            Action::Listen { address: home() },
            vec![Tells(Event::Listening { listener: ListenerId(1), command, address: home() })],
            vec![Tells(Event::ListenFailed { command, error: ListenError::PortTaken }), refused(id)],
        ),
        (
            Action::Reserve { relay, address: home() },
            vec![
                Tells(Event::Reserved { reservation: command, limit: None, lasts: None }),
                Tells(Event::ReservedAt { reservation: command, address: home() }),
            ],
            vec![Tells(Event::ReservationEnded { reservation: command, error: ReserveError::Full }), refused(id)],
        ),
        (
            Action::Punch {
                connection: C,
                peer: peer(2),
                wire: PunchWire::Kinfolk { mapping },
                transport: Transport::Quic,
                candidates: vec![],
                near: false,
            },
            vec![],
            vec![punch_fails(), refused(id)],
        ),
        (
            Action::AnswerPunch {
                offer: OfferId(1),
                peer: peer(2),
                transport: Transport::Quic,
                role: PunchRole::Dial,
                mapping,
                candidates: vec![],
                targets: vec![],
            },
            vec![],
            vec![punch_fails(), refused(id)],
        ),
        (
            Action::SyncExchange { peer: peer(2), connection: C },
            vec![told(false)],
            vec![told(true), syncs_fail(), refused(id)],
        ),
        (
            Action::SyncAnnounce { peer: peer(2), connection: C, heads: vec![] },
            vec![told(false)],
            vec![told(true), syncs_fail(), refused(id)],
        ),
        (
            Action::SyncFetch { peer: peer(2), connection: C, log, since: 0, limit: 1 },
            vec![],
            vec![
                Tells(Event::SyncFetched { fetch: command, log, head, entries: 1, has_more: false }),
                syncs_fail(),
                refused(id),
            ],
        ),
    ]
}

fn kinds() -> usize {
    answers(7).len()
}

#[test]
fn a_command_is_answered_once() {
    for kind in 0..kinds() {
        let lasts = answers(7)[kind].2.len();
        for last in 0..lasts {
            let story = || {
                let (action, amid, lasts) = answers(7).swap_remove(kind);
                let again = answers(7).swap_remove(kind).1;
                let last = lasts.into_iter().nth(last);
                std::iter::once(Commanded(7, action)).chain(amid).chain(again).chain(last)
            };
            assert_eq!(read(Grammar::from_the_start(), story()), None);
            let more = answers(7).swap_remove(kind);
            for late in more.1.into_iter().chain(more.2.into_iter().take(1)) {
                ends_wrong(story().chain([late]), "was answered");
            }
        }
    }
}

#[test]
fn who_answers_was_asked_and_for_this() {
    for kind in 0..kinds() {
        let all = |id| {
            let (_, amid, lasts) = answers(id).swap_remove(kind);
            amid.into_iter().chain(lasts).collect::<Vec<_>>()
        };
        for (at, answer) in all(7).into_iter().enumerate() {
            ends_wrong([answer], "was never given");
            // A trace that begins later knows only of what it saw.
            let before = all(7).swap_remove(at);
            assert_eq!(read(Grammar::in_the_middle(), [before]), None);
            let before = all(7).swap_remove(at);
            assert_eq!(read(Grammar::in_the_middle(), [dial(8), before]), None);
            let later = all(9).swap_remove(at);
            assert!(read(Grammar::in_the_middle(), [dial(8), later]).is_some());
        }
    }
    // Each answer for a command of another kind.
    ends_wrong([Commanded(7, Action::Query(Query::Members)), dial_failed(7)], "is a Query");
    for kind in 1..kinds() {
        let (_, amid, lasts) = answers(7).swap_remove(kind);
        let is_refusal = |line: &Line| matches!(line, Tells(Event::Refused { .. }));
        for answer in amid.into_iter().chain(lasts).filter(|line| !is_refusal(line)) {
            ends_wrong([dial(7), answer], "is a Dial");
        }
    }
    ends_wrong([Commanded(7, Action::PushIdentity), dial_failed(7)], "asks for nothing of the kind");
}

#[test]
fn a_punch_is_answered_by_the_other_side_once_and_may_get_through_twice() {
    let punch = || {
        let punch = |action: &Action| matches!(action, Action::Punch { .. });
        Commanded(7, answers(7).into_iter().map(|(action, ..)| action).find(punch).unwrap())
    };
    let answered = || Tells(Event::PunchAnswered { punch: CommandId(7), mapping: None, candidates: vec![] });
    let through = |connection| connected(connection, Origin::Punch(CommandId(7)));
    assert_eq!(read(Grammar::from_the_start(), [punch(), answered(), through(1), through(2)]), None);
    ends_wrong([punch(), answered(), answered()], "is a Punch");
    ends_wrong([punch(), through(1), answered()], "is a Punched");
    let failed = Tells(Event::PunchFailed { punch: CommandId(7), error: PunchError::Declined });
    ends_wrong([punch(), through(1), failed], "is a Punched");
    ends_wrong([dial(7), through(1)], "is a Dial");
}

#[test]
fn a_held_dial_is_released_before_it_connects() {
    let held = |held| Tells(Event::DialHeld { held: HeldId(held), asker: Asker::Kademlia, peer: Some(peer(2)) });
    let failed = || Tells(Event::HeldFailed { held: HeldId(3), error: DialError::TimedOut });
    let release = || Commanded(7, Action::Release { held: HeldId(3), peer: Some(peer(2)) });
    let refuse = || Commanded(7, Action::Refuse { held: HeldId(3), peer: Some(peer(2)) });
    let through = |connection| connected(connection, Origin::Held(HeldId(3)));
    assert_eq!(read(Grammar::from_the_start(), [held(3), release(), through(1)]), None);
    assert_eq!(read(Grammar::from_the_start(), [held(3), release(), failed()]), None);
    assert_eq!(read(Grammar::from_the_start(), [held(3), failed()]), None);
    ends_wrong([through(1)], "is not held");
    ends_wrong([failed()], "is not held");
    ends_wrong([held(3), through(1)], "was not released");
    ends_wrong([held(3), refuse(), through(1)], "is not held");
    ends_wrong([held(3), release(), through(1), through(2)], "is not held");
    ends_wrong([held(3), release(), through(1), failed()], "is not held");
    ends_wrong([held(3), held(3)], "held after");
    ends_wrong([held(3), failed(), held(2)], "held after");
    assert_eq!(read(Grammar::in_the_middle(), [through(1)]), None);
    assert_eq!(read(Grammar::in_the_middle(), [held(4), failed()]), None);
    assert!(read(Grammar::in_the_middle(), [held(2), failed()]).is_some());
}

#[test]
fn a_start_begins_all_anew() {
    let start = || Tells(Event::Started(Box::new(started())));
    assert_eq!(read(Grammar::in_the_middle(), [pinged(), ended()]), None);
    assert_eq!(read(Grammar::in_the_middle(), [connected(2, Origin::Inbound), pinged()]), None);
    assert!(read(Grammar::in_the_middle(), [start(), pinged()]).is_some());
    assert_eq!(
        read(Grammar::from_the_start(), [connected(1, Origin::Inbound), start(), connected(1, Origin::Inbound)]),
        None
    );
    ends_wrong([connected(1, Origin::Inbound), start(), pinged()], "never began");
}

#[test]
fn a_replay_tells_what_is_out_of_turn() {
    let mut node = common::family();
    let never = Event::Disconnected { connection: ConnectionId(77), peer: peer(2), cause: CloseCause::Ours };
    for _ in 0..12 {
        node.tell(Time::from_secs(4_000), never.clone()).unwrap();
    }
    let text = node.text().unwrap();
    let report = replay(&mut Reader::new("family.jsonl", std::io::Cursor::new(text)).unwrap(), Options::default());
    assert!(report.difference.is_none() && report.problems.is_empty(), "{report}");
    assert!(!report.is_good());
    assert_eq!((report.ungrammatical, report.first_ungrammatical.len()), (12, 8));
    let shown = report.to_string();
    assert!(shown.contains("12 events that the event grammar does not allow"), "{shown}");
    assert!(shown.contains("Disconnected on n77, which never began"), "{shown}");
    let json = report.to_json();
    assert_eq!(json["ungrammatical"], 12);
    assert!(json["first_ungrammatical"][0]["line"].as_u64().unwrap() > 50);
}
