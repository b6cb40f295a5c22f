//! Mapping of file ranges for reading: the only file of the crate that may use `unsafe`.
//!
//! Invariant: every page of a mapping was read in without error before the caller sees it. Must not know what
//! the bytes mean, nor which file they come from.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memmap2::{Advice, Mmap, MmapOptions};

use super::storage::MappedBytes;

/// Maps `offset..offset + length` of `file` for reading.
///
/// The kernel may drop a populated page under memory pressure and read it again on the next access, so callers
/// check and use the bytes soon and do not keep the mapping for hours.
pub(super) fn map(file: &File, offset: u64, length: usize) -> io::Result<MappedBytes> {
    check_range(file, offset, length)?;
    if length == 0 {
        return Ok(Box::new(Vec::new()));
    }
    // SAFETY: the mapping is private to reading and its range lies inside the file (checked above). The bytes
    // must not change or vanish while it lives: store files are written only by the holder of the store's lock,
    // and the ranges that it maps are append-only and finished, never truncated or rewritten in place; a removed
    // file keeps its pages until the mapping goes.
    let mapping = unsafe { MmapOptions::new().offset(offset).len(length).map(file)? };
    match populate(&mapping) {
        Ok(()) => Ok(Box::new(mapping)),
        // Kernels before 5.14, and file systems that cannot populate.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => read(file, offset, length),
        Err(error) => Err(error),
    }
}

fn populate(mapping: &Mmap) -> io::Result<()> {
    loop {
        match mapping.advise(Advice::PopulateRead) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The kernel's name for a page that could not be read in.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::FAULT.raw_os_error()) => {
                return Err(rustix::io::Errno::IO.into());
            }
            outcome => return outcome,
        }
    }
}

fn read(file: &File, offset: u64, length: usize) -> io::Result<MappedBytes> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(Box::new(bytes))
}

fn check_range(file: &File, offset: u64, length: usize) -> io::Result<()> {
    let file_length = file.metadata()?.len();
    let end = u64::try_from(length).ok().and_then(|length| offset.checked_add(length));
    if end.is_none_or(|end| end > file_length) {
        let message = format!("range {offset}+{length} ends after the file's {file_length} bytes");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_what_a_read_returns_at_any_offset() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..20_000_u32).map(|i| (i % 251) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        for (offset, length) in
            [(0, 20_000), (1, 1), (4_095, 8_193), (4_096, 4_096), (19_999, 1), (20_000, 0)]
        {
            let mapped = map(&file, offset as u64, length).unwrap();
            assert_eq!(&mapped[..], &bytes[offset..offset + length]);
            assert_eq!(&read(&file, offset as u64, length).unwrap()[..], &mapped[..]);
        }
    }

    #[test]
    fn refuses_ranges_outside_the_file() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 100], 0).unwrap();
        for (offset, length) in [(0, 101), (100, 1), (5_000, 1), (u64::MAX, 2)] {
            let error = map(&file, offset, length).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
