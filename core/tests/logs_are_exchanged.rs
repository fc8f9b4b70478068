//! Positions are compared, what grows is announced, what is missing is fetched.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use std::time::Duration;

use common::{logs::*, *};
use kinfolk_core::{
    Action, Ask, Audience, CircuitLimit, CloseCause, Config, Event, Notice, PeerAddress, Reason, RequestId, Source,
    SyncError, Told, view::State,
};

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn nothing_is_exchanged_before_the_store_has_said_what_it_holds() {
    let mut rig = Rig::quiet(open_to_all());
    let connection = rig.partner(1);
    rig.says(1, connection, Told::Heads(logs(&[(1, 9)])));
    rig.tell(Event::SyncHeads { heads: logs(&[(OWN, 3)]), last: false });
    rig.live(secs(30));
    assert!(rig.exchanges() == 0 && rig.ranges().is_empty());

    rig.heads(&[]);
    assert_eq!(rig.exchanges(), 1, "the peer was there already");
    let set = rig.last(|action| match action {
        Action::SetSync { with } => Some(*with),
        _ => None,
    });
    assert_eq!(set.unwrap().1, Audience::Anyone);
}

#[test]
fn whoever_dialled_compares_at_once_and_the_other_side_waits_for_it() {
    let mut rig = Rig::with_logs(open_to_all(), &[(OWN, 3)]);
    rig.found(Source::Mdns, 1, &[near(1)]);
    let dialled = rig.dial_succeeds(1);
    assert_eq!(rig.exchanges(), 0, "it has not introduced itself");
    rig.identified_as(dialled, 1, keeper());
    assert_eq!(rig.exchanges(), 1);

    rig.take();
    let accepted = rig.inbound(2, near(2));
    rig.identified_as(accepted, 2, keeper());
    assert_eq!(rig.exchanges(), 0);
    rig.pass(secs(3));
    assert_eq!(rig.exchanges(), 1, "it has not begun");

    rig.take();
    let accepted = rig.inbound(3, near(3));
    rig.identified_as(accepted, 3, keeper());
    rig.says(3, accepted, Told::Same);
    rig.pass(secs(3));
    assert_eq!(rig.exchanges(), 0, "it has begun");
}

#[test]
fn peers_of_other_kinds_are_left_alone() {
    let mut rig = Rig::with_logs(open_to_all(), &[(OWN, 3)]);
    let plain = rig.inbound(1, near(1));
    rig.identified(plain, 1);
    let mut other = keeper();
    other.protocol_version = "/other/id/1.0.0".into();
    let other_network = rig.inbound(2, near(2));
    rig.identified_as(other_network, 2, other);
    rig.live(secs(30));
    assert_eq!(rig.exchanges(), 0);
}

#[test]
fn by_default_only_members_take_part() {
    let mut rig = Rig::with_logs(Config::desktop(), &[(OWN, 3)]);
    let connection = rig.partner(1);
    rig.says(1, connection, Told::Heads(logs(&[(1, 9)])));
    rig.live(secs(5));
    assert!(rig.exchanges() == 0 && rig.ranges().is_empty());

    let member = PeerAddress { peer: Some(peer(1)), address: None };
    rig.tell(Event::Asked { request: RequestId(1), ask: Ask::Pin(member) });
    assert_eq!(rig.exchanges(), 1);
    rig.answers(1, connection, &Told::Heads(logs(&[(1, 9)])));
    assert_eq!(rig.ranges().len(), 1);

    rig.take();
    rig.tell(Event::Asked { request: RequestId(2), ask: Ask::Forget(peer(1)) });
    assert!(rig.words().contains("drop c"), "no member, no entries");
    assert_eq!(rig.state(1), State::Identified);
}

#[test]
fn ranges_begin_where_the_store_ends() {
    let mut rig = Rig::with_logs(open_to_all(), &[(1, 4)]);
    rig.partner_with(1, &[(1, 10_000)]);
    let [first] = rig.ranges()[..] else { panic!("{:?}", rig.ranges()) };
    assert_eq!((first.log, first.since, first.limit), (log_of(1, 0), 4, 4_096));
    assert_eq!(rig.state(1), State::Syncing);
    assert_eq!(rig.sync_view(1).ours, 9_996);

    rig.take();
    rig.stored(first, 1, 2_000, true);
    let [second] = rig.ranges()[..] else { panic!("one more") };
    assert_eq!(second.since, 2_000, "whatever was asked for, that much is here");
    rig.take();
    rig.stored(second, 1, 10_000, false);
    assert!(rig.ranges().is_empty());
    assert_eq!(rig.state(1), State::Identified);
    assert!(rig.notices().contains(&Notice::PeerSynced { peer: peer(1), position: Some(10_000) }));
    let received = Notice::EntriesReceived { peer: peer(1), log: log_of(1, 0), entries: 8_000, position: 10_000 };
    assert!(rig.notices().contains(&received));
    assert_eq!(rig.log_view(1).unwrap().position, 10_000);
}

#[test]
fn whoever_gave_entries_hears_that_they_have_arrived() {
    let mut rig = Rig::with_logs(open_to_all(), &[]);
    let connection = rig.partner_with(1, &[(7, 5)]);
    let range = rig.ranges()[0];
    rig.take();
    rig.stored(range, 7, 5, false);
    rig.pass(secs(2));
    assert_eq!(rig.announcements(), [(peer(1), logs(&[(7, 5)]))]);
    rig.answers(1, connection, &Told::Heads(logs(&[(7, 5)])));
    assert!(rig.words().contains("it may know that its entries are stored"));
    rig.pass(secs(10));
    assert!(rig.announcements().is_empty(), "once");
}

#[test]
fn what_an_author_wrote_before_it_began_anew_is_fetched_and_told_too() {
    let mut rig = Rig::with_logs(open_to_all(), &[(7, 4)]);
    rig.heads(&[]);
    let both = vec![log(7, 900), log_in(7, 2, 3)];
    let connection = rig.partner(1);
    rig.answers(1, connection, &Told::Heads(both.clone()));
    let mut ranges: Vec<_> = rig.ranges().iter().map(|range| (range.log, range.since)).collect();
    ranges.sort_unstable();
    assert_eq!(ranges, [(log_of(7, 0), 4), (log_of(7, 2), 0)]);
    for range in rig.ranges() {
        rig.stored(range, 7, if range.log.epoch == 0 { 900 } else { 3 }, false);
    }
    assert_eq!(rig.sync_view(1).position, 903);
    assert_eq!((rig.sync_view(1).ours, rig.sync_view(1).theirs), (0, 0));

    rig.take();
    rig.partner_with(2, &[(7, 100)]);
    assert!(rig.ranges().is_empty());
    rig.pass(secs(2));
    let (_, told) = rig.announcements().into_iter().find(|(to, _)| *to == peer(2)).unwrap();
    assert_eq!(told, both);
}

#[test]
fn of_an_author_that_begins_anew_each_time_the_newest_epochs_are_exchanged() {
    let mut rig = Rig::with_logs(open_to_all(), &[]);
    let of = |epochs: std::ops::Range<u64>| epochs.map(|epoch| log_in(7, epoch, 2)).collect::<Vec<_>>();
    let connection = rig.partner(1);
    rig.answers(1, connection, &Told::Heads(of(0..20)));
    let mut asked = 0;
    while let Some(range) = rig.ranges().get(asked).copied() {
        asked += 1;
        rig.stored(range, 7, 2, false);
    }
    let epochs = |rig: &Rig| {
        let logs = rig.node.view().unwrap().sync().logs;
        logs.iter().map(|log| log.log.epoch).collect::<Vec<_>>()
    };
    assert_eq!(epochs(&rig), (4..20).collect::<Vec<_>>());
    assert_eq!((rig.sync_view(1).ours, rig.sync_view(1).theirs), (0, 0));

    rig.take();
    rig.says(1, connection, Told::Heads(of(0..4)));
    rig.live(secs(700));
    assert!(rig.ranges().is_empty(), "older ones stay where they are");
    rig.says(1, connection, Told::Heads(of(20..21)));
    let range = rig.ranges()[0];
    rig.stored(range, 7, 2, false);
    assert_eq!(epochs(&rig), (5..21).collect::<Vec<_>>());
}

#[test]
fn a_log_is_fetched_from_one_peer_at_a_time_and_from_another_when_that_is_slow() {
    let mut rig = Rig::with_logs(open_to_all(), &[]);
    rig.partner_with(1, &[(7, 500)]);
    rig.partner_with(2, &[(7, 500)]);
    let [slow] = rig.ranges()[..] else { panic!("{:?}", rig.ranges()) };
    assert_eq!(slow.from, peer(1));
    rig.take();
    rig.live(secs(61));
    assert!(rig.words().contains("drop"), "the slow one is not waited for");
    rig.take();
    rig.live(secs(1));
    assert_eq!(rig.sync_view(1).last_error, Some(SyncError::TimedOut));
    let from = rig.log_view(7).unwrap().fetching_from;
    assert_eq!(from, Some(peer(2)));

    rig.stored(slow, 7, 300, true);
    assert_eq!(rig.log_view(7).unwrap().position, 300, "late entries are entries");
}

#[test]
fn a_slow_peer_is_asked_for_less() {
    let mut rig = Rig::with_logs(open_to_all(), &[]);
    rig.partner_with(1, &[(7, 50_000)]);
    rig.live(secs(70));
    let ranges = rig.ranges();
    assert_eq!(ranges.iter().map(|range| range.limit).collect::<Vec<_>>(), [4_096, 1_024]);
    rig.stored(ranges[1], 7, 1_024, true);
    assert_eq!(rig.ranges()[2].limit, 2_048);
}

#[test]
fn ranges_under_way_are_few_and_every_log_has_its_turn() {
    let mut config = open_to_all();
    config.sync.max_fetches = 3;
    let mut rig = Rig::with_logs(config, &[]);
    let far: Vec<(u64, u64)> = (11..=15).map(|n| (n, 100_000 + n)).collect();
    rig.partner_with(1, &far);
    assert_eq!(rig.ranges().len(), 2, "two from one peer");
    rig.partner_with(2, &far);
    assert_eq!(rig.ranges().len(), 3, "three in all");
    let first: Vec<_> = rig.ranges().iter().map(|range| number(&range.log.author)).collect();
    assert_eq!(first, [15, 14, 13], "the largest lag first");

    let mut turns = vec![];
    for _ in 0..20 {
        let range = rig.ranges()[0];
        rig.commands.retain(|command| common::logs::range(command).is_some_and(|one| one.id != range.id));
        turns.push(number(&range.log.author));
        rig.stored(range, number(&range.log.author), range.since + 10, true);
        assert_eq!(rig.ranges().len(), 3);
    }
    for n in 11..=15 {
        assert_eq!(turns.iter().filter(|log| **log == n).count(), 4, "{turns:?}");
    }
}

#[test]
fn a_store_that_cannot_follow_is_not_given_more() {
    let mut rig = Rig::with_logs(open_to_all(), &[]);
    rig.tell(Event::SyncPressure { busy: true });
    rig.partner_with(1, &[(7, 5)]);
    rig.live(secs(50));
    assert!(rig.ranges().is_empty());
    rig.tell(Event::SyncPressure { busy: true });
    rig.live(secs(50));
    assert!(rig.ranges().is_empty(), "it has said so again");
    rig.tell(Event::SyncPressure { busy: false });
    assert_eq!(rig.ranges().len(), 1);

    let range = rig.ranges()[0];
    rig.tell(Event::SyncPressure { busy: true });
    rig.take();
    rig.stored(range, 7, 3, true);
    assert!(rig.ranges().is_empty());
    rig.live(secs(61));
    assert_eq!(rig.ranges().len(), 1, "it says nothing any more: one is tried");
    let range = rig.ranges()[0];
    rig.take();
    rig.broke(range, SyncError::StoreBusy);
    assert_eq!(rig.sync_view(1).rests_until, None, "no fault of the peer's");
    rig.live(secs(10));
    assert_eq!(rig.ranges().len(), 1);
}

#[test]
fn a_log_without_room_here_rests_and_the_others_go_on() {
    let mut rig = Rig::with_logs(open_to_all(), &[]);
    rig.partner_with(1, &[(7, 500)]);
    rig.partner_with(2, &[(7, 500)]);
    let range = rig.ranges()[0];
    rig.take();
    rig.broke(range, SyncError::LogFull);
    assert!(rig.ranges().is_empty(), "nor is the other one asked");
    assert_eq!(rig.sync_view(1).rests_until, None, "no fault of the peer's");
    assert_eq!(rig.sync_view(1).last_error, Some(SyncError::LogFull));
    rig.partner_with(3, &[(7, 500), (8, 500)]);
    assert_eq!(rig.ranges().iter().map(|range| number(&range.log.author)).collect::<Vec<_>>(), [8]);
    rig.take();
    rig.live(secs(590));
    assert!(rig.ranges().iter().all(|range| number(&range.log.author) == 8));
    rig.live(secs(20));
    assert!(rig.ranges().iter().any(|range| number(&range.log.author) == 7), "there may be room by now");
}

#[test]
fn relays_that_allow_little_carry_positions_only() {
    let little = CircuitLimit { duration: Some(secs(120)), bytes: Some(1 << 17) };
    let mut rig = Rig::with_logs(open_to_all(), &[(OWN, 3)]);
    let relayed = rig.inbound(1, circuit(90));
    rig.tell(Event::CircuitLimited { connection: relayed, limit: little });
    rig.identified_as(relayed, 1, keeper());
    rig.live(secs(3));
    rig.answers(1, relayed, &Told::Heads(logs(&[(7, 5)])));
    rig.live(secs(2));
    assert_eq!(rig.announcements().len(), 1, "it hears of our log");
    assert!(rig.ranges().is_empty());
    assert_eq!(rig.sync_view(1).ours, 5, "it is known what is missing");

    let direct = rig.inbound(1, near(1));
    assert_eq!(rig.ranges().iter().map(|range| range.connection).collect::<Vec<_>>(), [direct]);
}

#[test]
fn relays_that_allow_much_carry_entries_until_that_is_nearly_used_up() {
    let much = CircuitLimit { duration: Some(secs(7_200)), bytes: Some(128 << 20) };
    let mut rig = Rig::with_logs(open_to_all(), &[]);
    let relayed = rig.inbound(1, circuit(90));
    rig.tell(Event::CircuitLimited { connection: relayed, limit: much });
    rig.identified_as(relayed, 1, keeper());
    rig.live(secs(3));
    rig.answers(1, relayed, &Told::Heads(logs(&[(7, 5_000)])));
    let range = rig.ranges()[0];
    rig.take();
    rig.tell(Event::CircuitUsed { connection: relayed, bytes: 120 << 20 });
    rig.stored(range, 7, 4_096, true);
    assert!(rig.ranges().is_empty());
}

#[test]
fn what_grows_is_announced_many_entries_at_once() {
    let mut rig = Rig::with_logs(open_to_all(), &[(OWN, 1)]);
    for n in 1..=3 {
        let connection = rig.partner(n);
        rig.answers(n, connection, &Told::Same);
    }
    rig.take();
    for position in 2..=9 {
        rig.heads(&[(OWN, position)]);
        rig.pass(millis(10));
    }
    rig.pass(millis(100));
    let heads = logs(&[(OWN, 9)]);
    assert_eq!(rig.announcements(), [1, 2, 3].map(|n| (peer(n), heads.clone())));
    rig.take();
    rig.live(secs(10));
    assert!(rig.announcements().is_empty(), "said once");
}

#[test]
fn entries_of_others_are_not_announced_to_whoever_has_them_by_then() {
    let mut rig = Rig::with_logs(open_to_all(), &[]);
    let author = rig.partner_with(1, &[]);
    let other = rig.partner_with(2, &[]);
    rig.partner_with(3, &[]);
    rig.take();
    rig.says(1, author, Told::Heads(logs(&[(1, 1)])));
    let range = rig.ranges()[0];
    rig.stored(range, 1, 1, false);
    rig.says(2, other, Told::Heads(logs(&[(1, 1)])));
    rig.pass(secs(2));
    let told: Vec<_> = rig.announcements().iter().map(|(peer, _)| number(peer)).collect();
    assert!(told.contains(&1) && told.contains(&3) && !told.contains(&2), "{told:?}");
}

#[test]
fn a_peer_that_lags_is_told_after_positions_were_compared() {
    let mut rig = Rig::with_logs(open_to_all(), &[(OWN, 30), (8, 2)]);
    let connection = rig.partner_with(1, &[(8, 2)]);
    rig.pass(secs(1));
    assert_eq!(rig.announcements(), [(peer(1), logs(&[(OWN, 30)]))]);
    let lag = Notice::PeerLag { peer: peer(1), ours: 0, theirs: 30 };
    assert!(rig.notices().contains(&lag));
    rig.answers(1, connection, &Told::Heads(logs(&[(OWN, 0)])));
    rig.says(1, connection, Told::Heads(logs(&[(OWN, 30)])));
    assert_eq!(rig.sync_view(1).theirs, 0);
    assert!(rig.notices().contains(&Notice::PeerLag { peer: peer(1), ours: 0, theirs: 0 }));
}

#[test]
fn an_idle_hour_costs_a_dozen_exchanges() {
    let mut rig = Rig::with_logs(open_to_all(), &[(OWN, 30), (8, 2)]);
    let connection = rig.partner(1);
    let mut count = 0;
    let until = rig.now + secs(3_600);
    while rig.now < until {
        if rig.exchanges() > 0 {
            count += 1;
            rig.answers(1, connection, &Told::Same);
            rig.take();
        }
        assert!(rig.announcements().is_empty());
        rig.live(secs(1));
    }
    assert!((10..=16).contains(&count), "{count}");
}

#[test]
fn a_lost_connection_leaves_nothing_behind() {
    let mut rig = Rig::with_logs(open_to_all(), &[]);
    let first = rig.partner_with(1, &[(7, 5)]);
    let range = rig.ranges()[0];
    rig.take();
    rig.tell(Event::Disconnected { connection: first, peer: peer(1), cause: CloseCause::Remote });
    assert!(rig.view(1).unwrap().sync.is_none());
    assert_eq!(rig.log_view(7), None, "nobody has it");
    rig.broke(range, SyncError::ConnectionLost);

    rig.partner_with(2, &[(7, 5)]);
    let [range] = rig.ranges()[..] else { panic!("{:?}", rig.ranges()) };
    assert_eq!((range.from, range.since), (peer(2), 0));
}

#[test]
fn an_exchange_without_answer_is_repeated_less_and_less_often() {
    let mut rig = Rig::with_logs(open_to_all(), &[(OWN, 3)]);
    rig.partner(1);
    rig.live(secs(3_600));
    let count = rig.exchanges();
    assert!((6..=14).contains(&count), "{count}");
    assert_eq!(rig.sync_view(1).last_error, Some(SyncError::TimedOut));
    let failures = rig.notices().iter().filter(|notice| matches!(notice, Notice::SyncFailed { .. })).count();
    assert_eq!(failures, 1, "said once");
    let retry = |reason: &Reason| matches!(reason, Reason::Retry { attempt: 3 });
    assert!(rig.commands.iter().any(|command| retry(&command.reason)));
}

#[test]
fn whoever_had_nothing_for_us_and_asks_now_is_asked_again() {
    let mut rig = Rig::with_logs(open_to_all(), &[(OWN, 3)]);
    let connection = rig.partner(1);
    rig.tell(Event::SyncFailed { sync: rig.talk(1).unwrap(), error: SyncError::Denied });
    rig.take();
    rig.live(secs(60));
    assert_eq!(rig.exchanges(), 0);
    assert!(rig.sync_view(1).rests_until.is_some());

    rig.says(1, connection, Told::Differs);
    assert_eq!(rig.exchanges(), 1, "we were pinned there meanwhile");
    assert_eq!(rig.sync_view(1).rests_until, None);
    assert_eq!(rig.sync_view(1).last_error, None);
}
