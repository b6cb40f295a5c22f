//! The control file of a cluster, `global/pg_control`: whose it is and in what state it was left.
//!
//! Only what stands at the same place in all versions from 10 to 18 is read by place; the sizes further on are
//! found by the number that PostgreSQL stores before them to check the floating-point format. Knows bytes, no
//! files.
//!
//! Format: PostgreSQL's `src/include/catalog/pg_control.h` (`ControlFileData`, `DBState`, `FLOATFORMAT_VALUE`).

use super::lsn::SegmentSize;
use crate::base::{Error, ErrorKind, Result};

/// PostgreSQL keeps the file's content within one sector, so that writing it is atomic.
pub const CONTROL_BYTES_MAX: usize = 512;
/// Stored by every version, for a reader of another architecture to stumble over.
const FLOAT_FORMAT: f64 = 1_234_567.0;
/// Versions of the file's layout, as 1002 of PostgreSQL 10 and 1800 of 18.
const VERSIONS: std::ops::RangeInclusive<u32> = 900..=9999;

/// Who a cluster is, and how it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlFile {
    pub system_id: u64,
    pub control_version: u32,
    pub catalog_version: u32,
    pub state: ClusterState,
    pub segment_size: SegmentSize,
}

/// `DBState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    Starting,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
    InProduction,
}

impl ClusterState {
    /// Whether the files alone are a whole database, with no WAL to be replayed.
    pub fn is_shut_down(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }

    fn of(number: u32) -> Option<Self> {
        let states = [
            Self::Starting,
            Self::ShutDown,
            Self::ShutDownInRecovery,
            Self::ShuttingDown,
            Self::InCrashRecovery,
            Self::InArchiveRecovery,
            Self::InProduction,
        ];
        states.get(usize::try_from(number).ok()?).copied()
    }
}

impl ControlFile {
    /// Of the file's first bytes; more than `CONTROL_BYTES_MAX` are not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bytes = &bytes[..bytes.len().min(CONTROL_BYTES_MAX)];
        let number = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let damaged = || Error::corrupt("global/pg_control is damaged or cut off");
        let control_version = number(8).ok_or_else(damaged)?;
        if VERSIONS.contains(&control_version.swap_bytes()) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the cluster is of a machine with the other byte order, whose files PostgreSQL cannot use here",
            ));
        }
        let system_id = bytes.first_chunk().map(|id| u64::from_le_bytes(*id)).ok_or_else(damaged)?;
        let state = number(16).and_then(ClusterState::of).ok_or_else(damaged)?;
        if !VERSIONS.contains(&control_version) || system_id == 0 {
            return Err(damaged());
        }
        // After the format number: page size, pages of a file, page size of WAL, segment size of WAL.
        let format =
            (0..bytes.len()).step_by(8).find(|at| bytes[*at..].starts_with(&FLOAT_FORMAT.to_le_bytes()));
        let segment_size = format.and_then(|at| SegmentSize::new(u64::from(number(at + 20)?)));
        Ok(Self {
            system_id,
            control_version,
            catalog_version: number(12).ok_or_else(damaged)?,
            state,
            segment_size: segment_size.ok_or_else(damaged)?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As PostgreSQL 15 writes it.
    pub(in super::super) fn control(system_id: u64, state: u32) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        bytes[0..8].copy_from_slice(&system_id.to_le_bytes());
        bytes[8..12].copy_from_slice(&1300_u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&202_209_061_u32.to_le_bytes());
        bytes[16..20].copy_from_slice(&state.to_le_bytes());
        bytes[208..216].copy_from_slice(&FLOAT_FORMAT.to_le_bytes());
        for (at, size) in [(216, 8192_u32), (220, 131_072), (224, 8192), (228, 1 << 20)] {
            bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_control_file_is_read() {
        let read = ControlFile::decode(&control(42, 6)).unwrap();
        assert_eq!((read.system_id, read.control_version, read.catalog_version), (42, 1300, 202_209_061));
        assert_eq!((read.state, read.segment_size), (ClusterState::InProduction, SegmentSize::MIN));
        assert!(!read.state.is_shut_down());
        assert!(ControlFile::decode(&control(42, 1)).unwrap().state.is_shut_down());
        assert!(ControlFile::decode(&control(42, 7)).is_err());
        assert!(ControlFile::decode(&control(42, 1)[..230]).is_err());
        let mut other = control(42, 1);
        other[8..12].reverse();
        assert_eq!(ControlFile::decode(&other).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn any_bytes_are_a_control_file_or_an_error(
            change in proptest::collection::vec((0_usize..300, any::<u8>()), 0..8),
            length in 0_usize..600,
        ) {
            let mut bytes = control(42, 1);
            for (at, byte) in change {
                bytes[at] = byte;
            }
            let _ = ControlFile::decode(&bytes[..length]);
        }
    }
}
