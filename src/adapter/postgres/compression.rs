//! Files of an archive or a backup, plain or compressed: which endings there are, and how to read them.
//!
//! What is read is the whole decoded content or an error: a cut off stream is an error, never a short file.
//! Knows nothing of WAL or tar.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;

/// How a file is compressed, as its ending says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Lz4,
}

impl Compression {
    /// In the order in which a file is looked for.
    pub const ALL: [Self; 4] = [Self::None, Self::Gzip, Self::Zstd, Self::Lz4];

    /// Endings of programs that cannot be read here; such a file is there all the same, and is said to be.
    pub const UNSUPPORTED: [&str; 8] = [".bz2", ".xz", ".lzma", ".lzo", ".lz", ".br", ".zip", ".7z"];

    pub fn ending(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::Lz4 => ".lz4",
        }
    }

    /// A file's name without its ending, and what the ending says.
    pub fn split(name: &str) -> (&str, Self) {
        let compressed = [Self::Gzip, Self::Zstd, Self::Lz4];
        let found = compressed.into_iter().find_map(|kind| Some((name.strip_suffix(kind.ending())?, kind)));
        found.unwrap_or((name, Self::None))
    }

    /// The decoded content of `file`. Errors without an operating system's code come from the content.
    pub fn decode<'a>(self, file: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(file),
            Self::Gzip => Box::new(MultiGzDecoder::new(file)),
            Self::Zstd => Box::new(zstd::Decoder::new(file)?),
            Self::Lz4 => Box::new(Lz4Frames::new(file)),
        })
    }
}

/// All frames of a file. The decoder answers 0 bytes at the end of a frame, at the end of the file, and also
/// where a frame was cut off; which of them it was shows in what it read to get there.
struct Lz4Frames<R: Read> {
    decoder: FrameDecoder<Watched<R>>,
    within_frame: bool,
    any_frame: bool,
}

/// A file that tells what the last call read of it.
struct Watched<R> {
    file: R,
    bytes: u64,
    at_end: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.at_end |= bytes == 0 && !buffer.is_empty();
        Ok(bytes)
    }
}

impl<R: Read> Lz4Frames<R> {
    fn new(file: R) -> Self {
        let decoder = FrameDecoder::new(Watched { file, bytes: 0, at_end: false });
        Self { decoder, within_frame: false, any_frame: false }
    }
}

impl<R: Read> Read for Lz4Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let watched = self.decoder.get_mut();
            (watched.bytes, watched.at_end) = (0, false);
            let bytes = self.decoder.read(buffer)?;
            if bytes > 0 {
                self.within_frame = true;
                return Ok(bytes);
            }
            let watched = self.decoder.get_ref();
            let between = !self.within_frame && watched.bytes == 0;
            match (watched.at_end, between) {
                (true, true) if self.any_frame => return Ok(0),
                (true, _) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the lz4 frame is cut off"));
                }
                (false, _) => (self.within_frame, self.any_frame) = (false, true),
            }
        }
    }
}

/// Fills as much of the buffer as the file has left.
pub(super) fn read_full(file: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    /// The content as a program would have compressed it.
    pub(in super::super) fn encode(kind: Compression, content: &[u8]) -> Vec<u8> {
        match kind {
            Compression::None => content.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(content, 1).unwrap(),
            Compression::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn decode(kind: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        kind.decode(bytes)?.read_to_end(&mut content)?;
        Ok(content)
    }

    fn content() -> Vec<u8> {
        (0..300_000_u32).flat_map(|number| (number % 1000 * number).to_le_bytes()).collect()
    }

    #[test]
    fn each_kind_is_read_whole() {
        let content = content();
        for kind in Compression::ALL {
            let bytes = encode(kind, &content);
            assert_eq!(decode(kind, &bytes).unwrap(), content, "{kind:?}");
            // As `cat a.gz b.gz` makes.
            let twice = decode(kind, &[bytes.clone(), bytes].concat()).unwrap();
            assert!(twice == content.repeat(2), "{kind:?}: {} bytes", twice.len());
        }
    }

    #[test]
    fn a_cut_off_file_is_an_error() {
        let content = content();
        for kind in [Compression::Gzip, Compression::Zstd, Compression::Lz4] {
            let bytes = encode(kind, &content);
            let end = bytes.len();
            for kept in (1..200).chain(end / 2 - 20..end / 2).chain(end - 20..end) {
                let error = decode(kind, &bytes[..kept]).unwrap_err();
                assert_eq!(error.raw_os_error(), None, "{kind:?} {kept}: {error}");
            }
        }
    }

    #[test]
    fn endings_are_told_apart() {
        assert_eq!(Compression::split("a.tar"), ("a.tar", Compression::None));
        for kind in Compression::ALL {
            assert_eq!(Compression::split(&format!("a.tar{}", kind.ending())), ("a.tar", kind));
        }
    }
}
