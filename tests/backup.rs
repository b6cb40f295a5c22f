//! Base backups of a real PostgreSQL, taken under load: described, put in place, recovered. Needs PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::postgres::{Server, command, give, major, make_cluster};
use stillpoint::adapter::postgres::backup::{BackupKind, FileOwner, ingest, inspect};
use stillpoint::adapter::postgres::wal::{ExpectedSegment, check_segment};
use tempfile::TempDir;

/// A running source with a tablespace.
struct Source {
    folder: TempDir,
    server: Server,
}

impl Source {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("stillpoint-backup-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = folder.path().join("source");
        make_cluster(&data);
        let server = Server::start(&data);
        let source = Self { folder, server };
        let space = source.own_folder("fast");
        source.server.query(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display()));
        source.server.query("CREATE TABLE kept TABLESPACE fast AS SELECT generate_series(1, 50000) AS id");
        source.server.load_pgbench(2);
        source
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder of PostgreSQL's user.
    fn own_folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        give(&path);
        path
    }

    fn back_up(&self, name: &str, options: &[&str]) -> PathBuf {
        let path = self.own_folder(name);
        let mut backup = self.server.client("pg_basebackup");
        let taken =
            backup.arg("-D").arg(&path).args(["-Xs", "-c", "fast", "-l", name]).args(options).output();
        let taken = taken.unwrap();
        assert!(taken.status.success(), "{options:?}: {taken:?}");
        path
    }

    fn owner(&self) -> FileOwner {
        let data = self.path("source").metadata().unwrap();
        FileOwner { uid: data.uid(), gid: data.gid() }
    }

    /// Puts the backup in place, lets `pg_verifybackup` check it, starts a server on it and looks at its
    /// content.
    fn recover(&self, backup: &Path, kind: BackupKind) {
        let name = backup.file_name().unwrap().to_str().unwrap();
        let system_id = self.server.query("SELECT system_identifier FROM pg_control_system()");
        let description = inspect(backup).unwrap();
        assert_eq!((description.kind, description.major), (kind, major()));
        assert_eq!(description.system_id.to_string(), system_id);
        assert_eq!(description.label.as_ref().unwrap().label, name);
        assert!(description.includes_wal);
        assert_eq!(description.tablespaces.len(), 1);

        let (data, spaces) = (self.path(&format!("{name}-data")), self.path(&format!("{name}-spaces")));
        let mut last = (0, 0);
        let ingested = ingest(backup, &data, &spaces, self.owner(), &mut |done, total| {
            last = (done, total);
            Ok(())
        });
        let ingested = ingested.unwrap();
        assert_eq!(last, (description.size_bytes, description.size_bytes));
        assert_eq!((ingested.system_id, ingested.major), (description.system_id, description.major));
        let label = description.label.unwrap();
        let expected = ExpectedSegment {
            name: label.start_segment,
            system_id: description.system_id,
            major: description.major,
            size: description.segment_size,
            history: None,
        };
        check_segment(&data.join("pg_wal").join(label.start_segment.to_string()), &expected).unwrap();
        if major() >= 13 {
            let checked =
                command("pg_verifybackup").args(["-i", "tablespace_map"]).arg(&data).output().unwrap();
            assert!(checked.status.success(), "{checked:?}");
        }

        let server = Server::start(&data);
        assert_eq!(server.query("SELECT pg_is_in_recovery()"), "f");
        assert_eq!(server.number("SELECT sum(id) FROM kept"), 1_250_025_000);
        assert_eq!(server.number("SELECT count(*) FROM pgbench_accounts"), 200_000);
        server.assert_sums_agree();
        let place =
            server.query("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'");
        assert_eq!(Path::new(&place), ingested.tablespaces[0].path);
        assert!(Path::new(&place).starts_with(&spaces));
        server.query("DELETE FROM kept");
        server.query("CHECKPOINT");
        server.stop();
    }
}

/// The files of the source's tablespace, by inode, size and time of change.
fn fingerprint(folder: &Path) -> BTreeMap<PathBuf, (u64, u64, i64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            found.insert(path.clone(), (metadata.ino(), metadata.len(), metadata.mtime_nsec()));
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

#[test]
fn backups_taken_under_load_recover_and_leave_the_source_alone() {
    let source = Source::start();
    let writers = source.server.start_pgbench(2);
    let mut forms = vec![("tar", vec!["-Ft"]), ("gzip", vec!["-Ft", "-z"])];
    if major() >= 15 {
        forms.push(("zstd", vec!["-Ft", "--compress=server-zstd"]));
        forms.push(("lz4", vec!["-Ft", "--compress=client-lz4"]));
    }
    let mut backups = Vec::new();
    for (name, options) in &forms {
        backups.push((source.back_up(name, options), BackupKind::Tar));
    }
    let copied = source.own_folder("plain-fast");
    let mapped = format!("{}={}", source.path("fast").display(), copied.display());
    backups.push((source.back_up("plain", &["-Fp", "-T", &mapped]), BackupKind::Plain));
    drop(writers);
    source.server.query("CHECKPOINT");
    let before = fingerprint(&source.path("fast"));
    assert!(before.len() > 2, "{before:?}");
    for (backup, kind) in backups {
        source.recover(&backup, kind);
    }
    assert_eq!(fingerprint(&source.path("fast")), before);
    assert_eq!(source.server.number("SELECT sum(id) FROM kept"), 1_250_025_000);
    source.server.stop();
}
