//! The segments of the ring, put together into one file.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
};

use crate::{api::types::Exported, data_dir::write_atomically};

/// A line longer than this ends its segment: a checkpoint of 100 000 peers is shorter.
const MAX_LINE: u64 = 256 << 20;

/// Writes the segments one after another into `file`. One that was cut off (the node was killed) goes as far as its last
/// whole line.
pub(super) fn export(segments: Vec<(File, u64)>, file: &Path) -> Result<Exported, String> {
    if !file.is_absolute() {
        return Err(format!("{} is not an absolute path", file.display()));
    }
    if segments.is_empty() {
        return Err("nothing has been recorded yet; `kinfolk trace start` switches recording on".into());
    }
    let count = u32::try_from(segments.len()).unwrap_or(u32::MAX);
    let compress = file.extension().is_some_and(|extension| extension == "zst");
    let fail = |error: io::Error| format!("can't write {}: {error}", file.display());
    write_atomically(file, |out| {
        let mut out = BufWriter::new(out);
        if compress {
            let mut encoder = zstd::Encoder::new(&mut out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            encoder.include_checksum(true)?;
            copy(segments, &mut encoder)?;
            encoder.finish()?;
        } else {
            copy(segments, &mut out)?;
        }
        out.flush()
    })
    .map_err(fail)?;
    let bytes = fs::metadata(file).map_err(fail)?.len();
    Ok(Exported { file: file.display().to_string(), segments: count, bytes })
}

fn copy(segments: Vec<(File, u64)>, out: &mut impl Write) -> io::Result<()> {
    let mut line = vec![];
    for (file, bytes) in segments {
        let mut lines = BufReader::new(zstd::Decoder::new(file.take(bytes))?);
        loop {
            line.clear();
            let read = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
            // Cut off or damaged: what follows in this segment is lost, the next one has its own beginning.
            if read.is_err() || line.last() != Some(&b'\n') {
                break;
            }
            out.write_all(&line)?;
        }
    }
    Ok(())
}
