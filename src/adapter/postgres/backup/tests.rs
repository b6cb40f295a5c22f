//! Backups made by hand: whole, incomplete and hostile.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::super::compression::Compression;
use super::super::compression::tests::encode;
use super::super::control::tests::control;
use super::super::wal::tests::{SYSTEM_ID, expected, name, segment};
use super::tarball::{Tarball, relative_path};
use super::*;
use crate::base::ErrorKind;

const LABEL: &str = "START WAL LOCATION: 0/400028 (file 000000010000000000000004)\n\
    CHECKPOINT LOCATION: 0/400060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
    START TIME: 2026-11-21 11:20:00 UTC\nLABEL: nightly\nSTART TIMELINE: 1\n";
const IN_PRODUCTION: u32 = 6;
const SHUT_DOWN: u32 = 1;

/// A member with any name, which the library would not write.
fn member(kind: EntryType, path: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o777);
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str, content: impl AsRef<[u8]>) -> Vec<u8> {
    member(EntryType::Regular, path, "", content.as_ref())
}

fn folder(path: &str) -> Vec<u8> {
    member(EntryType::Directory, path, "", b"")
}

fn link(path: &str, to: &str) -> Vec<u8> {
    member(EntryType::Symlink, path, to, b"")
}

/// An extension record, which begins with its own length.
fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let digits = if rest.len() < 98 { 2 } else { 3 };
    member(EntryType::XHeader, "pax", "", format!("{}{rest}", rest.len() + digits).as_bytes())
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

fn wal() -> Vec<u8> {
    segment(&expected(name("000000010000000000000004")))
}

/// The members of a `base.tar` with one tablespace, in `pg_basebackup`'s order.
fn base_members() -> Vec<Vec<u8>> {
    vec![
        file("backup_label", LABEL),
        file("tablespace_map", "16384 /srv/fast\n"),
        folder("base/"),
        file("base/1", vec![7; 300_000]),
        file("PG_VERSION", "15\n"),
        file("postgresql.auto.conf", "primary_conninfo = 'password=secret'\n"),
        file("postmaster.opts", "x"),
        file("standby.signal", ""),
        folder("pg_replslot"),
        folder("pg_replslot/s"),
        file("pg_replslot/s/state", "x"),
        folder("pg_tblspc"),
        link("pg_tblspc/16384", "/srv/fast"),
        file("global/pg_control", control(SYSTEM_ID, IN_PRODUCTION)),
    ]
}

fn space_archive() -> Vec<u8> {
    archive(&[folder("PG_15_202209061"), file("PG_15_202209061/5/16390", vec![9; 10_000])])
}

fn wal_archive() -> Vec<u8> {
    archive(&[file("000000010000000000000004", wal())])
}

/// A backup in a folder, and the folders to put it into.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(fixture.backup()).unwrap();
        fixture
    }

    /// A whole backup with these archives compressed.
    fn whole(compression: Compression) -> Self {
        let fixture = Self::new();
        for (stem, bytes) in [
            ("base.tar", archive(&base_members())),
            ("16384.tar", space_archive()),
            ("pg_wal.tar", wal_archive()),
        ] {
            fixture.put(&format!("{stem}{}", compression.ending()), encode(compression, &bytes));
        }
        fixture
    }

    /// With only a `base.tar` of these members.
    fn base(members: &[Vec<u8>]) -> Self {
        let fixture = Self::new();
        fixture.put("base.tar", archive(members));
        fixture
    }

    fn backup(&self) -> PathBuf {
        self.folder.path().join("backup")
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.backup().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn spaces(&self) -> PathBuf {
        self.folder.path().join("spaces")
    }

    fn inspect(&self) -> Result<BackupDescription> {
        inspect(&self.backup())
    }

    fn ingest(&self) -> Result<Ingested> {
        let owner =
            FileOwner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let mut last = 0;
        let ingested = ingest(&self.backup(), &self.data(), &self.spaces(), owner, &mut |done, total| {
            assert!(done >= last && done <= total, "{last} {done} {total}");
            last = done;
            Ok(())
        })?;
        assert_eq!(last, self.inspect().unwrap().size_bytes);
        Ok(ingested)
    }

    #[track_caller]
    fn refuses(&self, kind: ErrorKind, words: &str) {
        for error in [self.inspect().map(|_| ()).unwrap_err(), self.ingest().map(|_| ()).unwrap_err()] {
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(words), "{error}");
        }
        self.forget();
    }

    /// Removes what a failed unpacking left.
    fn forget(&self) {
        for folder in [self.data(), self.spaces()] {
            let _ = fs::remove_dir_all(folder);
        }
    }

    /// Refused when it is unpacked, and nothing was written elsewhere.
    #[track_caller]
    fn refuses_to_unpack(&self, words: &str) {
        let error = self.ingest().unwrap_err();
        assert!(error.message().contains(words), "{error}");
        let mut names: Vec<_> =
            fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| !["backup", "data", "spaces"].contains(&name.to_str().unwrap()));
        assert!(names.is_empty(), "{names:?}");
    }
}

/// Every file below a folder, with its mode and size.
fn files_below(folder: &Path) -> BTreeMap<String, (u32, u64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                assert_eq!(metadata.mode() & 0o7777, 0o700, "{}", path.display());
                folders.push(path);
            } else if metadata.is_file() {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, (metadata.mode() & 0o7777, metadata.len()));
            }
        }
    }
    found
}

#[test]
fn a_backup_is_described_and_unpacked_however_it_is_compressed() {
    for compression in Compression::ALL {
        let fixture = Fixture::whole(compression);
        let description = fixture.inspect().unwrap();
        assert_eq!(description.kind, BackupKind::Tar);
        assert_eq!(description.compressed, compression != Compression::None);
        assert_eq!((description.major, description.system_id), (15, SYSTEM_ID));
        assert_eq!(description.segment_size, SegmentSize::MIN);
        assert_eq!(description.label.as_ref().unwrap().label, "nightly");
        assert_eq!(description.tablespaces, [Tablespace { oid: 16384, location: "/srv/fast".into() }]);
        assert!(description.includes_wal);
        assert_eq!(
            inspect(&fixture.backup().join(format!("base.tar{}", compression.ending()))).unwrap(),
            description
        );

        let ingested = fixture.ingest().unwrap();
        assert_eq!((ingested.system_id, ingested.includes_wal), (SYSTEM_ID, true));
        let space = fixture.spaces().join("16384");
        assert_eq!(ingested.tablespaces[0].path, space);
        let data = fixture.data();
        let files = files_below(&data);
        let expected = [
            ("PG_VERSION", 3),
            ("backup_label", LABEL.len() as u64),
            ("base/1", 300_000),
            ("global/pg_control", 8192),
            ("pg_wal/000000010000000000000004", 1 << 20),
            ("postgresql.auto.conf", 0),
            ("tablespace_map", format!("16384 {}\n", space.display()).len() as u64),
        ];
        let expected = expected.map(|(name, bytes)| (name.to_owned(), (0o600, bytes)));
        assert_eq!(files, BTreeMap::from(expected));
        assert_eq!(fs::read_link(data.join("pg_tblspc/16384")).unwrap(), space);
        assert_eq!(fs::read(data.join("pg_tblspc/16384/PG_15_202209061/5/16390")).unwrap(), [9; 10_000]);
        assert_eq!(fs::read(data.join("base/1")).unwrap(), [7; 300_000]);
        assert!(fs::read_dir(data.join("pg_replslot")).unwrap().next().is_none());
        assert!(data.join("pg_notify").is_dir());
        assert_eq!(data.metadata().unwrap().mode() & 0o7777, 0o700);
    }
}

#[test]
fn a_compressed_backup_with_its_wal_inside_is_searched_to_its_end() {
    let fixture = Fixture::new();
    let mut members = base_members();
    members.remove(1);
    members.retain(|member| !member.starts_with(b"pg_tblspc/"));
    members.insert(4, file("pg_wal/000000010000000000000004", wal()));
    fixture.put("base.tar.zst", encode(Compression::Zstd, &archive(&members)));
    let description = fixture.inspect().unwrap();
    assert_eq!((description.system_id, description.includes_wal), (SYSTEM_ID, true));
    assert!(fixture.ingest().unwrap().includes_wal);
}

#[test]
fn what_is_no_backup_says_so() {
    let fixture = Fixture::new();
    let missing = inspect(&fixture.backup().join("none")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.message().contains("there is no backup at"), "{missing}");
    fixture.refuses(ErrorKind::Invalid, "neither base.tar");
    fixture.put("monday/base.tar.gz", "");
    fixture.put("sunday/PG_VERSION", "");
    fixture.refuses(ErrorKind::Invalid, "give one of the folders in it: monday, sunday");
    fixture.put("notes.txt", "");
    let file = inspect(&fixture.backup().join("notes.txt")).unwrap_err();
    assert!(file.message().contains("not named base.tar"), "{file}");
    fixture.put("base.tar.xz", "");
    fixture.refuses(ErrorKind::Unsupported, "base.tar.xz");
}

#[test]
fn several_backups_in_one_folder_are_refused() {
    for other in ["base.tar.gz", "PG_VERSION"] {
        let fixture = Fixture::whole(Compression::None);
        fixture.put(other, "15\n");
        fixture.refuses(ErrorKind::Invalid, "more than one backup");
    }
    let fixture = Fixture::whole(Compression::None);
    fixture.put("16384.tar.gz", "");
    fixture.refuses(ErrorKind::Invalid, "16384.tar");
}

#[test]
fn tablespaces_and_archives_must_match() {
    for compression in [Compression::None, Compression::Gzip] {
        let space = format!("16384.tar{}", compression.ending());
        let fixture = Fixture::whole(compression);
        fs::remove_file(fixture.backup().join(&space)).unwrap();
        fixture.refuses(ErrorKind::Invalid, "16384.tar, the tablespace at /srv/fast, is missing");
        let fixture = Fixture::whole(compression);
        fs::copy(fixture.backup().join(&space), fixture.backup().join(space.replace("84", "99"))).unwrap();
        fixture.refuses(ErrorKind::Invalid, "of different backups");
    }
    let fixture = Fixture::whole(Compression::None);
    fixture.put("16384.tar", archive(&[folder("PG_14_202107181")]));
    fixture.refuses_to_unpack("no tablespace of PostgreSQL 15");
}

#[test]
fn a_cut_off_archive_is_found() {
    for compression in Compression::ALL {
        for stem in ["base.tar", "16384.tar", "pg_wal.tar"] {
            let fixture = Fixture::whole(compression);
            let part = format!("{stem}{}", compression.ending());
            let whole = fs::read(fixture.backup().join(&part)).unwrap();
            // Without the end mark too, and within the trailer of the compressed stream.
            let ends = match compression {
                Compression::None => vec![0, 100, 512, whole.len() / 2, whole.len() - 1024],
                _ => vec![0, 5, whole.len() / 2, whole.len() - 1],
            };
            for end in ends {
                fixture.put(&part, &whole[..end]);
                fixture.forget();
                let error = fixture.ingest().map(|_| (&part, end)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{part} {end}: {error}");
                assert!(error.message().contains(&part), "{part} {end}: {error}");
            }
        }
    }
}

#[test]
fn damaged_archives_are_found() {
    let mut bytes = archive(&base_members());
    let at = bytes.len() - 1024;
    bytes.extend_from_slice(b"more");
    let fixture = Fixture::new();
    fixture.put("base.tar", &bytes);
    fixture.refuses(ErrorKind::Corrupt, "end mark");
    bytes.truncate(at + 1024);
    bytes[1] ^= 1;
    fixture.put("base.tar", &bytes);
    fixture.refuses(ErrorKind::Corrupt, "no tar archive");
    fixture.put("base.tar", b"This is no archive at all, but longer than a block of one.".repeat(20));
    fixture.refuses(ErrorKind::Corrupt, "no tar archive");
}

#[test]
fn a_copy_without_label_must_have_been_shut_down() {
    let without_label = |state| {
        let mut members = base_members();
        members.drain(..2);
        members.retain(|member| !member.starts_with(b"pg_tblspc/"));
        members.pop();
        members.push(file("global/pg_control", control(SYSTEM_ID, state)));
        Fixture::base(&members)
    };
    without_label(IN_PRODUCTION).refuses(ErrorKind::Precondition, "no backup_label");
    let fixture = without_label(SHUT_DOWN);
    assert_eq!(fixture.inspect().unwrap().label, None);
    assert_eq!(fixture.ingest().unwrap().label, None);
    assert!(!fixture.data().join("tablespace_map").exists());
}

#[test]
fn other_versions_and_clusters_are_refused() {
    let with = |at: usize, member: Vec<u8>| {
        let mut members = base_members();
        members[at] = member;
        let fixture = Fixture::whole(Compression::None);
        fixture.put("base.tar", archive(&members));
        fixture
    };
    with(4, file("PG_VERSION", "9.6\n")).refuses(ErrorKind::Unsupported, "9.6");
    with(4, file("PG_VERSION", "new\n")).refuses(ErrorKind::Corrupt, "PG_VERSION");
    with(13, file("global/pg_control", control(5, IN_PRODUCTION)))
        .refuses(ErrorKind::Invalid, "another cluster");
    with(13, file("global/other", "")).refuses_to_unpack("no global/pg_control");
    let incremental = format!("{LABEL}INCREMENTAL FROM LSN: 0/2000028\n");
    with(0, file("backup_label", incremental)).refuses(ErrorKind::Unsupported, "pg_combinebackup");
}

#[test]
fn members_that_would_leave_the_folder_are_refused() {
    for hostile in [
        file("../escaped", "x"),
        file("base/../../escaped", "x"),
        file("/tmp/escaped-by-a-test", "x"),
        folder("../escaped"),
        link("base/out", "/tmp"),
        link("pg_wal", ".."),
        link("pg_tblspc/../../escaped", "/tmp"),
        link("pg_tblspc/x", "/tmp"),
        member(EntryType::Link, "base/hard", "/etc/passwd", b""),
        member(EntryType::Fifo, "base/fifo", "", b""),
        member(EntryType::Char, "base/device", "", b""),
        member(EntryType::Block, "base/device", "", b""),
        member(EntryType::GNUSparse, "base/sparse", "", b""),
        file("base/1", "once more"),
        file("", "x"),
        // A link to a tablespace is not followed by what comes after it.
        [link("pg_tblspc/7", "/tmp"), file("pg_tblspc/7/../../../escaped", "x")].concat(),
        [member(EntryType::GNULongName, "././@LongLink", "", b"../../escaped\0"), file("harmless", "x")]
            .concat(),
        [pax("path", "../../escaped"), file("harmless", "x")].concat(),
        [pax("size", "1"), file("harmless", "x")].concat(),
    ] {
        let mut members = base_members();
        members.insert(5, hostile.clone());
        let fixture = Fixture::whole(Compression::None);
        fixture.put("base.tar", archive(&members));
        let said = fixture.ingest().unwrap_err();
        assert!(matches!(said.kind(), ErrorKind::Invalid | ErrorKind::Corrupt), "{said}");
        fixture.forget();
        fixture.refuses_to_unpack("");
        assert!(!Path::new("/tmp/escaped-by-a-test").exists() && !Path::new("/tmp/escaped").exists());
    }
}

#[test]
fn a_link_to_a_tablespace_leads_into_our_folder_only() {
    let fixture = Fixture::whole(Compression::None);
    let outside = fixture.folder.path().join("backup/outside");
    let mut members = base_members();
    members[1] = file("tablespace_map", format!("16384 {}\n", outside.display()));
    members[12] = link("pg_tblspc/16384", outside.to_str().unwrap());
    members.push(file("pg_tblspc/16384/written", "x"));
    fixture.put("base.tar", archive(&members));
    fixture.ingest().unwrap();
    assert!(!outside.exists());
    assert!(fixture.spaces().join("16384/written").exists());
}

#[test]
fn long_names_are_read() {
    let long = format!("base/{}", "n".repeat(200));
    let mut members = base_members();
    members.insert(4, member(EntryType::GNULongName, "././@LongLink", "", format!("{long}\0").as_bytes()));
    members.insert(5, file("cut", "gnu"));
    members.insert(6, pax("path", &format!("{long}x")));
    members.insert(7, file("cut", "pax"));
    let fixture = Fixture::whole(Compression::None);
    fixture.put("base.tar", archive(&members));
    fixture.ingest().unwrap();
    assert_eq!(fs::read(fixture.data().join(&long)).unwrap(), b"gnu");
    assert_eq!(fs::read(fixture.data().join(format!("{long}x"))).unwrap(), b"pax");
    // A name as long as a disk is not read into memory.
    let mut endless = member(EntryType::GNULongName, "././@LongLink", "", b"");
    let mut header = Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&endless[..512]);
    header.set_size(1 << 30);
    header.set_cksum();
    endless[..512].copy_from_slice(header.as_bytes());
    assert!(Tarball::of(std::io::Cursor::new([endless, vec![1; 4096]].concat())).next_member().is_err());
}

#[test]
fn the_manifest_is_held_against_the_files() {
    let list = |path: &str, bytes: u64| {
        format!(
            r#"{{"PostgreSQL-Backup-Manifest-Version": 1, "Files": [{{ "Path": "{path}", "Size": {bytes}, "Last-Modified": "x" }},
            {{ "Encoded-Path": "626173652f31", "Size": 300000 }}, {{ "Path": "postgresql.auto.conf", "Size": 9 }}],
            "WAL-Ranges": [], "Manifest-Checksum": "x"}}"#
        )
    };
    let with = |list: String| {
        let fixture = Fixture::whole(Compression::None);
        fixture.put("backup_manifest", list);
        fixture
    };
    assert!(with(list("pg_tblspc/16384/PG_15_202209061/5/16390", 10_000)).ingest().unwrap().manifest);
    with(list("pg_tblspc/16384/PG_15_202209061/5/16390", 9_000)).refuses_to_unpack("has 10000");
    with(list("base/2", 9_000)).refuses_to_unpack("base/2 is missing");
    with(list("../../etc/passwd", 9_000)).refuses_to_unpack("..");
    with(list("base/1", 300_000)[..200].to_owned()).refuses_to_unpack("damaged or cut off");
}

/// A plain copy of a data directory.
fn plain() -> Fixture {
    let fixture = Fixture::new();
    fixture.put("PG_VERSION", "15\n");
    fixture.put("backup_label", LABEL);
    fixture.put("global/pg_control", control(SYSTEM_ID, IN_PRODUCTION));
    fixture.put("base/1", vec![7; 300_000]);
    fixture.put("pg_wal/000000010000000000000004", wal());
    fixture.put("postgresql.auto.conf", "x");
    fixture.put("pg_replslot/s/state", "x");
    fixture
}

#[test]
fn a_plain_copy_is_described_and_copied() {
    let fixture = plain();
    let outside = fixture.folder.path().join("backup-space");
    fs::create_dir_all(outside.join("PG_15_202209061/5")).unwrap();
    fs::write(outside.join("PG_15_202209061/5/16390"), "y").unwrap();
    fs::create_dir(fixture.backup().join("pg_tblspc")).unwrap();
    symlink(&outside, fixture.backup().join("pg_tblspc/16384")).unwrap();
    symlink("/etc/hostname", fixture.backup().join("server.crt")).unwrap();
    let description = fixture.inspect().unwrap();
    assert_eq!(description.kind, BackupKind::Plain);
    assert_eq!((description.major, description.system_id), (15, SYSTEM_ID));
    assert!(description.includes_wal);
    assert_eq!(description.tablespaces, [Tablespace { oid: 16384, location: outside.clone() }]);
    let ingested = fixture.ingest().unwrap();
    assert_eq!(ingested.skipped, [PathBuf::from("server.crt")]);
    assert_eq!(
        fs::read_link(fixture.data().join("pg_tblspc/16384")).unwrap(),
        fixture.spaces().join("16384")
    );
    let names: Vec<String> = files_below(&fixture.data()).into_keys().collect();
    let wal = "pg_wal/000000010000000000000004";
    let expected = ["PG_VERSION", "backup_label", "base/1", "global/pg_control", wal, "postgresql.auto.conf"];
    assert_eq!(names, expected);
    assert_eq!(fs::read(fixture.spaces().join("16384/PG_15_202209061/5/16390")).unwrap(), b"y");
}

#[test]
fn plain_copies_that_are_not_whole_are_refused() {
    let fixture = plain();
    fs::remove_file(fixture.backup().join("backup_label")).unwrap();
    fixture.refuses(ErrorKind::Precondition, "no backup_label");
    fixture.put("postmaster.pid", "1\n/elsewhere\n");
    fixture.refuses(ErrorKind::Precondition, "postmaster.pid");

    // With a label the file of the server it was copied from is no harm, but that of one that runs here is.
    let fixture = plain();
    fixture.put("postmaster.pid", format!("{}\n/elsewhere\n", std::process::id()));
    fixture.inspect().unwrap();
    fixture.put("postmaster.pid", format!("{}\n{}\n", std::process::id(), fixture.backup().display()));
    fixture.refuses(ErrorKind::Precondition, "server that runs");

    let fixture = plain();
    fixture.put("tablespace_map", "16384 /srv/fast\n");
    fixture.refuses(ErrorKind::Invalid, "16384, the tablespace at /srv/fast, is missing");
    fs::create_dir(fixture.backup().join("pg_tblspc")).unwrap();
    symlink("/srv/fast", fixture.backup().join("pg_tblspc/16384")).unwrap();
    fixture.refuses(ErrorKind::Invalid, "where the source itself has that tablespace");

    let fixture = plain();
    symlink("/etc", fixture.backup().join("base/out")).unwrap();
    fixture.refuses(ErrorKind::Invalid, "symbolic link");
}

#[test]
fn a_folder_with_something_in_it_is_not_written_to() {
    let fixture = Fixture::whole(Compression::None);
    fs::create_dir(fixture.data()).unwrap();
    fs::write(fixture.data().join("precious"), "x").unwrap();
    let error = fixture.ingest().unwrap_err();
    assert!(error.message().contains("not empty"), "{error}");
    assert_eq!(fs::read_dir(fixture.data()).unwrap().count(), 1);

    let fixture = Fixture::whole(Compression::None);
    fs::create_dir_all(fixture.spaces().join("16384")).unwrap();
    let error = fixture.ingest().unwrap_err();
    assert!(error.message().contains("not empty"), "{error}");
}

#[test]
fn a_cancelled_job_ends_the_work() {
    let fixture = Fixture::whole(Compression::Gzip);
    let owner = FileOwner { uid: 0, gid: 0 };
    let mut calls = 0;
    let error = ingest(&fixture.backup(), &fixture.data(), &fixture.spaces(), owner, &mut |_, _| {
        calls += 1;
        if calls < 3 { Ok(()) } else { Err(crate::base::Error::new(ErrorKind::NotAllowed, "cancelled")) }
    });
    assert!(error.unwrap_err().message().contains("cancelled"));
}

#[test]
fn what_this_user_may_not_read_is_said() {
    if rustix::process::geteuid().is_root() {
        // Root reads all.
        return;
    }
    let fixture = Fixture::whole(Compression::None);
    fs::set_permissions(fixture.backup().join("base.tar"), fs::Permissions::from_mode(0o000)).unwrap();
    fixture.refuses(ErrorKind::NotAllowed, "may not be read by this user");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn a_path_stays_below_or_is_refused(path in "[a./\0é]{0,12}") {
        if let Ok(relative) = relative_path(path.as_bytes()) {
            prop_assert!(relative.is_relative() && relative.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            if let Ok(place::Place::Tablespace(_, rest) | place::Place::Data(rest)) = place::place(&relative) {
                prop_assert!(rest.is_relative());
            }
        }
    }

    #[test]
    fn a_changed_archive_is_read_or_refused(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let mut bytes = archive(&base_members());
        for (at, byte) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        let mut archive = Tarball::of(std::io::Cursor::new(bytes));
        let mut members = 0;
        while let Ok(Some(member)) = archive.next_member() {
            let _ = relative_path(&member.path);
            members += 1;
        }
        prop_assert!(members <= 1300);
    }
}
