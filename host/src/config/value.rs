//! How a single setting is read and shown.
//!
//! A setting arrives either typed (TOML) or as plain text (environment, flags); both go through [`Setting::read`], so
//! they are held to the same rules and complain in the same words.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use kinfolk_core::{Address, KademliaMode, PeerAddress, PinnedPeer, Role, Service};
use kinfolk_shell::network::ids::parse_address;
use toml::de::DeValue;

use super::{Power, RedisUrl};

/// A value as it was written, before anybody knows what it is for.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Raw {
    /// From the environment or a flag: everything is text there.
    Text(String),
    /// From a flag that may stand several times.
    Texts(Vec<String>),
    /// TOML: a quoted string.
    String(String),
    /// TOML: `true` or `false`.
    Bool(bool),
    /// TOML: a whole number.
    Integer(i64),
    /// TOML: a list; each item is one of these.
    List(Vec<Raw>),
    /// TOML: a kind of value that no setting takes.
    Other(&'static str),
}

impl Raw {
    pub(super) fn from_toml(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::String(text.to_string()),
            DeValue::Boolean(on) => Self::Bool(*on),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Self::Other("a number that is too large"), Self::Integer),
            DeValue::Array(items) => Self::List(items.iter().map(|item| Self::from_toml(item.get_ref())).collect()),
            DeValue::Float(_) => Self::Other("a number with a fraction"),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Table(_) => Self::Other("a table"),
        }
    }

    /// What it is, for messages.
    fn described(&self) -> String {
        match self {
            Self::Text(text) | Self::String(text) => format!("\"{}\"", shortened(text)),
            Self::Bool(on) => on.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::List(_) | Self::Texts(_) => "a list".to_owned(),
            Self::Other(kind) => (*kind).to_owned(),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::String(text) => Some(text),
            Self::Texts(texts) => match texts.as_slice() {
                [one] => Some(one),
                _ => None,
            },
            Self::Bool(_) | Self::Integer(_) | Self::List(_) | Self::Other(_) => None,
        }
    }
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 120;
    if text.chars().count() <= LONGEST {
        return text.escape_debug().to_string();
    }
    let head: String = text.chars().take(LONGEST).collect();
    format!("{}…", head.escape_debug())
}

/// Why a value was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wrong {
    /// Which item of a list, counted from 0.
    pub(super) item: Option<usize>,
    /// What is wrong, and what would be right.
    pub(super) problem: String,
}

impl Wrong {
    fn because(problem: impl Into<String>) -> Self {
        Self { item: None, problem: problem.into() }
    }

    fn expected(what: &str, raw: &Raw) -> Self {
        Self::because(format!("must be {what}, not {}", raw.described()))
    }
}

/// Something that can be set.
pub(super) trait Setting: Sized {
    /// Reads a value.
    fn read(raw: &Raw) -> Result<Self, Wrong>;

    /// The value as TOML; reading that gives the same value.
    fn show(&self) -> toml::Value;
}

impl Setting for bool {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        let text = match raw {
            Raw::Bool(on) => return Ok(*on),
            Raw::Text(text) => text.to_ascii_lowercase(),
            Raw::Texts(_) | Raw::String(_) | Raw::Integer(_) | Raw::List(_) | Raw::Other(_) => String::new(),
        };
        match text.as_str() {
            "true" | "on" | "yes" | "1" => Ok(true),
            "false" | "off" | "no" | "0" => Ok(false),
            _ => Err(Wrong::expected("true or false (without quotes)", raw)),
        }
    }

    fn show(&self) -> toml::Value {
        (*self).into()
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn read(raw: &Raw) -> Result<Self, Wrong> {
                let number = match raw {
                    Raw::Integer(number) => Some(*number),
                    Raw::Text(text) => text.replace('_', "").parse().ok(),
                    Raw::Texts(_) | Raw::String(_) | Raw::Bool(_) | Raw::List(_) | Raw::Other(_) => None,
                };
                number.and_then(|number| Self::try_from(number).ok()).ok_or_else(|| {
                    Wrong::expected(&format!("a whole number from 0 to {}", Self::MAX), raw)
                })
            }

            fn show(&self) -> toml::Value {
                i64::from(*self).into()
            }
        }
    )*};
}
whole_numbers!(u8, u32);

impl Setting for String {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        raw.text().map(str::to_owned).ok_or_else(|| Wrong::expected("text in quotes", raw))
    }

    fn show(&self) -> toml::Value {
        self.as_str().into()
    }
}

impl Setting for PathBuf {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        match raw.text() {
            Some("") => Err(Wrong::because("must be a path, and is empty")),
            Some(text) => Ok(text.into()),
            None => Err(Wrong::expected("a path in quotes", raw)),
        }
    }

    fn show(&self) -> toml::Value {
        self.to_string_lossy().into_owned().into()
    }
}

/// Where to listen, or `off`.
impl Setting for Option<SocketAddr> {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        let what = "an IP address with a port in quotes, such as \"127.0.0.1:9090\" or \"[::1]:9090\", or \"off\"";
        match raw.text().map(str::trim) {
            Some("off") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| Wrong::expected(what, raw)),
            None => Err(Wrong::expected(what, raw)),
        }
    }

    fn show(&self) -> toml::Value {
        self.map_or_else(|| "off".to_owned(), |address| address.to_string()).into()
    }
}

/// A path, or `off`.
impl Setting for Option<PathBuf> {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        match raw.text() {
            Some("off") => Ok(None),
            _ => PathBuf::read(raw).map(Some),
        }
    }

    fn show(&self) -> toml::Value {
        self.as_ref().map_or_else(|| "off".into(), Setting::show)
    }
}

/// A URL, or `off`.
impl Setting for Option<RedisUrl> {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        match raw.text() {
            Some("off") => Ok(None),
            _ => String::read(raw).map(|url| Some(RedisUrl(url))),
        }
    }

    fn show(&self) -> toml::Value {
        self.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string).into()
    }
}

impl Setting for Vec<String> {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        items(raw, |text| Ok(text.to_owned()))
    }

    fn show(&self) -> toml::Value {
        list(self.iter().cloned())
    }
}

impl Setting for Vec<IpAddr> {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        items(raw, |text| text.parse().map_err(|_| format!("'{}' is no IP address", shortened(text))))
    }

    fn show(&self) -> toml::Value {
        list(self.iter().map(ToString::to_string))
    }
}

impl Setting for Power {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        match raw.text() {
            Some("normal") => Ok(Self::Normal),
            Some("low") => Ok(Self::Low),
            _ => Err(Wrong::expected("\"normal\" or \"low\"", raw)),
        }
    }

    fn show(&self) -> toml::Value {
        match self {
            Self::Normal => "normal",
            Self::Low => "low",
        }
        .into()
    }
}

impl Setting for Role {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        match raw.text() {
            Some("family") => Ok(Self::Family),
            Some("desktop") => Ok(Self::Desktop),
            Some("server") => Ok(Self::Server),
            _ => Err(Wrong::expected("\"family\", \"desktop\" or \"server\"", raw)),
        }
    }

    fn show(&self) -> toml::Value {
        match self {
            Self::Family => "family",
            Self::Desktop => "desktop",
            Self::Server => "server",
        }
        .into()
    }
}

impl Setting for Service {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        match raw.text() {
            Some("auto") => Ok(Self::Auto),
            Some("off") => Ok(Self::Off),
            Some("members") => Ok(Self::Members),
            Some("anyone") => Ok(Self::Anyone),
            _ => Err(Wrong::expected("\"auto\", \"off\", \"members\" or \"anyone\"", raw)),
        }
    }

    fn show(&self) -> toml::Value {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Members => "members",
            Self::Anyone => "anyone",
        }
        .into()
    }
}

impl Setting for KademliaMode {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        match raw.text() {
            Some("auto") => Ok(Self::Auto),
            Some("client") => Ok(Self::Client),
            Some("server") => Ok(Self::Server),
            _ => Err(Wrong::expected("\"auto\", \"client\" or \"server\"", raw)),
        }
    }

    fn show(&self) -> toml::Value {
        match self {
            Self::Auto => "auto",
            Self::Client => "client",
            Self::Server => "server",
        }
        .into()
    }
}

impl Setting for Duration {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        let what = "a span of time with its unit in quotes, such as \"5s\", \"10m\" or \"2h\"";
        raw.text().and_then(parse_span).ok_or_else(|| Wrong::expected(what, raw))
    }

    fn show(&self) -> toml::Value {
        span_text(*self).into()
    }
}

const SPAN_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `"1h30m"`, `"500 ms"`; at most a hundred years.
fn parse_span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut millis = 0_u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "min" => "m",
            "sec" => "s",
            _ => unit,
        };
        let (_, size) = SPAN_UNITS.iter().find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(*size)?)?;
        rest = after.trim_start();
    }
    (millis <= 100 * 366 * 86_400_000).then(|| Duration::from_millis(millis))
}

/// The shortest exact text of a span, to the millisecond: `1h30m`.
pub(super) fn span_text(span: Duration) -> String {
    let mut rest = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, size) in SPAN_UNITS {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A number of bytes, written with a unit: `"4MiB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Bytes(pub u64);

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Setting for Bytes {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        let parse = |text: &str| {
            let text = text.trim();
            let digits = text.find(|c: char| !c.is_ascii_digit())?;
            let (number, unit) = text.split_at(digits);
            let (_, size) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
            number.parse::<u64>().ok()?.checked_mul(*size).map(Bytes)
        };
        let what = "a size with its unit in quotes, such as \"512KiB\" or \"4MiB\"";
        raw.text().and_then(parse).ok_or_else(|| Wrong::expected(what, raw))
    }

    fn show(&self) -> toml::Value {
        let (unit, size) =
            SIZE_UNITS.iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size)).unwrap_or(&("B", 1));
        format!("{}{unit}", self.0 / size).into()
    }
}

/// A size, or `off`.
impl Setting for Option<Bytes> {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        match raw.text() {
            Some("off") => Ok(None),
            _ => Bytes::read(raw).map(Some),
        }
    }

    fn show(&self) -> toml::Value {
        self.map_or_else(|| "off".into(), |bytes| bytes.show())
    }
}

/// The core counts bytes without a type of its own.
impl Setting for u64 {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        Bytes::read(raw).map(|bytes| bytes.0)
    }

    fn show(&self) -> toml::Value {
        Bytes(*self).show()
    }
}

impl Setting for Vec<Address> {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        items(raw, |text| {
            let parsed = peer_address(text)?;
            match (parsed.peer, parsed.address) {
                (None, Some(address)) => Ok(address),
                (Some(_), _) => Err("a peer id ('/p2p/…') has no place here".to_owned()),
                (None, None) => Err("the address is empty".to_owned()),
            }
        })
    }

    fn show(&self) -> toml::Value {
        list(self.iter().map(ToString::to_string))
    }
}

impl Setting for Vec<PeerAddress> {
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        items(raw, peer_address)
    }

    fn show(&self) -> toml::Value {
        list(self.iter().map(ToString::to_string))
    }
}

impl Setting for Vec<PinnedPeer> {
    /// A peer may stand several times, once per address.
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        let mut peers: Self = Vec::new();
        for PeerAddress { peer, address } in items(raw, pinned)? {
            let Some(peer) = peer else { continue };
            match peers.iter_mut().find(|known| known.peer == peer) {
                Some(known) => known.addresses.extend(address),
                None => peers.push(PinnedPeer { peer, addresses: address.into_iter().collect() }),
            }
        }
        Ok(peers)
    }

    fn show(&self) -> toml::Value {
        list(self.iter().flat_map(|pinned| {
            let bare = pinned.addresses.is_empty().then(|| pinned.peer.to_string());
            let full = pinned.addresses.iter().map(|address| format!("{address}/p2p/{}", pinned.peer));
            bare.into_iter().chain(full)
        }))
    }
}

fn pinned(text: &str) -> Result<PeerAddress, String> {
    if !text.starts_with('/') {
        let peer = text.parse().map_err(|error| format!("'{}' is no peer id: {error}", shortened(text)))?;
        return Ok(PeerAddress { peer: Some(peer), address: None });
    }
    let parsed = peer_address(text)?;
    if parsed.peer.is_none() {
        return Err(format!("'{}' needs to say whom it means: …/p2p/12D3KooW…", shortened(text)));
    }
    Ok(parsed)
}

/// Reads a span of time: `"20s"`, `"1h30m"`.
///
/// # Errors
/// What would be right, in words.
pub fn span(text: &str) -> Result<Duration, String> {
    Duration::read(&Raw::Text(text.to_owned())).map_err(|wrong| wrong.problem)
}

/// Reads a multiaddr, with or without a peer id at its end.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn peer_address(text: &str) -> Result<PeerAddress, String> {
    parse_address(text).map_err(|error| format!("'{}': {error}", shortened(text)))
}

fn items<T>(raw: &Raw, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Wrong> {
    let texts: Vec<&str> = match raw {
        Raw::Text(text) => text.split([',', ' ', '\n', '\t']).filter(|item| !item.is_empty()).collect(),
        Raw::Texts(texts) => texts.iter().map(String::as_str).collect(),
        Raw::List(items) => {
            let mut texts = Vec::with_capacity(items.len());
            for (at, item) in items.iter().enumerate() {
                match item {
                    Raw::String(text) => texts.push(text.as_str()),
                    Raw::Text(_) | Raw::Texts(_) | Raw::Bool(_) | Raw::Integer(_) | Raw::List(_) | Raw::Other(_) => {
                        let wrong = Wrong::expected("text in quotes", item);
                        return Err(Wrong { item: Some(at), ..wrong });
                    }
                }
            }
            texts
        }
        Raw::String(_) | Raw::Bool(_) | Raw::Integer(_) | Raw::Other(_) => {
            return Err(Wrong::expected("a list in brackets, such as [\"…\", \"…\"]", raw));
        }
    };
    let mut all = Vec::with_capacity(texts.len());
    for (at, text) in texts.into_iter().enumerate() {
        all.push(read(text).map_err(|problem| Wrong { item: Some(at), problem })?);
    }
    Ok(all)
}

fn list(items: impl Iterator<Item = String>) -> toml::Value {
    toml::Value::Array(items.map(toml::Value::String).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_shown() {
        for (text, millis) in [
            ("5s", 5_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("2 h", 7_200_000),
            ("1d", 86_400_000),
            ("10 min", 600_000),
            ("0s", 0),
        ] {
            let span = parse_span(text).unwrap();
            assert_eq!(span, Duration::from_millis(millis), "{text}");
            assert_eq!(parse_span(&span_text(span)), Some(span), "{text}");
        }
        for text in ["", "5", "s", "5 parsecs", "-5s", "5.5s", "99999999999999999999s", "5s x", "400000d"] {
            assert_eq!(parse_span(text), None, "{text}");
        }
        assert_eq!(span_text(Duration::from_secs(75)), "1m15s");
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, shown) in
            [("4MiB", 4 << 20, "4MiB"), ("1536 KiB", 1_536 << 10, "1536KiB"), ("100B", 100, "100B")]
        {
            let size = Bytes::read(&Raw::Text(text.into())).unwrap();
            assert_eq!(size, Bytes(bytes));
            assert_eq!(size.show().as_str(), Some(shown));
        }
        for text in ["4", "MiB", "4 miles", "99999999999GiB", "-1B"] {
            assert!(Bytes::read(&Raw::Text(text.into())).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pinned_peer_gathers_its_addresses() {
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let raw = Raw::Text(format!("/ip4/192.0.2.1/tcp/4001/p2p/{peer},/ip4/192.0.2.2/tcp/4001/p2p/{peer},{peer}"));
        let pinned = Vec::<PinnedPeer>::read(&raw).unwrap();
        assert_eq!(pinned.len(), 1);
        assert_eq!(pinned[0].addresses.len(), 2);
        let shown = pinned.show();
        let texts: Vec<Raw> =
            shown.as_array().unwrap().iter().map(|v| Raw::String(v.as_str().unwrap().into())).collect();
        assert_eq!(Vec::<PinnedPeer>::read(&Raw::List(texts)).unwrap(), pinned);
    }
}
