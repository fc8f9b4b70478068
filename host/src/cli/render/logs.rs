//! Entries, and who has what.

use kinfolk_core::{Audience, PeerId};
use kinfolk_shell::api::logs::{LogEntry, Sync, SyncLog};

use super::{
    super::program::typed,
    table::Table,
    text::{count, span},
};
use crate::{plain_text, short_name};

/// One entry on one line.
pub(crate) fn entry(entry: &LogEntry) -> String {
    let LogEntry { author, position, text, hex, .. } = entry;
    let says = match (text, hex) {
        (Some(text), _) => plain_text(text),
        (None, Some(hex)) => format!("(bytes) {hex}"),
        (None, None) => String::new(),
    };
    format!("{}  {position}  {says}", short_name(author))
}

/// Who has what; `own`: this node.
pub(crate) fn sync(sync: &Sync, own: Option<&PeerId>, width: Option<usize>) -> String {
    let entries = sync.logs.iter().map(|log| log.position).sum();
    let logs: u64 = sync.logs.iter().map(|log| u64::from(log.position > 0)).sum();
    let mut text = format!("{} in {}", count(entries, "entry", "entries"), count(logs, "log", "logs"));
    text.push_str(match sync.with {
        Audience::Nobody => "; logs are exchanged with nobody (`sync.with` in the settings)\n",
        Audience::Members => "; exchanged with pinned peers\n",
        Audience::Anyone => "; exchanged with everybody of this network\n",
    });
    if let Some(wait) = sync.paused_for_s {
        text += &format!("the disk can't follow: nothing is fetched for {}\n", span(wait));
    }
    if !sync.logs.is_empty() {
        text += &format!("\n{}", table_of_logs(&sync.logs, own).render(width));
    }
    for log in &sync.logs {
        if let Some(position) = log.forked_at {
            text += &format!(
                "{} has written two different entries {position}: it runs twice, or was restored from a backup\n",
                short_name(&log.author)
            );
        }
    }
    if sync.peers.is_empty() {
        let hint = match sync.with {
            Audience::Members => {
                format!("; {} makes somebody a member of the family, on both sides", typed("pin PEER"))
            }
            Audience::Nobody | Audience::Anyone => String::new(),
        };
        return text + &format!("\nno peer that exchanges logs is connected{hint}\n");
    }
    let mut table = Table::new()
        .column("PEER", 0)
        .number("ENTRIES", 4)
        .number("MISSING HERE", 1)
        .number("MISSING THERE", 2)
        .number("OPEN", 6)
        .number("COMPARED", 5)
        .column("LAST ERROR", 3);
    for peer in &sync.peers {
        let rests = peer.rests_for_s.map(|wait| format!("; left alone for {}", span(wait))).unwrap_or_default();
        let error = peer.last_error.as_deref().map(|error| plain_text(error) + &rests);
        table.row([
            short_name(&peer.peer),
            peer.position.to_string(),
            peer.missing_here.to_string(),
            peer.missing_there.to_string(),
            if peer.pending > 0 { peer.pending.to_string() } else { String::new() },
            peer.compared_s.map(|ago| format!("{} ago", span(ago))).unwrap_or_default(),
            error.unwrap_or_default(),
        ]);
    }
    text + &format!("\n{}", table.render(width))
}

fn table_of_logs(logs: &[SyncLog], own: Option<&PeerId>) -> Table {
    let mut table = Table::new().column("LOG", 0).column("", 2).number("ENTRIES", 0).number("MISSING", 1);
    for log in logs {
        table.row([
            short_name(&log.author),
            if own == Some(&log.author) { "this node".to_owned() } else { String::new() },
            log.position.to_string(),
            if log.missing > 0 { log.missing.to_string() } else { String::new() },
        ]);
    }
    table
}
