//! The settings file.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Given, Place, Problem,
    keys::{Key, is_table, nearest_table},
    unknown_key,
    value::Raw,
};

/// A settings file is a page; whatever is larger is something else.
const LARGEST: u64 = 1 << 20;

/// Reads a file. What is wrong goes to `problems`; what could be read is returned all the same, so that everything
/// wrong is told at once.
pub(super) fn read(path: &Path, problems: &mut Vec<Problem>) -> Vec<Given> {
    let mut file = Reader { path: path.to_owned(), text: String::new(), problems, given: Vec::new() };
    match text(path) {
        Ok(text) => file.text = text,
        Err(problem) => {
            file.problem(None, None, problem);
            return file.given;
        }
    }
    let text = file.text.clone();
    match DeTable::parse(&text) {
        Ok(table) => file.table("", table.get_ref()),
        Err(error) => {
            let problem = format!("not TOML: {}", error.message().lines().next().unwrap_or("unreadable"));
            file.problem(error.span().map(|span| span.start), None, problem);
        }
    }
    file.given
}

fn text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("can't be read: {error}"))?;
    if bytes.len() as u64 > LARGEST {
        return Err("is larger than 1 MiB; this is no settings file".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        format!("line {line} is not valid UTF-8")
    })
}

struct Reader<'a> {
    path: PathBuf,
    text: String,
    problems: &'a mut Vec<Problem>,
    given: Vec<Given>,
}

impl Reader<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let at = name.span().start;
            let path = format!("{prefix}{}", name.get_ref());
            match (Key::named(&path), value.get_ref()) {
                (Some(key), DeValue::Table(_)) => {
                    let problem = "is one value, not a table".to_owned();
                    self.problem(Some(at), Some(key.path), problem);
                }
                (Some(key), value) => self.value(key, at, value),
                (None, DeValue::Table(inner)) if prefix.is_empty() && is_table(&path) => {
                    self.table(&format!("{path}."), inner);
                }
                (None, _) if prefix.is_empty() && is_table(&path) => {
                    self.problem(Some(at), None, format!("'{path}' is a table: write [{path}] and its keys below"));
                }
                (None, DeValue::Table(_)) if prefix.is_empty() => {
                    let near = nearest_table(&path);
                    let problem = format!("unknown table [{}]; the nearest known one is [{near}]", path.escape_debug());
                    self.problem(Some(at), None, problem);
                }
                (None, _) => self.problem(Some(at), None, unknown_key(&path)),
            }
        }
    }

    fn value(&mut self, key: &'static Key, at: usize, value: &DeValue<'_>) {
        let lines = match value {
            DeValue::Array(items) => items.iter().map(|item: &Spanned<_>| self.line(item.span().start)).collect(),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => Vec::new(),
        };
        let place = Place::File { path: self.path.clone(), line: self.line(at) };
        self.given.push(Given { key, raw: Raw::from_toml(value), place, lines });
    }

    fn problem(&mut self, at: Option<usize>, key: Option<&str>, problem: String) {
        let line = at.map_or(0, |at| self.line(at));
        let place = Place::File { path: self.path.clone(), line };
        self.problems.push(Problem { place, key: key.map(str::to_owned), problem });
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count()
    }
}
