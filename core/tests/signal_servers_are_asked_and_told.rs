//! Signal servers: raced, each with its own back-off; what they say is a hint, what they don't say harms nobody.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use std::time::Duration;

use common::*;
use kinfolk_core::{
    Action, Address, Answer, Ask, AskError, CommandId, Config, Event, Health, Notice, PeerAddress, PinnedPeer, Reason,
    Refusal, RequestId, Role, SignalBacking, SignalErrand, SignalError, SignalPeer, SignalServices, Source,
    ValidConfig, view::SignalView,
};

const A: &str = "https://a.example/signal";
const B: &str = "https://b.example/signal";

fn with(servers: &[&str]) -> Config {
    let mut config = Config::desktop();
    config.signal.servers = servers.iter().map(|server| (*server).to_owned()).collect();
    config
}

/// A server in a data centre: it has something to publish from the beginning.
fn public(servers: &[&str]) -> Config {
    let mut config = Config { role: Role::Server, ..with(servers) };
    config.nat.external = vec![global(400)];
    config
}

type Question = (CommandId, String, Option<u64>);

fn asked(rig: &Rig) -> Vec<Question> {
    let question = |command: &kinfolk_core::Command| match &command.action {
        Action::SignalQuery { server, peer, .. } => Some((command.id, server.clone(), peer.as_ref().map(number))),
        _ => None,
    };
    rig.commands.iter().filter_map(question).collect()
}

fn published(rig: &Rig) -> Vec<(CommandId, Vec<Address>, SignalServices, Reason)> {
    let publish = |command: &kinfolk_core::Command| match &command.action {
        Action::SignalPublish { addresses, services, .. } => {
            Some((command.id, addresses.clone(), *services, command.reason.clone()))
        }
        _ => None,
    };
    rig.commands.iter().filter_map(publish).collect()
}

fn record(n: u64, seq: u64, addresses: &[Address]) -> SignalPeer {
    let services = SignalServices::default();
    SignalPeer { peer: peer(n), seq: Some(seq), addresses: addresses.to_vec(), services }
}

fn answer(rig: &mut Rig, query: CommandId, peers: &[SignalPeer]) {
    let backing = Some(SignalBacking::Sqlite);
    rig.tell(Event::SignalFound { query, peers: peers.to_vec(), cut: 0, backing });
}

fn fail(rig: &mut Rig, command: CommandId, error: SignalError) {
    rig.tell(Event::SignalFailed { command, error });
}

fn down() -> SignalError {
    SignalError::Failed("connection refused".to_owned())
}

fn refused(retry_after: u64) -> SignalError {
    SignalError::Refused { reason: "too many requests".to_owned(), retry_after: Some(secs(retry_after)) }
}

fn server<'a>(rig: &'a Rig, url: &str) -> SignalView<'a> {
    let node = rig.node.view().unwrap().node();
    node.signal.into_iter().find(|server| server.server == url).unwrap()
}

fn health(rig: &Rig) -> Health {
    rig.node.view().unwrap().node().health
}

/// Waits for the next question of the kind, and how long that took.
fn next<T>(rig: &mut Rig, longest: Duration, of: impl Fn(&Rig) -> Vec<T>) -> (T, Duration) {
    let since = rig.now;
    rig.take();
    loop {
        if let Some(first) = of(rig).into_iter().next() {
            return (first, rig.now.since(since));
        }
        let deadline = rig.node.next_deadline().expect("something is due");
        assert!(deadline.at.since(since) <= longest, "nothing within {longest:?}");
        rig.pass(deadline.at.since(rig.now));
    }
}

#[test]
fn all_are_asked_at_once_and_the_first_answer_counts() {
    let mut rig = Rig::new(with(&[A, B]));
    let questions = asked(&rig);
    assert_eq!(questions.iter().map(|(_, at, peer)| (at.as_str(), *peer)).collect::<Vec<_>>(), [(A, None), (B, None)]);
    assert!(server(&rig, A).asking && server(&rig, A).answered.is_none() && server(&rig, A).error.is_none());
    answer(&mut rig, questions[1].0, &[record(1, 7, &[global(1)])]);
    assert_eq!(rig.dials().len(), 1, "the other one has not answered, and nobody waits for it");
    assert!(rig.notices().contains(&Notice::SignalAnswers { server: B.into(), peers: 1 }));
    let view = server(&rig, B);
    assert_eq!((view.peers, view.backing, view.asking), (1, Some(SignalBacking::Sqlite), false));
    assert!(view.answered.is_some());
}

#[test]
fn not_asked_asked_none_and_failed_are_told_apart() {
    let mut rig = Rig::new(with(&[A, B]));
    let questions = asked(&rig);
    answer(&mut rig, questions[0].0, &[]);
    fail(&mut rig, questions[1].0, down());
    let (a, b) = (server(&rig, A), server(&rig, B));
    assert_eq!((a.peers, a.failures, a.error, a.retry_at), (0, 0, None, None));
    assert!(a.answered.is_some());
    assert_eq!((b.answered, b.failures, b.error), (None, 1, Some(&down())));
    assert!(b.retry_at.is_some());
    rig.tell(Event::Configured(Box::new(with(&[A, B, "http://c.example"]).validate().unwrap())));
    // Asked in the same breath; its answer is not there.
    let c = server(&rig, "http://c.example");
    assert!(c.asking && c.answered.is_none() && c.error.is_none());
    assert!(server(&rig, A).answered.is_some(), "the others are what they were");
}

#[test]
fn the_first_node_is_alone_when_a_server_says_so_and_in_the_dark_when_none_does() {
    let mut alone = Rig::new(with(&[A, B]));
    let questions = asked(&alone);
    answer(&mut alone, questions[0].0, &[]);
    alone.pass(secs(15));
    assert_eq!(health(&alone), Health::Alone);

    let mut dark = Rig::new(with(&[A]));
    let question = asked(&dark)[0].0;
    fail(&mut dark, question, down());
    dark.pass(secs(15));
    assert_eq!(health(&dark), Health::Isolated);
    let ((again, ..), _) = next(&mut dark, secs(60), asked);
    answer(&mut dark, again, &[]);
    assert_eq!(health(&dark), Health::Alone);
}

#[test]
fn who_waits_alone_asks_often_enough_to_meet_the_second_within_30_s() {
    let mut rig = Rig::new(with(&[A]));
    let mut question = asked(&rig)[0].0;
    // A day later, too.
    for round in 0..4_000 {
        answer(&mut rig, question, &[]);
        let ((next, ..), waited) = next(&mut rig, secs(30), asked);
        let least = if round < 4 { secs(1) } else { secs(10) };
        assert!(waited >= least, "{waited:?} is a storm");
        question = next;
    }
    answer(&mut rig, question, &[record(1, 1, &[global(1)])]);
    assert_eq!(rig.dials().len(), 1);
}

#[test]
fn who_has_met_somebody_asks_every_quarter_of_an_hour() {
    let mut rig = Rig::new(with(&[A]));
    let question = asked(&rig)[0].0;
    answer(&mut rig, question, &[record(1, 1, &[global(1)])]);
    let connection = rig.dial_succeeds(1);
    rig.identified(connection, 1);
    rig.take();
    rig.live(secs(11 * 60));
    assert_eq!(asked(&rig), []);
    rig.live_until(secs(8 * 60), |rig| !asked(rig).is_empty());
}

#[test]
fn each_server_has_its_own_back_off() {
    let mut rig = Rig::new(with(&[A, B]));
    let questions = asked(&rig);
    answer(&mut rig, questions[1].0, &[record(1, 1, &[global(1)])]);
    let connection = rig.dial_succeeds(1);
    rig.identified(connection, 1);
    let mut waits = vec![];
    let mut question = questions[0].0;
    for _ in 0..40 {
        fail(&mut rig, question, down());
        let ((again, at, _), waited) =
            next(&mut rig, secs(400), |rig| asked(rig).into_iter().filter(|(_, at, _)| at == A).collect());
        assert_eq!(at, A);
        waits.push(waited);
        question = again;
        rig.pong(connection, 1);
    }
    assert!(waits[0] <= secs(2) && waits[1] <= secs(3), "{waits:?}");
    assert!(waits[39] >= secs(240) && waits[39] <= secs(360), "{waits:?}");
    let told = rig.notices().into_iter().filter(|notice| matches!(notice, Notice::SignalFailed { .. })).count();
    assert!(told <= 1, "not each of them is told");
}

#[test]
fn a_server_that_wants_to_be_left_alone_is_but_not_for_ever() {
    let mut rig = Rig::new(with(&[A]));
    let question = asked(&rig)[0].0;
    fail(&mut rig, question, refused(120));
    let ((again, ..), waited) = next(&mut rig, secs(130), asked);
    assert!(waited >= secs(120), "{waited:?}");
    fail(&mut rig, again, refused(1_000_000));
    let (_, waited) = next(&mut rig, secs(3_601), asked);
    assert!(waited >= secs(3_600), "{waited:?}");
}

#[test]
fn silence_is_a_failure_and_a_late_answer_is_ignored() {
    let mut rig = Rig::new(with(&[A]));
    let question = asked(&rig)[0].0;
    rig.take();
    rig.pass(secs(20));
    let cancelled = rig.last(|action| match action {
        Action::SignalCancel { command } => Some(*command),
        _ => None,
    });
    assert_eq!(cancelled.unwrap().1, question);
    assert_eq!(server(&rig, A).failures, 1);
    answer(&mut rig, question, &[record(1, 1, &[global(1)])]);
    assert_eq!(rig.dials(), []);
    // A shell without the client says so.
    let ((again, ..), _) = next(&mut rig, secs(5), asked);
    rig.tell(Event::Refused { command: again, refusal: Refusal::NotBuiltIn });
    assert_eq!(server(&rig, A).failures, 2);
}

#[test]
fn a_new_network_is_a_new_beginning() {
    let mut rig = Rig::new(with(&[A]));
    let question = asked(&rig)[0].0;
    fail(&mut rig, question, refused(3_000));
    rig.take();
    let mut elsewhere = home();
    elsewhere.addresses[1].ip = "10.1.1.1".parse().unwrap();
    rig.tell(Event::Interfaces(elsewhere));
    assert_eq!(asked(&rig).len(), 1);
}

#[test]
fn a_newer_record_takes_the_place_of_an_older_one_and_never_the_other_way() {
    let mut rig = Rig::new(with(&[A, B]));
    let questions = asked(&rig);
    let addresses = |rig: &Rig| -> Vec<Address> {
        rig.view(1).unwrap().addresses.iter().map(|known| known.address.clone()).collect()
    };
    answer(&mut rig, questions[0].0, &[record(1, 9, &[global(9)])]);
    answer(&mut rig, questions[1].0, &[record(1, 5, &[global(5)])]);
    assert_eq!(addresses(&rig), [global(9)], "a replayed record is not believed");
    let ((again, ..), _) = next(&mut rig, secs(30), asked);
    answer(&mut rig, again, &[record(1, 10, &[global(10), global(11)])]);
    assert_eq!(addresses(&rig), [global(10), global(11)]);
    // What only a server says does not change what the peer has signed.
    let ((again, ..), _) = next(&mut rig, secs(30), asked);
    answer(&mut rig, again, &[SignalPeer { seq: None, ..record(1, 0, &[global(12)]) }]);
    assert_eq!(addresses(&rig), [global(10), global(11)]);
}

#[test]
fn unsigned_words_are_hints() {
    let mut rig = Rig::new(with(&[A]));
    let question = asked(&rig)[0].0;
    let unsigned = |n, addresses: &[Address]| SignalPeer { seq: None, ..record(n, 0, addresses) };
    let home = [near(2), address("/ip4/127.0.0.1/tcp/22"), address("/dns4/router.example/tcp/80")];
    answer(&mut rig, question, &[unsigned(1, &[global(1)]), unsigned(2, &home), unsigned(LOCAL, &[global(3)])]);
    assert_eq!(rig.dials().iter().map(|(_, peer, _)| number(&peer.unwrap())).collect::<Vec<_>>(), [1]);
    assert!(rig.view(2).is_none(), "nobody makes us scan our own network");
    assert_eq!(rig.view(1).unwrap().addresses[0].sources, [Source::Signal]);
}

#[test]
fn a_liar_costs_a_bounded_number_of_dials_and_pushes_nobody_out() {
    let mut config = with(&[A]);
    config.pinned = vec![PinnedPeer { peer: peer(900), addresses: vec![global(300)] }];
    let mut rig = Rig::new(config);
    let mut question = asked(&rig)[0].0;
    for round in 0..100 {
        let made_up: Vec<SignalPeer> =
            (0..32).map(|n| record(1_000 + round * 32 + n, 1, &[address("/ip4/45.99.9.9/tcp/80")])).collect();
        answer(&mut rig, question, &made_up);
        question = next(&mut rig, secs(30), asked).0.0;
    }
    let view = rig.node.view().unwrap();
    assert!(view.node().peers <= 1_024 && view.node().dialing <= 8 + 1, "{:?}", view.node());
    assert!(view.peer(&peer(900)).is_some());
}

#[test]
fn a_relay_that_a_server_names_is_asked_to_relay() {
    let mut rig = Rig::new(with(&[A]));
    let question = asked(&rig)[0].0;
    let services = SignalServices { relay: true, bootstrap: true };
    answer(&mut rig, question, &[SignalPeer { services, ..record(1, 1, &[global(1)]) }]);
    let connection = rig.dial_succeeds(1);
    rig.identified_as(connection, 1, relay_at(1));
    rig.pass(secs(10));
    assert_eq!(rig.reserves().len(), 1);
    rig.relay_grants(1);
    // The circuit is what others are told.
    let ((_, addresses, services, reason), waited) = next_publish(&mut rig);
    assert_eq!((addresses, services), (vec![circuit(1)], SignalServices::default()));
    assert_eq!((reason, waited), (Reason::AddressesChanged, secs(1)));
}

fn next_publish(rig: &mut Rig) -> ((CommandId, Vec<Address>, SignalServices, Reason), Duration) {
    next(rig, secs(10_000), published)
}

#[test]
fn our_record_is_published_and_again_at_half_its_life() {
    let mut rig = Rig::new(public(&[A]));
    if published(&rig).is_empty() {
        rig.pass(secs(2));
    }
    let (publish, addresses, services, _) = published(&rig)[0].clone();
    assert_eq!(addresses, [global(400)]);
    assert!(services.bootstrap);
    let taken = |publish, life| Event::SignalPublished { publish, expires_in: secs(life), backing: None };
    rig.tell(taken(publish, 3_600));
    assert!(server(&rig, A).published.is_some() && !server(&rig, A).publishing);
    let ((publish, .., reason), waited) = next_publish(&mut rig);
    assert!((secs(1_440)..=secs(2_160)).contains(&waited), "{waited:?}");
    assert_eq!(reason, Reason::Renewal);
    // Neither a moment nor for ever.
    rig.tell(taken(publish, 0));
    let ((publish, ..), waited) = next_publish(&mut rig);
    assert!(waited >= secs(20), "{waited:?}");
    rig.tell(taken(publish, 1 << 40));
    let (_, waited) = next_publish(&mut rig);
    assert!(waited <= secs(4_400), "{waited:?}");
}

#[test]
fn a_number_that_is_too_low_is_raised_at_once_and_only_once() {
    let mut rig = Rig::new(public(&[A]));
    rig.pass(secs(2));
    let (publish, ..) = published(&rig)[0].clone();
    rig.take();
    fail(&mut rig, publish, SignalError::Stale { seq: 99 });
    let (publish, .., reason) = published(&rig)[0].clone();
    assert_eq!(reason, Reason::Outnumbered { seq: 99 });
    rig.take();
    fail(&mut rig, publish, SignalError::Stale { seq: 999 });
    assert_eq!(published(&rig), [], "whoever says so for ever does not keep us busy");
    assert_eq!(server(&rig, A).publish_error, Some(&SignalError::Stale { seq: 999 }));
    assert!(server(&rig, A).publish_retry_at.is_some());
    let notice = |notice: &Notice| matches!(notice, Notice::SignalFailed { errand: SignalErrand::Publish, .. });
    assert!(rig.notices().iter().any(notice));
}

#[test]
fn a_server_that_only_tells_is_rarely_offered_our_record() {
    let mut rig = Rig::new(public(&[A]));
    rig.pass(secs(2));
    let (publish, ..) = published(&rig)[0].clone();
    fail(&mut rig, publish, SignalError::Unsupported);
    let (_, waited) = next_publish(&mut rig);
    assert!(waited >= secs(2_800), "{waited:?}");
}

#[test]
fn nothing_private_is_published() {
    let mut rig = Rig::new(with(&[A]));
    rig.listening("/ip4/192.168.1.2/tcp/4001");
    rig.pass(secs(600));
    assert_eq!(published(&rig), []);
}

#[test]
fn who_does_not_want_to_be_known_only_asks() {
    let mut config = public(&[A]);
    config.signal.publish = false;
    let mut rig = Rig::new(config);
    rig.pass(secs(600));
    assert_eq!(published(&rig), []);
    assert!(!asked(&rig).is_empty());
}

#[test]
fn a_pinned_peer_without_an_address_is_asked_for_by_name() {
    let mut config = with(&[A]);
    config.pinned = vec![PinnedPeer { peer: peer(9), addresses: vec![] }];
    let mut rig = Rig::new(config);
    let question = asked(&rig)[0].0;
    rig.take();
    answer(&mut rig, question, &[]);
    let (question, _, wanted) = asked(&rig)[0].clone();
    assert_eq!(wanted, Some(9));
    // Only about the one that was asked for.
    answer(&mut rig, question, &[record(8, 1, &[global(8)]), record(9, 1, &[global(9)])]);
    assert!(rig.view(8).is_none());
    assert_eq!(rig.dials().len(), 1);
}

#[test]
fn a_user_who_asks_for_a_peer_waits_for_the_servers() {
    let mut rig = Rig::new(with(&[A, B]));
    for (question, ..) in asked(&rig) {
        answer(&mut rig, question, &[]);
    }
    rig.take();
    let connect = |n| Ask::Connect(PeerAddress { peer: Some(peer(n)), address: None });
    rig.tell(Event::Asked { request: RequestId(1), ask: connect(7) });
    let questions = asked(&rig);
    assert_eq!(questions.iter().map(|(.., wanted)| *wanted).collect::<Vec<_>>(), [Some(7), Some(7)]);
    let answers = |rig: &Rig| {
        rig.last(|action| match action {
            Action::Answer { answer, .. } => Some(answer.clone()),
            _ => None,
        })
    };
    answer(&mut rig, questions[0].0, &[]);
    assert_eq!(answers(&rig), None, "the other one may know");
    answer(&mut rig, questions[1].0, &[record(7, 1, &[global(7)])]);
    rig.dial_succeeds(7);
    assert!(matches!(answers(&rig).unwrap().1, Ok(Answer::Connected { .. })));

    rig.take();
    rig.tell(Event::Asked { request: RequestId(2), ask: connect(6) });
    for (question, ..) in asked(&rig) {
        fail(&mut rig, question, down());
    }
    assert_eq!(answers(&rig).unwrap().1, Err(AskError::NotFound));
}

#[test]
fn a_server_that_the_settings_drop_is_asked_no_more() {
    let mut rig = Rig::new(with(&[A]));
    let question = asked(&rig)[0].0;
    rig.take();
    let none: Box<ValidConfig> = Box::new(with(&[]).validate().unwrap());
    rig.tell(Event::Configured(none));
    assert!(rig.commands.iter().any(|one| one.action == Action::SignalCancel { command: question }));
    answer(&mut rig, question, &[record(1, 1, &[global(1)])]);
    rig.pass(secs(3_600));
    assert_eq!((asked(&rig), rig.dials()), (vec![], vec![]));
}

#[test]
fn losing_everybody_asks_at_once() {
    let mut rig = Rig::new(with(&[A]));
    let question = asked(&rig)[0].0;
    answer(&mut rig, question, &[]);
    let connection = rig.inbound(1, global(1));
    rig.identified(connection, 1);
    rig.live(secs(60));
    rig.take();
    let cause = kinfolk_core::CloseCause::Remote;
    rig.tell(Event::Disconnected { connection, peer: peer(1), cause });
    assert_eq!(asked(&rig).len(), 1);
}

#[test]
fn places_are_checked() {
    for wrong in [
        "doorway.example",
        "ftp://a",
        "https://",
        "https://a b",
        "https://u@a",
        "https://a?x",
        "http:///x",
        "http://:80",
    ] {
        assert!(with(&[wrong]).validate().is_err(), "{wrong}");
    }
    for right in ["http://127.0.0.1:4080", "https://doorway.example/signal", "https://[2a01:4f8::1]:8443/x/signal"] {
        assert!(with(&[right]).validate().is_ok(), "{right}");
    }
    assert!(with(&[A, A]).validate().is_err());
}
