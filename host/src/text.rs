//! Text for people.

use kinfolk_core::PeerId;

/// A peer's short name, `…zHZrFxk2`: the last eight characters of its id, which differ; the first ones do not.
pub fn short_name(peer: &PeerId) -> String {
    let text = peer.to_string();
    format!("…{}", &text[text.len().saturating_sub(8)..])
}

/// Text from elsewhere with everything replaced that is no plain character: control characters, which could move a
/// terminal's cursor, and those that turn the direction of writing or have no width.
pub fn plain_text(text: &str) -> String {
    let plain = |c: char| match c {
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => '\u{fffd}',
        '\u{e0000}'..='\u{e0fff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_cannot_move_the_cursor() {
        assert_eq!(plain_text("kinfolk\x1b[2J\r\n/1\u{202e}x"), "kinfolk\u{fffd}[2J\u{fffd}\u{fffd}/1\u{fffd}x");
        assert_eq!(plain_text("Müllers Laptop 家"), "Müllers Laptop 家");
    }
}
