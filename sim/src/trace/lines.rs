use std::io::{self, BufRead, BufReader, Cursor, Read};

use super::Problem;

/// The longest frame that is taken, in bytes: 16 MiB. Events are cut to size long before.
pub const MAX_FRAME: usize = 16 << 20;

/// The longest header that is taken, in bytes: 256 MiB. A checkpoint has about 1 KiB for each peer with three addresses,
/// and servers know 20 000.
pub const MAX_HEADER: usize = 256 << 20;

/// zstd's window, as a power of two: 32 MiB is more than any level of ours needs, and a bound on hostile files.
const MAX_WINDOW_LOG: u32 = 25;

/// The lines of a text that may be compressed, one after another, each at most [`MAX_FRAME`] or [`MAX_HEADER`] long.
pub(super) struct Lines {
    source: Box<dyn BufRead + Send>,
    compressed: bool,
    line: Vec<u8>,
}

/// How a line ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// By a line feed.
    Feed,
    /// By the end of the file.
    File,
}

impl Lines {
    /// Looks at the first bytes to tell whether the text is compressed; the file's name is not asked.
    pub(super) fn new(mut source: impl Read + Send + 'static) -> io::Result<Self> {
        let mut head = Vec::with_capacity(4);
        source.by_ref().take(4).read_to_end(&mut head)?;
        let compressed = is_zstd(&head);
        let whole = Cursor::new(head).chain(source);
        let source: Box<dyn BufRead + Send> = if compressed {
            let mut decoder = zstd::Decoder::new(whole)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(BufReader::with_capacity(1 << 16, decoder))
        } else {
            Box::new(BufReader::with_capacity(1 << 16, whole))
        };
        Ok(Self { source, compressed, line: Vec::new() })
    }

    /// The next line without its end; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<(&[u8], End)>, Problem> {
        self.line.clear();
        loop {
            let chunk = match self.source.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.problem(error)),
            };
            if chunk.is_empty() {
                return Ok(if self.line.is_empty() { None } else { Some((&self.line, End::File)) });
            }
            let feed = chunk.iter().position(|byte| *byte == b'\n');
            let part = feed.unwrap_or(chunk.len());
            self.line.extend_from_slice(&chunk[..part]);
            if self.line.len() > MAX_FRAME {
                let limit = if is_header(&self.line) { MAX_HEADER } else { MAX_FRAME };
                if self.line.len() > limit {
                    return Err(Problem::TooLong { limit });
                }
            }
            self.source.consume(feed.map_or(part, |at| at + 1));
            if feed.is_some() {
                return Ok(Some((&self.line, End::Feed)));
            }
        }
    }

    fn problem(&self, error: io::Error) -> Problem {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Problem::CutOff
        } else if self.compressed && error.raw_os_error().is_none() {
            Problem::Compression(error.to_string())
        } else {
            Problem::Io(error)
        }
    }
}

/// A header has its version first, so most lines need only a glance.
pub(super) fn is_header(line: &[u8]) -> bool {
    let after = line.trim_ascii_start().strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    after.is_some_and(|rest| rest.starts_with(b"\"kinfolk_trace\""))
}

/// A frame of zstd, or one of those that zstd tells to skip.
fn is_zstd(head: &[u8]) -> bool {
    matches!(head, [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}
