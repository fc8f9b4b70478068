//! Claims that are not true, entries that can't be right, and logs that fork.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use common::{logs::*, *};
use kinfolk_core::{Event, Head, LogHead, Notice, Reason, SyncError, Told};

fn branched(n: u64, position: u64) -> LogHead {
    LogHead { head: Head { hash: hash(n, 0, position, 1), position }, ..log(n, position) }
}

#[test]
fn entries_that_are_claimed_and_not_there_are_asked_for_less_and_less_often() {
    let mut rig = Rig::with_logs(open_to_all(), &[(7, 5)]);
    let connection = rig.partner(1);
    let mut asked = 0;
    let until = rig.now + secs(3_600);
    while rig.now < until {
        rig.says(1, connection, Told::Heads(logs(&[(7, 1_000_000)])));
        for range in rig.ranges() {
            asked += 1;
            rig.stored(range, 7, 5, true);
        }
        if rig.exchanges() > 0 {
            rig.answers(1, connection, &Told::Heads(logs(&[(7, 1_000_000)])));
        }
        rig.take();
        rig.live(secs(1));
    }
    assert!((6..=14).contains(&asked), "{asked}");
    assert_eq!(rig.sync_view(1).last_error, Some(SyncError::NothingCame));
    assert_eq!(rig.log_view(7).unwrap().position, 5);
}

#[test]
fn more_is_believed_only_while_something_comes() {
    let mut rig = Rig::with_logs(open_to_all(), &[]);
    rig.partner_with(1, &[(7, 10)]);
    for position in [10, 20, 30] {
        let range = *rig.ranges().last().unwrap();
        rig.stored(range, 7, position, true);
    }
    assert_eq!(rig.ranges().len(), 4, "it says there is more, and there was");
    let range = *rig.ranges().last().unwrap();
    rig.stored(range, 7, 30, true);
    rig.live(secs(100));
    assert_eq!(rig.ranges().len(), 4);
}

#[test]
fn entries_that_cannot_be_right_make_a_peer_rest_and_others_go_on() {
    for error in [SyncError::Forged, SyncError::Gap, SyncError::Malformed] {
        let mut rig = Rig::with_logs(open_to_all(), &[]);
        rig.partner_with(1, &[(7, 500), (8, 500)]);
        let [first, second] = rig.ranges()[..] else { panic!("both logs") };
        rig.take();
        rig.broke(first, error.clone());
        rig.broke(second, error.clone());
        assert!(rig.notices().contains(&Notice::PeerDistrusted { peer: peer(1) }));
        assert!(rig.commands.iter().any(|command| command.reason == Reason::SyncFault(error.clone())));
        assert_eq!(rig.sync_view(1).last_error, Some(error.clone()));
        rig.live(secs(400));
        assert!(rig.ranges().is_empty(), "{error}");

        rig.partner_with(2, &[(7, 500), (8, 500)]);
        assert_eq!(rig.ranges().iter().map(|range| number(&range.from)).collect::<Vec<_>>(), [2, 2]);
    }
}

#[test]
fn a_fork_is_reported_once_it_is_proven_and_kept_apart() {
    let mut rig = Rig::with_logs(open_to_all(), &[(7, 5), (8, 1)]);
    let connection = rig.partner(1);
    rig.answers(1, connection, &Told::Heads(vec![branched(7, 5), log(8, 9)]));
    let ranges = rig.ranges();
    let check = ranges.iter().find(|range| range.log.author == peer(7)).unwrap();
    assert_eq!((check.since, check.limit), (4, 1), "the entry in question");
    assert!(!rig.notices().iter().any(|notice| matches!(notice, Notice::LogForked { .. })), "a claim proves nothing");

    rig.broke(*check, SyncError::Forked { position: 5 });
    let forked = Notice::LogForked { log: log_of(7, 0), position: 5, peer: peer(1) };
    assert!(rig.notices().contains(&forked));
    assert_eq!(rig.log_view(7).unwrap().forked_at, Some(5));
    assert!(rig.sync_view(1).logs[0].forked);
    rig.take();
    let other = *ranges.iter().find(|range| range.log.author == peer(8)).unwrap();
    rig.stored(other, 8, 9, false);
    assert_eq!(rig.log_view(8).unwrap().position, 9, "its other logs go on");
    rig.says(1, connection, Told::Heads(vec![branched(7, 5), branched(7, 50)]));
    rig.live(secs(200));
    assert!(rig.ranges().is_empty(), "not followed");
    assert!(!rig.notices().contains(&forked), "said once");

    rig.partner_with(2, &[(7, 6)]);
    assert_eq!(rig.ranges().last().unwrap().since, 5, "our branch goes on from others");
}

#[test]
fn a_fork_that_is_only_claimed_costs_one_entry() {
    let mut rig = Rig::with_logs(open_to_all(), &[(7, 5)]);
    let connection = rig.partner(1);
    rig.answers(1, connection, &Told::Heads(vec![branched(7, 5)]));
    let check = rig.ranges()[0];
    rig.tell(Event::SyncFetched {
        fetch: check.id,
        log: log_of(7, 0),
        head: head(7, 0, 5),
        entries: 0,
        has_more: false,
    });
    rig.live(secs(200));
    assert_eq!(rig.ranges().len(), 1);
    assert_eq!(rig.log_view(7).unwrap().forked_at, None);
    assert_eq!(rig.sync_view(1).last_error, Some(SyncError::NothingCame));
}

#[test]
fn a_position_that_goes_back_is_noted() {
    let mut rig = Rig::with_logs(open_to_all(), &[(7, 9)]);
    let connection = rig.partner_with(1, &[(7, 9)]);
    rig.take();
    rig.live_until(secs(400), |rig| rig.exchanges() > 0);
    rig.answers(1, connection, &Told::Heads(logs(&[(7, 2)])));
    let view = rig.sync_view(1);
    assert_eq!((view.last_error, view.theirs), (Some(SyncError::WentBack), 7));
    assert!(rig.ranges().is_empty());
    rig.pass(secs(2));
    assert_eq!(rig.announcements(), [(peer(1), logs(&[(7, 9)]))], "it may have it back");
}

#[test]
fn what_was_said_meanwhile_is_not_undone_by_an_older_answer() {
    let mut rig = Rig::with_logs(open_to_all(), &[(7, 9)]);
    let connection = rig.partner(1);
    rig.pass(secs(1));
    rig.says(1, connection, Told::Heads(logs(&[(7, 12)])));
    let range = rig.ranges()[0];
    rig.pass(secs(1));
    rig.answers(1, connection, &Told::Heads(logs(&[(7, 9)])));
    assert_eq!(rig.sync_view(1).ours, 3);
    rig.says(1, connection, Told::Heads(logs(&[(7, 15)])));
    rig.stored(range, 7, 12, false);
    assert_eq!(rig.ranges()[1].since, 12, "there was less when it answered");
}

#[test]
fn one_author_s_made_up_epochs_push_out_nothing_that_is_held() {
    let mut rig = Rig::with_logs(open_to_all(), &[]);
    let held: Vec<LogHead> = (0..16).map(|epoch| log_in(7, epoch, 3)).collect();
    rig.tell(Event::SyncHeads { heads: held.clone(), last: true });
    let connection = rig.partner(1);
    rig.answers(1, connection, &Told::Heads(held));
    let made_up: Vec<LogHead> = (100..164).map(|epoch| log_in(7, epoch, 3)).collect();
    rig.says(1, connection, Told::Heads(made_up));
    rig.tell(Event::SyncHeads { heads: vec![log_in(7, 0, 4)], last: true });
    let held = rig.node.view().unwrap().sync().logs.iter().filter(|log| log.position > 0).count();
    assert_eq!(held, 16);
}

#[test]
fn a_crowd_of_logs_that_one_peer_makes_up_leaves_room_for_others() {
    let mut rig = Rig::with_logs(open_to_all(), &[(OWN, 1)]);
    let connection = rig.partner(1);
    for chunk in 0..40 {
        let made_up: Vec<LogHead> = (0..64).map(|n| log(1_000 + chunk * 64 + n, 5)).collect();
        rig.says(1, connection, Told::Heads(made_up));
    }
    let view = rig.node.view().unwrap().sync();
    assert!(view.logs.len() <= 65 && view.ignored == 40 * 64 - 64, "{} {}", view.logs.len(), view.ignored);
    rig.partner_with(2, &[(7, 5)]);
    assert!(rig.log_view(7).is_some());
    assert!(rig.ranges().iter().any(|range| range.log.author == peer(7)), "and for its ranges");
}
