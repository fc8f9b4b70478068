//! Small pieces of text.

use std::fmt::Display;

use kinfolk_shell::api::types::{Path, PathKind};

use crate::{plain_text, short_name};

/// Text, at most this many characters long.
pub(crate) fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
}

/// Text in lines of at most `width` characters, if there is a width, the later ones indented by `indent`; a word that is
/// longer has its line alone.
pub(crate) fn wrapped(text: &str, indent: usize, width: Option<usize>) -> String {
    let width = width.unwrap_or(usize::MAX);
    let (mut lines, mut used) = (String::new(), 0);
    for (at, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if used > indent && used + 1 + length > width {
            lines.push_str(&format!("\n{:indent$}", ""));
            used = indent;
        } else if at > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length;
    }
    lines
}

/// A span in its two largest units: `45 s`, `3 min`, `2 h 05 min`, `3 d 4 h`.
pub(crate) fn span(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min", secs / 60),
        3_600..86_400 => format!("{} h {:02} min", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

/// A round trip: `0.4 ms`, `12 ms`.
pub(crate) fn round_trip(micros: u64) -> String {
    if micros < 10_000 {
        format!("{}.{} ms", micros / 1_000, micros / 100 % 10)
    } else {
        format!("{} ms", micros / 1_000)
    }
}

/// A size: `812 B`, `1.2 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let (unit, size) = match bytes {
        0..1_024 => return format!("{bytes} B"),
        1_024..1_048_576 => ("KiB", 1_024),
        _ => ("MiB", 1_048_576),
    };
    format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size)
}

/// A way in a word or two: `local QUIC`, `direct TCP`, `relay …zHZrFxk2`.
pub(crate) fn way(path: &Path) -> String {
    let transport = match path.transport {
        Some(kinfolk_core::Transport::Tcp) => " TCP",
        Some(kinfolk_core::Transport::Quic) => " QUIC",
        None => "",
    };
    match (path.kind, &path.relay) {
        (PathKind::Local, _) => format!("local{transport}"),
        (PathKind::Direct, _) => format!("direct{transport}"),
        (PathKind::Relayed, Some(relay)) => format!("relay {}", short_name(relay)),
        (PathKind::Relayed, None) => "relay".to_owned(),
    }
}

/// How many of something.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A label and its lines, the label only before the first. The lines are made plain: what others say is in them.
pub(crate) fn labelled<T: Display>(label: &str, lines: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for (at, line) in lines.into_iter().enumerate() {
        let label = if at == 0 { label } else { "" };
        text.push_str(&format!("{label:<14}{}\n", plain_text(&line.to_string())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_short() {
        assert_eq!(
            [0, 59, 60, 3_599, 7_500, 100_000].map(span),
            ["0 s", "59 s", "1 min", "59 min", "2 h 05 min", "1 d 3 h"]
        );
        assert_eq!([412, 9_999, 12_345].map(round_trip), ["0.4 ms", "9.9 ms", "12 ms"]);
        assert_eq!([5, 1_536, 4_300_000].map(bytes), ["5 B", "1.5 KiB", "4.1 MiB"]);
    }

    #[test]
    fn long_text_is_wrapped_between_words() {
        assert_eq!(wrapped("ab  one two three", 4, Some(11)), "ab  one two\n    three");
        assert_eq!(wrapped("ab  extraordinary x", 4, Some(8)), "ab  extraordinary\n    x");
        assert_eq!(wrapped("ab  one two", 4, None), "ab  one two");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(cut("abcd", 4), "abcd");
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
