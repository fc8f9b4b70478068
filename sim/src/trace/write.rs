use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use kinfolk_core::trace::{Frame, Header};
use serde::Serialize;
use tempfile::TempPath;

/// zstd's level: traces are small and are compressed once.
const LEVEL: i32 = 9;

/// A trace that is being written: beside its place, and moved there when it is whole. Dropped before
/// [`Writer::finish`], it leaves nothing behind and what was there before stays.
pub struct Writer {
    place: PathBuf,
    temporary: TempPath,
    sink: Sink,
}

enum Sink {
    Plain(BufWriter<File>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

/// A trace could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: can't be written: {error}", file.display())]
pub struct WriteError {
    /// Where to.
    pub file: PathBuf,
    /// Why not.
    #[source]
    pub error: io::Error,
}

impl Writer {
    /// Begins a file; a name that ends in `.zst` is compressed.
    ///
    /// # Errors
    /// When nothing can be created in its folder.
    pub fn create(place: &Path) -> Result<Self, WriteError> {
        let compress = place.extension() == Some(OsStr::new("zst"));
        Self::begin(place, compress).map_err(|error| WriteError { file: place.to_path_buf(), error })
    }

    fn begin(place: &Path, compress: bool) -> io::Result<Self> {
        let folder = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        // An ordinary file of this user's, not the private one that temporary files are.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let (file, temporary) = builder.prefix(".trace-").tempfile_in(folder)?.into_parts();
        let file = BufWriter::new(file);
        let sink = if compress {
            let mut encoder = zstd::Encoder::new(file, LEVEL)?;
            encoder.include_checksum(true)?;
            Sink::Zstd(encoder)
        } else {
            Sink::Plain(file)
        };
        Ok(Self { place: place.to_path_buf(), temporary, sink })
    }

    /// Writes a header line.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn header<C: Serialize>(&mut self, header: &Header<C>) -> Result<(), WriteError> {
        self.line(header)
    }

    /// Writes a frame line.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn frame(&mut self, frame: &Frame) -> Result<(), WriteError> {
        self.line(frame)
    }

    /// Ends the file, so that it can be read where it is now, beside its place.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn close(self) -> Result<Written, WriteError> {
        let Self { place, temporary, sink } = self;
        let closed = match sink {
            Sink::Plain(file) => Ok(file),
            Sink::Zstd(encoder) => encoder.finish(),
        }
        .and_then(|file| file.into_inner().map_err(io::IntoInnerError::into_error))
        .and_then(|file| file.sync_all());
        match closed {
            Ok(()) => Ok(Written { place, temporary }),
            Err(error) => Err(WriteError { file: place, error }),
        }
    }

    /// Ends the file and moves it to its place.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn finish(self) -> Result<(), WriteError> {
        self.close()?.keep()
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), WriteError> {
        let sink: &mut dyn Write = match &mut self.sink {
            Sink::Plain(file) => file,
            Sink::Zstd(encoder) => encoder,
        };
        serde_json::to_writer(&mut *sink, line)
            .map_err(io::Error::from)
            .and_then(|()| sink.write_all(b"\n"))
            .map_err(|error| WriteError { file: self.place.clone(), error })
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A whole trace that is not in its place yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Written {
    place: PathBuf,
    temporary: TempPath,
}

impl Written {
    /// Where it is now.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Moves it to its place.
    ///
    /// # Errors
    /// When the file there can't be replaced.
    pub fn keep(self) -> Result<(), WriteError> {
        self.temporary.persist(&self.place).map_err(|error| WriteError { file: self.place, error: error.error })
    }
}
