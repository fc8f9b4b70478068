//! `kinfolk config`, and reading the settings for everything else.

use kinfolk::config::{Flag, Problems, Settings, Sources};

use super::{
    args::{Common, Config, Start},
    failure::{Exit, Failure},
    out::Out,
};

/// Reads the settings of this process.
pub(super) fn load(common: &Common, start: &Start) -> Result<Settings, Failure> {
    load_with(common, start.flags())
}

/// The same with these flags.
pub(super) fn load_with(common: &Common, flags: Vec<Flag>) -> Result<Settings, Failure> {
    let mut sources = Sources::of_process();
    sources.file.clone_from(&common.config);
    sources.flags = flags;
    sources.flags.extend(common.flags());
    Settings::load(&sources).map_err(|problems| wrong(&problems))
}

pub(super) fn command(common: &Common, command: &Config, out: Out) -> Result<(), Failure> {
    match command {
        Config::Show(start) => {
            let settings = load(common, start)?;
            out.either(&settings.shown(), || settings.to_toml())
        }
        Config::Check { file: None, start } => right(&load(common, start)?, out),
        Config::Check { file: Some(file), start } => {
            if let Some(flag) = start.flags().into_iter().chain(common.flags()).next() {
                let text = format!("`config check FILE` looks at the file alone; leave {} out", flag.name);
                return Err(Failure::bad_input(text));
            }
            let mut sources = Sources::of_process();
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
