//! What a doorway is told.

use std::{fmt, fs, net::SocketAddr, path::Path};

use aws_lc_rs::digest::{SHA256, digest};

use super::DoorwayError;
use crate::config::{DoorwayRules, Settings};

/// How a doorway serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DoorwaySettings {
    /// Where. Port 0 takes any.
    pub listen: SocketAddr,
    /// Which networks, at least one.
    pub networks: Vec<String>,
    /// Where records are kept.
    pub keep: Keep,
    /// Who may read and write where a token is needed.
    pub tokens: Tokens,
    /// What it takes, from whom, and how much of it.
    pub rules: DoorwayRules,
}

/// Where records are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Nowhere but in memory.
    Memory,
    /// In `doorway.sqlite` in this folder, which is made if need be.
    Folder(std::path::PathBuf),
    /// In the Redis or Valkey server at this URL.
    Redis(String),
}

impl DoorwaySettings {
    /// Everything as by default.
    pub fn new(listen: SocketAddr, networks: Vec<String>, keep: Keep) -> Self {
        Self { listen, networks, keep, tokens: Tokens::default(), rules: DoorwayRules::default() }
    }

    /// As the program's settings say. Reads the file of tokens.
    ///
    /// # Errors
    /// When that file is wrong.
    pub fn of(settings: &Settings, listen: SocketAddr) -> Result<Self, DoorwayError> {
        let config = &settings.host.doorway;
        let own = || vec![settings.config.network.clone()];
        let networks = if config.networks.is_empty() { own() } else { config.networks.clone() };
        let keep = match &config.redis {
            Some(url) => Keep::Redis(url.0.clone()),
            None => Keep::Folder(settings.host.data_dir.clone()),
        };
        let tokens = config.tokens.as_deref().map(Tokens::load).transpose();
        let tokens = tokens.map_err(|problem| DoorwayError::Settings(format!("doorway.tokens: {problem}")))?;
        Ok(Self { listen, networks, keep, tokens: tokens.unwrap_or_default(), rules: config.rules.clone() })
    }
}

/// What may be done with a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    Read,
    Write,
}

/// Who may read and write. A network about which nothing is said is open to all; one with a token for writing can be read
/// by all, unless there is one for reading, too. Tokens are kept as hashes.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tokens(Vec<Token>);

#[derive(Clone, PartialEq, Eq)]
struct Token {
    network: String,
    write: bool,
    hash: [u8; 32],
}

impl Tokens {
    /// Reads a file: a line for each token, `NETWORK read TOKEN` or `NETWORK write TOKEN`; who may write may read. Empty
    /// lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// What is wrong, with its place, in words.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: can't be read: {error}", path.display()))?;
        Self::read(&text).map_err(|problem| format!("{}:{problem}", path.display()))
    }

    fn read(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let parts: Vec<_> = text.split_whitespace().collect();
            let (network, word, token) = match parts.as_slice() {
                [] => continue,
                [first, ..] if first.starts_with('#') => continue,
                [network, word, token] => (*network, *word, *token),
                _ => return Err(format!("{line}: write NETWORK read TOKEN, or NETWORK write TOKEN")),
            };
            let write = match word {
                "read" => false,
                "write" => true,
                _ => return Err(format!("{line}: the second word must be read or write")),
            };
            if token.len() < 16 {
                return Err(format!(
                    "{line}: the token must have 16 characters at least, such as from `openssl rand -hex 16`"
                ));
            }
            tokens.push(Token { network: network.to_owned(), write, hash: hash(token) });
        }
        Ok(Self(tokens))
    }

    /// Networks that are spoken of.
    pub(super) fn networks(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|token| token.network.as_str())
    }

    /// Whether somebody with this token, or none, may do it.
    pub(super) fn allow(&self, network: &str, doing: Doing, token: Option<&str>) -> bool {
        let of_network = || self.0.iter().filter(|known| known.network == network);
        let needed = match doing {
            Doing::Read => of_network().any(|known| !known.write),
            Doing::Write => of_network().next().is_some(),
        };
        // Hashes may be compared as they are: how long that takes says nothing about the token.
        let given = token.map(hash);
        !needed || of_network().any(|known| Some(known.hash) == given && (known.write || doing == Doing::Read))
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.networks()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_open_what_they_are_for() {
        let (read, write) = ("r".repeat(16), "w".repeat(16));
        let tokens =
            Tokens::read(&format!("# ours\n\nsmith read {read}\nsmith write {write}\njones write {write}\n")).unwrap();
        let allow = |network, doing, token: Option<&String>| tokens.allow(network, doing, token.map(String::as_str));
        for doing in [Doing::Read, Doing::Write] {
            assert!(allow("open", doing, None) && allow("open", doing, Some(&read)));
            assert!(allow("smith", doing, Some(&write)) && !allow("smith", doing, None));
            assert!(allow("jones", doing, Some(&write)));
        }
        assert!(allow("smith", Doing::Read, Some(&read)) && !allow("smith", Doing::Write, Some(&read)));
        assert!(allow("jones", Doing::Read, None) && !allow("jones", Doing::Write, None));
        assert!(!allow("jones", Doing::Write, Some(&read)));
        assert_eq!(format!("{tokens:?}"), r#"["smith", "smith", "jones"]"#);
    }

    #[test]
    fn a_wrong_file_says_where() {
        for (text, problem) in
            [("a\n", "1: write NETWORK"), ("\na b c\n", "2: the second word"), ("a read c", "1: the token must")]
        {
            let said = Tokens::read(text).unwrap_err();
            assert!(said.starts_with(problem), "{said}");
        }
    }
}
