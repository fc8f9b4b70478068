//! `kinfolk config`, and reading the settings for everything else.

use super::{
    args::{Common, Config, Start},
    failure::{Exit, Failure},
    out::Out,
    program::Program,
};
use crate::config::{Flag, Problems, Settings, Sources};

/// Reads the settings of this process.
pub(super) fn load<P: Program>(common: &Common, start: &Start) -> Result<Settings, Failure> {
    load_with::<P>(common, start.flags())
}

/// Reads the settings of this process; `flags` are those of a command.
///
/// # Errors
/// When anything in them is wrong, or not for this program.
pub fn load_with<P: Program>(common: &Common, flags: Vec<Flag>) -> Result<Settings, Failure> {
    let mut sources = Sources { defaults: P::defaults(), ..Sources::of_process() };
    sources.file.clone_from(&common.config);
    sources.flags = flags;
    sources.flags.extend(common.flags());
    Settings::load(&sources).map_err(|problems| wrong(&problems))
}

pub(super) fn command<P: Program>(common: &Common, command: &Config, out: Out) -> Result<(), Failure> {
    match command {
        Config::Show(start) => {
            let settings = load::<P>(common, start)?;
            out.either(&settings.shown(), || settings.to_toml())
        }
        Config::Check { file: None, start } => right(&load::<P>(common, start)?, out),
        Config::Check { file: Some(file), start } => {
            if let Some(flag) = start.flags().into_iter().chain(common.flags()).next() {
                let text = format!("`config check FILE` looks at the file alone; leave {} out", flag.name);
                return Err(Failure::bad_input(text));
            }
            let mut sources = Sources { defaults: P::defaults(), ..Sources::of_process() };
            sources.environment.retain(|(name, _)| !name.to_string_lossy().starts_with("KINFOLK_"));
            sources.file = Some(file.clone());
            right(&Settings::load(&sources).map_err(|problems| wrong(&problems))?, out)
        }
    }
}

fn right(settings: &Settings, out: Out) -> Result<(), Failure> {
    let file = settings.file.as_ref().map(|path| path.display().to_string());
    let value = serde_json::json!({ "file": file, "ok": true });
    out.either(&value, || match file {
        Some(file) => format!("{file}: the settings are right"),
        None => "the settings are right (there is no settings file)".to_owned(),
    })
}

fn wrong(problems: &Problems) -> Failure {
    Failure::new(Exit::BadInput, "bad_settings", problems)
}
