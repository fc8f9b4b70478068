//! SQLite files: opened, checked, brought to the present schema, and set aside when they are damaged.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode};

use super::StoreError;

/// Opens a SQLite file that no other user reads, checks it, and brings it to the last of `migrations`, of which there is one
/// per version of its schema. `set_up` is done before that.
pub(crate) fn open_file(
    path: &Path,
    what: &'static str,
    migrations: &[&str],
    set_up: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<Connection, StoreError> {
    let sql = |source| StoreError::Sql { what, path: path.to_path_buf(), source };
    let mut connection = Connection::open(path).map_err(sql)?;
    // SQLite makes its other files with the mode of this one.
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|source| StoreError::Io {
        doing: "close to other users",
        path: path.to_path_buf(),
        source,
    })?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    let known = migrations.len() as i64;
    if found > known {
        return Err(StoreError::Newer { path: path.to_path_buf(), found, known });
    }
    set_up(&connection).map_err(sql)?;
    check(&connection).map_err(sql)?;
    migrate(&mut connection, found, migrations).map_err(sql)?;
    Ok(connection)
}

/// Has SQLite look through the whole file.
///
/// # Errors
/// When it is damaged.
pub fn check(connection: &Connection) -> rusqlite::Result<()> {
    let check: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if check == "ok" {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(code, Some(check)))
}

pub(crate) fn migrate(connection: &mut Connection, version: i64, migrations: &[&str]) -> rusqlite::Result<()> {
    for (at, migration) in (1_i64..).zip(migrations).filter(|(at, _)| *at > version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", at)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Whether the error is about what is in the file, and not about the file system.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    if let rusqlite::Error::SqliteFailure(failure, _) = error {
        // `Unknown` is "no such table" in a file that claims our version. The other codes are about the file system.
        return matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown);
    }
    // "No such table" again, and values of another kind than their STRICT columns allow.
    matches!(
        error,
        rusqlite::Error::SqlInputError { .. }
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

/// Moves a damaged SQLite file, and those that belong to it, out of the way: `peers.sqlite` to `peers.damaged-<unix time>`.
///
/// # Errors
/// When the file system says no.
pub fn set_aside(path: &Path, unix_time: u64) -> Result<PathBuf, StoreError> {
    let io = |doing, path: &Path, source| StoreError::Io { doing, path: path.to_path_buf(), source };
    let with = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = (0..)
        .map(|again| {
            let again = if again == 0 { String::new() } else { format!("-{again}") };
            path.with_extension(format!("damaged-{unix_time}{again}"))
        })
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| path.with_extension("damaged"));
    fs::rename(path, &aside).map_err(|error| io("set aside", path, error))?;
    for end in ["-wal", "-shm"] {
        match fs::rename(with(path, end), with(&aside, end)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("set aside", &with(path, end), error)),
        }
    }
    Ok(aside)
}
