//! One backup set: what BACKUP recorded of the database, its log position and its files.
//!
//! Source: MTF_SSET of Microsoft Tape Format 1.00a for the number, attributes, date and zone. The rest is SQL Server's own
//! `MQCI` stream, undocumented: its records `SCIN` (the set), `SFGI` (a filegroup) and `SFIN` (a file) were measured on eleven
//! real files of SQL Server 2008 R2 and 2016 and agree with each other across them. The stream stands before the data (block `MSCI`) and, with the
//! final figures and the finish date, after it (block `MSLS`): the later one counts. Flags are those documented for
//! RESTORE HEADERONLY; of their bits only 0x200 and 0x800 were seen set. Must not know other sets.

use serde::{Deserialize, Serialize};

use super::block::{Block, Fields};
use super::date::{LocalTime, zone_quarters};
use super::files::{DatabaseFile, Filegroup, Records};
use super::pages::DataStreams;
use crate::adapter::sqlserver::guid::Guid;
use crate::adapter::sqlserver::lsn::Lsn;

const SSET_COPY: u32 = 0x2;
const SSET_DIFFERENTIAL: u32 = 0x8;
/// MTF 1.00a: the set's data is encrypted.
pub(super) const SSET_ENCRYPTED: u32 = 0x2_0000;

/// What a backup set holds. Letters and numbers as in msdb and RESTORE HEADERONLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetKind {
    Full,
    Log,
    Differential,
    File,
    FileDifferential,
    Partial,
    PartialDifferential,
}

impl SetKind {
    /// By the letter of `msdb.dbo.backupset.type`.
    pub fn of_letter(letter: char) -> Option<Self> {
        Some(match letter {
            'D' => Self::Full,
            'L' => Self::Log,
            'I' => Self::Differential,
            'F' => Self::File,
            'G' => Self::FileDifferential,
            'P' => Self::Partial,
            'Q' => Self::PartialDifferential,
            _ => return None,
        })
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Log => "log",
            Self::Differential => "differential",
            Self::File => "file",
            Self::FileDifferential => "file differential",
            Self::Partial => "partial",
            Self::PartialDifferential => "partial differential",
        }
    }
}

/// Bits of `Flags` as documented for RESTORE HEADERONLY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetFlags(pub u32);

impl SetFlags {
    pub fn bulk_logged(self) -> bool {
        self.0 & 1 != 0
    }

    pub fn snapshot(self) -> bool {
        self.0 & 2 != 0
    }

    /// Pages have been checked and the set has checksums.
    pub fn checksums(self) -> bool {
        self.0 & 16 != 0
    }

    /// BACKUP went on in spite of errors.
    pub fn damaged(self) -> bool {
        self.0 & 32 != 0
    }
}

/// A recovery fork that ended: its log is valid up to `ends`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkEnd {
    pub fork: Guid,
    pub ends: Lsn,
}

/// A backup set of a file. LSNs and GUIDs that SQL Server wrote as zero are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupSet {
    /// Number in the file from 1: `WITH FILE = n`.
    pub position: u16,
    /// Byte offset of its first block.
    pub at: u64,
    /// Whether its end was found.
    pub complete: bool,
    pub kind: SetKind,
    pub copy_only: bool,
    pub id: Guid,
    pub name: Option<String>,
    pub description: Option<String>,
    pub user: String,
    /// Major, minor, build of the server.
    pub software: (u8, u8, u16),
    pub database: String,
    /// Server with instance.
    pub server: String,
    /// Internal version of the database: 661 is 2008 R2, 852 is 2016.
    pub database_version: u16,
    pub compatibility_level: u8,
    pub created: Option<LocalTime>,
    pub started: Option<LocalTime>,
    pub finished: Option<LocalTime>,
    /// Quarter hours east of UTC of these times.
    pub zone_quarters: Option<i8>,
    pub first_lsn: Lsn,
    /// Of the first record that is not in it.
    pub last_lsn: Lsn,
    pub checkpoint_lsn: Option<Lsn>,
    /// First LSN of the full backup before it.
    pub database_backup_lsn: Option<Lsn>,
    /// Set id of the full backup before it.
    pub database_backup_id: Option<Guid>,
    pub differential_base_lsn: Option<Lsn>,
    pub differential_base_id: Option<Guid>,
    /// The database on its server: new after each restore.
    pub binding_id: Option<Guid>,
    /// The database since it was created.
    pub family_id: Option<Guid>,
    /// The recovery fork that it ends on.
    pub last_fork: Option<Guid>,
    /// The fork before that, as far as recorded.
    pub earlier_fork: Option<ForkEnd>,
    pub flags: SetFlags,
    /// Bytes as RESTORE HEADERONLY tells them.
    pub size_bytes: u64,
    pub files: Vec<DatabaseFile>,
    pub filegroups: Vec<Filegroup>,
    pub data: DataStreams,
}

impl BackupSet {
    /// The fork it begins on: another than the last when a fork lies inside a log backup, or right at its beginning.
    pub fn first_fork(&self) -> Option<Guid> {
        match self.earlier_fork {
            Some(earlier) if self.kind == SetKind::Log && self.first_lsn <= earlier.ends => {
                Some(earlier.fork)
            }
            _ => self.last_fork,
        }
    }

    /// Milliseconds since 1970 in UTC.
    pub fn finished_ms(&self) -> Option<i64> {
        self.finished.or(self.started)?.utc_ms(self.zone_quarters)
    }

    pub fn started_ms(&self) -> Option<i64> {
        self.started?.utc_ms(self.zone_quarters)
    }

    /// What the SSET block alone says.
    pub(super) fn begin(block: &Block) -> Self {
        let fields = block.fields();
        let attributes = fields.u32(52);
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let kind = if attributes & SSET_DIFFERENTIAL != 0 { SetKind::Differential } else { SetKind::Full };
        Self {
            position: fields.u16(62),
            at: block.at,
            complete: false,
            kind,
            copy_only: attributes & SSET_COPY != 0,
            id: Guid(fields.array(100)),
            name: some(block.text(64)),
            description: some(block.text(68)),
            user: block.text(76),
            software: (fields.u8(93), fields.u8(94), 0),
            database: String::new(),
            server: String::new(),
            database_version: 0,
            compatibility_level: 0,
            created: None,
            started: LocalTime::decode(fields.array(88)),
            finished: None,
            zone_quarters: zone_quarters(fields.u8(95)),
            first_lsn: Lsn::ZERO,
            last_lsn: Lsn::ZERO,
            checkpoint_lsn: None,
            database_backup_lsn: None,
            database_backup_id: None,
            differential_base_lsn: None,
            differential_base_id: None,
            binding_id: None,
            family_id: None,
            last_fork: None,
            earlier_fork: None,
            flags: SetFlags::default(),
            size_bytes: 0,
            files: Vec::new(),
            filegroups: Vec::new(),
            data: DataStreams::default(),
        }
    }

    /// Takes what an `MQCI` stream says over what was known. False when it is none that is understood.
    pub(super) fn configure(&mut self, config: &[u8]) -> bool {
        let Some(records) = Records::decode(config) else { return false };
        let fields = Fields(records.set);
        let Some(kind) = SetKind::of_letter(char::from(fields.u8(87))) else { return false };
        let lsn = |at: usize| Lsn::from_bytes(fields.array(at));
        let known = |at: usize| Some(lsn(at)).filter(|lsn| !lsn.is_zero());
        let guid = |at: usize| Guid(fields.array(at)).known();
        self.kind = kind;
        self.flags = SetFlags(fields.u32(8));
        self.software = (fields.u8(27), fields.u8(26), fields.u16(24));
        self.first_lsn = lsn(32);
        self.last_lsn = lsn(42);
        self.checkpoint_lsn = known(52);
        self.database_backup_lsn = known(62);
        self.created = LocalTime::decode(fields.array(72));
        self.started = LocalTime::decode(fields.array(77)).or(self.started);
        self.finished = LocalTime::decode(fields.array(82));
        self.compatibility_level = fields.u8(91);
        self.database_version = fields.u16(94);
        self.size_bytes = fields.u64(96);
        self.database = fields.wide_text(104);
        self.server = fields.wide_text(108);
        self.binding_id = guid(124);
        self.last_fork = guid(156);
        self.earlier_fork = guid(184)
            .filter(|fork| Some(*fork) != self.last_fork)
            .map(|fork| ForkEnd { fork, ends: lsn(172) });
        self.database_backup_id = guid(200);
        self.family_id = guid(224);
        let is_differential =
            matches!(kind, SetKind::Differential | SetKind::FileDifferential | SetKind::PartialDifferential);
        self.differential_base_lsn = known(260).filter(|_| is_differential);
        self.differential_base_id = guid(272).filter(|_| is_differential);
        self.files = records.files;
        self.filegroups = records.filegroups;
        true
    }
}
