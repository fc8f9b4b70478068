//! The reasons of the last decisions.

use kinfolk_shell::api::types::WhyEntry;

use super::text::span;
use crate::plain_text;

/// `kinfolk why`: oldest first, as one reads a story; last of all where things stand `now`. `clock` turns seconds since
/// 1970 into the time of day.
pub(crate) fn why(entries: &[WhyEntry], now: Option<&str>, clock: impl Fn(u64) -> String) -> String {
    let mut text = story(entries, clock);
    if let Some(now) = now {
        text.push_str(&format!("now: {}\n", plain_text(now)));
    }
    text
}

fn story(entries: &[WhyEntry], clock: impl Fn(u64) -> String) -> String {
    if entries.is_empty() {
        return "nothing was decided about it so far\n".to_owned();
    }
    entries
        .iter()
        .map(|entry| {
            let times = if entry.times > 1 { format!(" ({} times)", entry.times) } else { String::new() };
            let ago = span(entry.ago_s);
            let (action, because) = (plain_text(&entry.action), plain_text(&entry.because));
            format!("{}  {ago:>10} ago  {action}, because {because}{times}\n", clock(entry.at_unix))
        })
        .collect()
}
