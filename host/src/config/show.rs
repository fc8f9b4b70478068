//! The settings that are in force, for people and programs.

use std::fmt::Write;

use serde::Serialize;

use super::{Place, Settings, keys::KEYS};

/// `kinfolk config show --json`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Shown {
    /// The file that was read, if any.
    pub file: Option<String>,
    /// All keys, in the order of the table.
    pub settings: Vec<ShownSetting>,
}

/// One of [`Shown::settings`].
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ShownSetting {
    /// `lifecycle.max_peers`.
    pub key: &'static str,
    /// As in TOML: text, number, truth, or a list of texts.
    pub value: toml::Value,
    /// Where it was set, in words: `/etc/kinfolk.toml:7`, `KINFOLK_NETWORK`, `--listen`, `preset of role 'desktop'`.
    pub from: String,
}

impl Settings {
    /// All keys with their values and where each was set.
    pub fn shown(&self) -> Shown {
        let settings = KEYS.iter().map(|key| ShownSetting {
            key: key.path,
            value: (key.get)(&self.draft),
            from: self.origin(key.path).map(|place| place.to_string()).unwrap_or_default(),
        });
        Shown { file: self.file.as_ref().map(|path| path.display().to_string()), settings: settings.collect() }
    }

    /// The same as TOML that a settings file may hold, with a comment where a value is not the role's preset.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut table = "";
        for key in KEYS {
            let (inside, name) = key.path.split_once('.').unwrap_or(("", key.path));
            if inside != table {
                table = inside;
                let _infallible = write!(text, "\n[{table}]\n");
            }
            let from = match self.origin(key.path) {
                None | Some(Place::Preset(_)) => String::new(),
                Some(place) => format!("  # {place}"),
            };
            let value = (key.get)(&self.draft);
            let items = value.as_array().filter(|items| items.len() > 1);
            let _infallible = match items {
                Some(items) => {
                    let items: String = items.iter().map(|item| format!("  {item},\n")).collect();
                    writeln!(text, "{name} = [{from}\n{items}]")
                }
                None => writeln!(text, "{name} = {value}{from}"),
            };
        }
        text
    }
}
