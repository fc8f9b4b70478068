//! Finding what names somebody in a text: peer ids, IP addresses, host names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kinfolk_core::PeerId;

/// What names somebody, and in a multiaddr stands behind these words.
const NAMING: [&str; 10] = [
    "/dns/",
    "/dns4/",
    "/dns6/",
    "/dnsaddr/",
    "/sni/",
    "/certhash/",
    "/onion/",
    "/onion3/",
    "/garlic32/",
    "/garlic64/",
];

/// Everything behind this is a path.
const UNIX: &str = "/unix/";

/// Where signal servers are.
const URLS: [&str; 2] = ["https://", "http://"];

/// The end of most of those, which names nobody.
const SIGNAL: &str = "/signal";

/// The shortest peer id of a real key, in bytes.
const MIN_ID: usize = 34;

/// Something in a text that names somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found<'a> {
    /// A peer.
    Peer(PeerId),
    /// An IP address.
    Ip(IpAddr),
    /// What a multiaddr calls a host; also a certificate's hash, a hidden service.
    Name(&'a str),
    /// A word with a dot in it, that may be a host's name or not.
    Word(&'a str),
}

/// Copies `text` with all that is found in it replaced by what `replace` says; `None` leaves it as it is.
///
/// Every finding is made the same way wherever it stands: alone, in a multiaddr or in a sentence.
pub(super) fn rewrite(text: &str, mut replace: impl FnMut(Found<'_>) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (before, len, new) = match next(text, at, &mut replace) {
            Some(found) => found,
            None => (0, skip(rest), None),
        };
        out.push_str(&rest[..before]);
        match new {
            Some(new) => out.push_str(&new),
            None => out.push_str(&rest[before..before + len]),
        }
        at += before + len;
    }
    out
}

/// What begins at `at`: how much before it belongs to it and stays, its length, and what it becomes.
fn next(
    text: &str,
    at: usize,
    replace: &mut impl FnMut(Found<'_>) -> Option<String>,
) -> Option<(usize, usize, Option<String>)> {
    let rest = &text[at..];
    if let Some(path) = rest.strip_prefix(UNIX).map(|path| run(path, |c| !c.is_whitespace())) {
        return (!path.is_empty()).then(|| (UNIX.len(), path.len(), replace(Found::Name(path))));
    }
    if let Some(word) = NAMING.iter().find(|word| rest.starts_with(**word)) {
        let name = name(&rest[word.len()..]);
        return (!name.is_empty()).then(|| (word.len(), name.len(), replace(Found::Name(name))));
    }
    let inside_word = text[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
    if inside_word {
        return None;
    }
    if let Some(scheme) = URLS.iter().find(|scheme| rest.starts_with(**scheme)) {
        let (len, new) = url(&rest[scheme.len()..], replace);
        return (len > 0).then_some((scheme.len(), len, Some(new)));
    }
    let word = run(rest, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')).trim_end_matches(['.', '-']);
    if word.contains('.')
        && word.contains(|c: char| c.is_ascii_alphabetic())
        && let Some(new) = replace(Found::Word(word))
    {
        return Some((0, word.len(), Some(new)));
    }
    if let Some((len, ip)) = ip(rest) {
        return Some((0, len, replace(Found::Ip(ip))));
    }
    let word = run(rest, |c| c.is_ascii_alphanumeric());
    let peer = peer(word)?;
    Some((0, word.len(), replace(Found::Peer(peer))))
}

/// What stands behind a URL's scheme: its length, and what it becomes. Host and path name somebody, the port does not.
fn url(rest: &str, replace: &mut impl FnMut(Found<'_>) -> Option<String>) -> (usize, String) {
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '"' | '\'' | ')' | '}' | '<' | '>');
    let whole = run(rest, |c| !ends(c)).trim_end_matches([':', '.', '!', '?']);
    let (authority, path) = whole.split_at(whole.find('/').unwrap_or(whole.len()));
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let (host, port) = match authority.rfind(':').filter(|at| is_port(&authority[at + 1..])) {
        Some(at) => authority.split_at(at),
        None => (authority, ""),
    };
    let (folder, end) = path.strip_suffix(SIGNAL).map_or((path, ""), |folder| (folder, SIGNAL));
    let mut name = |name: &str| {
        let (bare, is_v6) = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(bare) => (bare, true),
            None => (name, false),
        };
        let found = match bare.parse() {
            Ok(ip) => Found::Ip(ip),
            Err(_) => Found::Name(bare),
        };
        match replace(found) {
            Some(new) if is_v6 => format!("[{new}]"),
            Some(new) => new,
            None => name.to_string(),
        }
    };
    let mut new = String::new();
    if !host.is_empty() {
        new.push_str(&name(host));
    }
    new.push_str(port);
    if let Some(folder) = folder.strip_prefix('/') {
        new.push('/');
        if !folder.is_empty() {
            new.push_str(&name(folder));
        }
    }
    new.push_str(end);
    (whole.len(), new)
}

/// How far to go when nothing begins here: to the end of the word, so that nothing is found within one.
fn skip(rest: &str) -> usize {
    match run(rest, |c| c.is_ascii_alphanumeric()).len() {
        0 => rest.chars().next().map_or(1, char::len_utf8),
        word => word,
    }
}

/// A name in a multiaddr: up to the next part, or to the end of the word in a sentence.
fn name(rest: &str) -> &str {
    let ends = |c: char| c == '/' || c.is_whitespace() || matches!(c, ',' | ';' | '"' | '\'' | ')' | ']' | '}' | '>');
    run(rest, |c| !ends(c)).trim_end_matches([':', '.', '!', '?'])
}

fn ip(rest: &str) -> Option<(usize, IpAddr)> {
    let six = run(rest, |c| c.is_ascii_hexdigit() || matches!(c, ':' | '.'));
    if six.matches(':').count() >= 2 {
        // A sentence may go on with a colon or a stop.
        for cut in 0..=2 {
            let Some(text) = six.get(..six.len().saturating_sub(cut)) else { break };
            let after = &rest[text.len()..];
            if after.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                break;
            }
            if let Ok(ip) = text.parse::<Ipv6Addr>() {
                return Some((text.len(), IpAddr::V6(ip)));
            }
        }
    }
    let four = run(rest, |c| c.is_ascii_digit() || c == '.').trim_end_matches('.');
    let ip: Ipv4Addr = four.parse().ok()?;
    Some((four.len(), IpAddr::V4(ip)))
}

fn peer(word: &str) -> Option<PeerId> {
    if word.len() < MIN_ID || word.len() > 2 * PeerId::MAX_LEN {
        return None;
    }
    word.parse().ok().filter(|peer: &PeerId| peer.as_bytes().len() >= MIN_ID)
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    fn marked(text: &str) -> String {
        rewrite(text, |found| {
            Some(match found {
                Found::Peer(peer) => format!("<peer {}>", &peer.to_string()[48..]),
                Found::Ip(ip) => format!("<ip {ip}>"),
                Found::Name(name) => format!("<name {name}>"),
                Found::Word("known.example") => "<known>".to_string(),
                Found::Word(_) => return None,
            })
        })
    }

    #[test]
    fn everything_that_names_somebody_is_found_wherever_it_stands() {
        for (text, found) in [
            ("/ip4/192.0.2.1/tcp/4001", "/ip4/<ip 192.0.2.1>/tcp/4001"),
            ("/ip6/2001:DB8::0:1/udp/4001/quic-v1", "/ip6/<ip 2001:db8::1>/udp/4001/quic-v1"),
            ("/ip6/::ffff:192.0.2.1/tcp/1", "/ip6/<ip ::ffff:192.0.2.1>/tcp/1"),
            ("/dns4/a.example/tcp/1/tls/sni/b.example/ws", "/dns4/<name a.example>/tcp/1/tls/sni/<name b.example>/ws"),
            ("/dnsaddr/x", "/dnsaddr/<name x>"),
            ("/unix/home/bob/s.sock", "/unix/<name home/bob/s.sock>"),
            (
                "/ip4/1.2.3.4/udp/1/quic-v1/webtransport/certhash/uEiA_x/certhash/uB",
                "/ip4/<ip 1.2.3.4>/udp/1/quic-v1/webtransport/certhash/<name uEiA_x>/certhash/<name uB>",
            ),
            ("192.168.1.7", "<ip 192.168.1.7>"),
            ("fe80::1", "<ip fe80::1>"),
            ("10.0.0.0/8", "<ip 10.0.0.0>/8"),
            ("dialling /dns4/a.example/tcp/1: no answer", "dialling /dns4/<name a.example>/tcp/1: no answer"),
            (
                "tried /dnsaddr/a.example, /dnsaddr/b.example.",
                "tried /dnsaddr/<name a.example>, /dnsaddr/<name b.example>.",
            ),
            ("at 192.0.2.1:4001 and [2001:db8::1]:4001.", "at <ip 192.0.2.1>:4001 and [<ip 2001:db8::1>]:4001."),
            ("fe80::1%eth0: gone", "<ip fe80::1>%eth0: gone"),
            ("2001:db8::1: gone", "<ip 2001:db8::1>: gone"),
            ("(192.0.2.1).", "(<ip 192.0.2.1>)."),
            ("4.3.2.1.in-addr.arpa", "<ip 4.3.2.1>.in-addr.arpa"),
            ("https://a.example/signal", "https://<name a.example>/signal"),
            ("https://a.example:8443/smith/home/signal", "https://<name a.example>:8443/<name smith/home>/signal"),
            ("http://192.0.2.1:4080", "http://<ip 192.0.2.1>:4080"),
            ("http://[2001:db8::1]:4080/signal", "http://[<ip 2001:db8::1>]:4080/signal"),
            ("http://doorway", "http://<name doorway>"),
            ("it is at https://a.example/x now", "it is at https://<name a.example>/<name x> now"),
            ("(https://a.example).", "(https://<name a.example>)."),
            ("https:// xhttps://a.example", "https:// xhttps://a.example"),
            ("look for known.example now", "look for <known> now"),
            ("known.example.", "<known>."),
            ("unknown.example, xknown.example", "unknown.example, xknown.example"),
            // Nobody's names.
            ("/elohim/kad/1.0.0", "/elohim/kad/1.0.0"),
            ("rust-libp2p/0.57.1 std::io::Error at 12:30:45", "rust-libp2p/0.57.1 std::io::Error at 12:30:45"),
            ("a3f0 dead beef 1.2.3 300.1.1.1", "a3f0 dead beef 1.2.3 300.1.1.1"),
            ("größer, 日本", "größer, 日本"),
            ("/dns4/", "/dns4/"),
            ("", ""),
        ] {
            assert_eq!(marked(text), found);
        }
        assert_eq!(marked(PEER), "<peer U5SA>");
        assert_eq!(marked(&format!("/p2p/{PEER}/p2p-circuit")), "/p2p/<peer U5SA>/p2p-circuit");
        assert_eq!(marked(&format!("another answered: {PEER}.")), "another answered: <peer U5SA>.");
        assert_eq!(marked(&format!("x{PEER}")), format!("x{PEER}"));
    }
}
