use std::{collections::BTreeMap, fmt, fs, io, path::Path};

/// What signal servers want to be shown, by their URLs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens(BTreeMap<String, String>);

/// Why tokens can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadTokens {
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// A line is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// Which, from 1 on.
        line: usize,
        /// What is wrong, and what would be right. Without the token.
        problem: &'static str,
    },
}

impl Tokens {
    /// Reads a file with a URL, as in the settings, and a token on each line. `#` begins a comment.
    ///
    /// # Errors
    /// When the file can't be read, a line is something else, or a token would travel where others can read it.
    pub fn read(file: &Path) -> Result<Self, BadTokens> {
        fs::read_to_string(file)?.parse()
    }

    pub(super) fn of(&self, server: &str) -> Option<&str> {
        self.0.get(server.trim_end_matches('/')).map(String::as_str)
    }
}

impl std::str::FromStr for Tokens {
    type Err = BadTokens;

    fn from_str(text: &str) -> Result<Self, BadTokens> {
        let mut tokens = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let wrong = |problem| BadTokens::Line { line: at + 1, problem };
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (url, token) = match (words.next(), words.next(), words.next()) {
                (None, ..) => continue,
                (Some(url), Some(token), None) => (url.trim_end_matches('/'), token),
                (Some(_), _, _) => {
                    return Err(wrong("must be a URL and a token: https://doorway.example/signal 3c1f…"));
                }
            };
            if !token.chars().all(|c| c.is_ascii_graphic()) {
                return Err(wrong("the token must be of ASCII characters"));
            }
            if !is_safe(url) {
                return Err(wrong("the token would travel readable: the URL must begin with https://"));
            }
            if tokens.insert(url.to_owned(), token.to_owned()).is_some() {
                return Err(wrong("this URL has a token already"));
            }
        }
        Ok(Self(tokens))
    }
}

/// Nobody else reads what is sent there.
fn is_safe(url: &str) -> bool {
    let host = url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default());
    let own = |host: &str| {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        matches!(name, "127.0.0.1" | "[::1]" | "localhost") || host == "[::1]"
    };
    url.starts_with("https://") || host.is_some_and(own)
}

impl fmt::Debug for Tokens {
    /// Without the tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_and_never_shown() {
        let tokens: Tokens =
            "# ours\nhttps://a.example/signal/ 3c1f # read\n\nhttp://127.0.0.1:4080 9a\n".parse().unwrap();
        assert_eq!(tokens.of("https://a.example/signal"), Some("3c1f"));
        assert_eq!(tokens.of("http://127.0.0.1:4080/"), Some("9a"));
        assert_eq!(tokens.of("https://b.example"), None);
        assert!(!format!("{tokens:?}").contains("3c1f"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line) in [
            ("https://a.example", 1),
            ("\nhttp://a.example 1", 2),
            ("http://127.0.0.1.example 1", 1),
            ("https://a 1 2", 1),
            ("https://a 1\nhttps://a/ 2", 2),
            ("https://a ü", 1),
        ] {
            let BadTokens::Line { line: told, .. } = text.parse::<Tokens>().unwrap_err() else { panic!("{text}") };
            assert_eq!(told, line, "{text}");
        }
    }
}
