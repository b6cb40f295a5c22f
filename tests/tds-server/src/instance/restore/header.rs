//! The columns and rows of RESTORE HEADERONLY, FILELISTONLY and LABELONLY, as Microsoft documents them.
//!
//! `char` columns are `nvarchar` here, as the wire has no other text. `Compressed` is documented as `BIT(1)`.

use crate::instance::database::FileKind;
use crate::instance::media::{MediaHead, SetHead, SetKind};
use crate::instance::value::{Guid, Lsn, local};
use crate::instance::views::{self, optional_text, size, text};
use crate::instance::views::{
    BIGINT, BIT, DATE, DESC, GUID, INT, LSN, NAME, PATH, SIZE, SMALLINT, Spec, TEXT, TINYINT,
};
use crate::reply::{Column, ColumnType, Value};

#[rustfmt::skip]
const HEADER: Spec = &[
    ("BackupName", NAME), ("BackupDescription", TEXT), ("BackupType", SMALLINT), ("ExpirationDate", DATE),
    ("Compressed", BIT), ("Position", SMALLINT), ("DeviceType", TINYINT), ("UserName", NAME), ("ServerName", NAME),
    ("DatabaseName", NAME), ("DatabaseVersion", INT), ("DatabaseCreationDate", DATE), ("BackupSize", SIZE),
    ("FirstLSN", LSN), ("LastLSN", LSN), ("CheckpointLSN", LSN), ("DatabaseBackupLSN", LSN),
    ("BackupStartDate", DATE), ("BackupFinishDate", DATE), ("SortOrder", SMALLINT), ("CodePage", SMALLINT),
    ("UnicodeLocaleId", INT), ("UnicodeComparisonStyle", INT), ("CompatibilityLevel", TINYINT),
    ("SoftwareVendorId", INT), ("SoftwareVersionMajor", INT), ("SoftwareVersionMinor", INT),
    ("SoftwareVersionBuild", INT), ("MachineName", NAME), ("Flags", INT), ("BindingID", GUID),
    ("RecoveryForkID", GUID), ("Collation", NAME), ("FamilyGUID", GUID), ("HasBulkLoggedData", BIT),
    ("IsSnapshot", BIT), ("IsReadOnly", BIT), ("IsSingleUser", BIT), ("HasBackupChecksums", BIT), ("IsDamaged", BIT),
    ("BeginsLogChain", BIT), ("HasIncompleteMetaData", BIT), ("IsForceOffline", BIT), ("IsCopyOnly", BIT),
    ("FirstRecoveryForkID", GUID), ("ForkPointLSN", LSN), ("RecoveryModel", DESC), ("DifferentialBaseLSN", LSN),
    ("DifferentialBaseGUID", GUID), ("BackupTypeDescription", DESC), ("BackupSetGUID", GUID),
    ("CompressedBackupSize", BIGINT), ("containment", TINYINT), ("KeyAlgorithm", ColumnType::NVarChar(Some(32))),
    ("EncryptorThumbprint", ColumnType::VarBinary(Some(20))), ("EncryptorType", ColumnType::NVarChar(Some(32))),
    ("LastValidRestoreTime", DATE), ("TimeZone", SMALLINT), ("CompressionAlgorithm", ColumnType::NVarChar(Some(32))),
];

#[rustfmt::skip]
const FILES: Spec = &[
    ("LogicalName", NAME), ("PhysicalName", PATH), ("Type", ColumnType::NVarChar(Some(1))), ("FileGroupName", NAME),
    ("Size", SIZE), ("MaxSize", SIZE), ("FileId", BIGINT), ("CreateLSN", LSN), ("DropLSN", LSN), ("UniqueId", GUID),
    ("ReadOnlyLSN", LSN), ("ReadWriteLSN", LSN), ("BackupSizeInBytes", BIGINT), ("SourceBlockSize", INT),
    ("FileGroupId", INT), ("LogGroupGUID", GUID), ("DifferentialBaseLSN", LSN), ("DifferentialBaseGUID", GUID),
    ("IsReadOnly", BIT), ("IsPresent", BIT), ("TDEThumbprint", ColumnType::VarBinary(Some(32))),
    ("SnapshotUrl", ColumnType::NVarChar(Some(360))),
];

#[rustfmt::skip]
const LABEL: Spec = &[
    ("MediaName", NAME), ("MediaSetId", GUID), ("FamilyCount", INT), ("FamilySequenceNumber", INT),
    ("MediaFamilyId", GUID), ("MediaSequenceNumber", INT), ("MediaLabelPresent", TINYINT), ("MediaDescription", TEXT),
    ("SoftwareName", NAME), ("SoftwareVendorId", INT), ("MediaDate", DATE), ("Mirror_Count", INT), ("IsCompressed", BIT),
];

/// Columns that came with SQL Server 2022.
const SINCE_2022: usize = 3;

pub(super) fn header_columns(major: u8) -> Vec<Column> {
    let columns = views::columns(HEADER);
    let count = columns.len() - if major < 16 { SINCE_2022 } else { 0 };
    columns.into_iter().take(count).collect()
}

pub(super) fn header_row(head: &SetHead, position: i32, zone: i32, major: u8) -> Vec<Value> {
    let kind = head.kind.shown().0;
    let bytes = head.bytes();
    let software = |number: u16| Value::Int(i32::from(number));
    let flags = i32::from(head.bulk)
        | i32::from(head.metadata_only) << 1
        | i32::from(head.read_only) << 2
        | i32::from(head.single_user) << 3
        | i32::from(head.checksums) << 4
        | i32::from(head.force_offline) << 8;
    let contents = &head.contents;
    let level = head.software.0.saturating_mul(10);
    let mut row = vec![
        optional_text(head.name.as_deref()),
        optional_text(head.description.as_deref()),
        Value::SmallInt(kind),
        Value::Null,
        Value::Bit(head.compressed),
        Value::SmallInt(i16::try_from(position).unwrap_or(i16::MAX)),
        Value::TinyInt(2),
        text(&head.user),
        text(&head.server),
        text(&head.database),
        Value::Int(contents.version),
        local(contents.created, zone),
        size(bytes),
        head.first.value(),
        head.last.value(),
        head.checkpoint.value(),
        head.full_backup.value(),
        local(head.started, i32::from(head.zone) * 15),
        local(head.finished, i32::from(head.zone) * 15),
        Value::SmallInt(52),
        Value::SmallInt(0),
        Value::Int(1033),
        Value::Int(196_609),
        Value::TinyInt(level),
        Value::Int(4608),
        software(u16::from(head.software.0)),
        software(u16::from(head.software.1)),
        software(head.software.2),
        text(&head.machine),
        Value::Int(flags),
        contents.database_guid.value(),
        head.last_fork().value(),
        text("SQL_Latin1_General_CP1_CI_AS"),
        contents.family_guid.value(),
    ];
    row.extend(after_family(head, zone, major));
    row
}

/// The columns behind `FamilyGUID`.
fn after_family(head: &SetHead, zone: i32, major: u8) -> Vec<Value> {
    let bytes = head.bytes();
    let contents = &head.contents;
    let description = head.kind.shown().2;
    let fork_point = head.fork_point().map_or(Value::Null, Lsn::value);
    let bits = [
        head.bulk,
        head.metadata_only,
        head.read_only,
        head.single_user,
        head.checksums,
        head.damaged,
        head.begins_chain,
        false,
        head.force_offline,
        head.copy_only,
    ];
    let mut row: Vec<Value> = bits.map(Value::Bit).into();
    row.extend([
        head.first_fork().value(),
        fork_point,
        text(&contents.recovery_model.shown().1.replace('_', "-")),
        head.base.map_or(Value::Null, |(lsn, _)| lsn.value()),
        head.base.map_or(Value::Null, |(_, guid)| guid.value()),
        text(description),
        head.guid.value(),
        Value::BigInt(i64::try_from(bytes).unwrap_or(i64::MAX)),
        Value::TinyInt(0),
        Value::Null,
        Value::Null,
        Value::Null,
    ]);
    if major >= 16 {
        let last_time = if head.kind == SetKind::Log { local(head.finished, zone) } else { Value::Null };
        let algorithm = if head.compressed { text("MS_XPRESS") } else { Value::Null };
        row.extend([last_time, Value::SmallInt(head.zone), algorithm]);
    }
    row
}

pub(super) fn file_columns() -> Vec<Column> {
    views::columns(FILES)
}

pub(super) fn file_rows(head: &SetHead) -> Vec<Vec<Value>> {
    let rows = head.contents.files.iter().map(|file| {
        let kind = match file.kind {
            FileKind::Rows => "D",
            FileKind::Log => "L",
            FileKind::Filestream => "S",
        };
        let group = head.contents.groups.iter().find(|group| group.id == file.group);
        let path = head.paths.iter().find(|(id, _)| *id == file.id).map_or("", |(_, path)| path.as_str());
        let bytes = file.pages * 8192;
        vec![
            text(&file.name),
            text(path),
            text(kind),
            optional_text(group.map(|group| group.name.as_str())),
            size(bytes),
            size(35_184_372_080_640),
            Value::BigInt(i64::from(file.id)),
            file.created.value(),
            Lsn(0).value(),
            file.guid.value(),
            Lsn(0).value(),
            Lsn(0).value(),
            Value::BigInt(i64::try_from(bytes / 4).unwrap_or(0)),
            Value::Int(512),
            Value::Int(file.group),
            Value::Null,
            head.base.map_or(Lsn(0).value(), |(lsn, _)| lsn.value()),
            head.base.map_or(Guid::default().value(), |(_, guid)| guid.value()),
            Value::Bit(false),
            Value::Bit(true),
            Value::Null,
            Value::Null,
        ]
    });
    rows.collect()
}

pub(super) fn label_columns() -> Vec<Column> {
    views::columns(LABEL)
}

pub(super) fn label_row(media: &MediaHead, zone: i32) -> Vec<Value> {
    vec![
        Value::Null,
        media.media_set.value(),
        Value::Int(i32::from(media.families)),
        Value::Int(i32::from(media.family)),
        media.family_guid.value(),
        Value::Int(1),
        Value::TinyInt(0),
        Value::Null,
        text("Microsoft SQL Server"),
        Value::Int(4608),
        local(media.written, zone),
        Value::Int(1),
        Value::Bit(media.compressed),
    ]
}
