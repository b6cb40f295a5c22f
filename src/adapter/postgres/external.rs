//! Linking by a base backup that somebody else took, followed by WAL files or by streaming.

use std::path::Path;

use super::super::{LinkPlan, Secrets, Task};
use super::Postgres;
use super::backup::{self, BackupDescription, BackupKind, FileOwner};
use super::conf;
use super::config::{
    Config, DATA_FOLDER, LinkRequest, SOURCE_PASSWORD, SourceAddress, TABLESPACES_FOLDER, Tablespace, keep,
};
use super::files::{Readers, make_folder, prepare};
use super::link::{ask_source, review_server, server_user, slot_exists, slot_name, verify, write_passfile};
use super::server::Server;
use super::source;
use super::sql::quote;
use super::wal_folder;
use crate::base::{Error, ErrorKind, Result};

/// The bootstrap superuser of most clusters.
const SUPERUSER: &str = "postgres";

/// Looks at the backup, and at the source if it is streamed from, and says what a link will do.
pub(super) fn plan(
    request: &LinkRequest,
    path: &Path,
    secrets: &Secrets,
    host: &Postgres,
) -> Result<LinkPlan> {
    if request.source.is_none() && request.wal_directory.is_none() {
        return Err(Error::invalid(
            "say how it is kept in sync: --wal-path DIR, or --streaming with the source's address",
        ));
    }
    let backup = backup::inspect(path)?;
    let user = server_user(request)?;
    let programs = host.installations().of(backup.major)?.with(&["pg_controldata"])?;
    let tablespaces: Vec<Tablespace> = backup
        .tablespaces
        .iter()
        .map(|found| Tablespace { oid: found.oid, location: found.location.clone() })
        .collect();
    let mut review = review_backup(&backup);
    let mut config = Config {
        major: backup.major,
        programs: programs.programs,
        os_user: user.name.clone(),
        superuser: request.superuser.clone().unwrap_or_else(|| SUPERUSER.into()),
        system_id: backup.system_id.to_string(),
        segment_bytes: backup.segment_size.bytes(),
        settings: request.settings.clone(),
        // The control file tells them, once it is there.
        limits: Default::default(),
        tablespaces,
        source: None,
        slot: None,
        external_backup: Some(backup.path.clone()),
        wal_directory: request.wal_directory.clone(),
        detached: false,
        owner: None,
        renames: Default::default(),
    };
    let mut warnings = Vec::new();
    if let Some(folder) = &request.wal_directory {
        wal_folder::check_readable(folder, &user)?;
        review.push(("kept in sync by".into(), format!("WAL files in {}", folder.display())));
    }
    if let Some(address) = &request.source {
        let found = ask_source(address, &user, secrets, host)?;
        check_same(&backup, &found, address)?;
        let slot = slot_name(&request.name, &*host.random);
        review.push(("source".into(), format!("{}, PostgreSQL {}", source::shown(address), found.version)));
        review.push(("kept in sync by".into(), format!("streaming, replication slot {slot} on the source")));
        warnings = found.warnings;
        config.superuser = found.superuser;
        config.limits = found.limits;
        config.source = Some(address.clone());
        config.slot = Some(slot);
    }
    review.extend(review_server(request, backup.major, &user, &config.tablespaces));
    Ok(LinkPlan {
        config: keep("the configuration", &config)?,
        review,
        warnings,
        estimated_bytes: Some(backup.size_bytes),
    })
}

fn review_backup(backup: &BackupDescription) -> Vec<(String, String)> {
    let form = match backup.kind {
        BackupKind::Tar => "archives",
        BackupKind::Plain => "a data folder",
    };
    let compressed = if backup.compressed { ", compressed" } else { "" };
    vec![
        (
            "first copy".into(),
            format!("{}: {form}{compressed}, PostgreSQL {}", backup.path.display(), backup.major),
        ),
        ("system identifier".into(), backup.system_id.to_string()),
    ]
}

fn check_same(backup: &BackupDescription, found: &source::Source, address: &SourceAddress) -> Result<()> {
    let differs = |what: &str, ours: String, theirs: String| {
        let source = source::shown(address);
        Err(Error::new(
            ErrorKind::Precondition,
            format!(
                "the backup is of another cluster than {source}: its {what} is {ours}, that of the source {theirs}"
            ),
        ))
    };
    if backup.system_id.to_string() != found.system_id {
        return differs("system identifier", backup.system_id.to_string(), found.system_id.clone());
    }
    if backup.major != found.major {
        return differs("major version", backup.major.to_string(), found.major.to_string());
    }
    if backup.segment_size.bytes() != found.segment_bytes {
        return differs(
            "WAL segment size",
            backup.segment_size.bytes().to_string(),
            found.segment_bytes.to_string(),
        );
    }
    Ok(())
}

/// Makes a configuration that of another backup.
pub(super) fn adopt_backup(config: &mut Config, backup: &BackupDescription) {
    config.system_id = backup.system_id.to_string();
    config.segment_bytes = backup.segment_size.bytes();
    config.limits.clear();
    config.tablespaces = backup
        .tablespaces
        .iter()
        .map(|found| Tablespace { oid: found.oid, location: found.location.clone() })
        .collect();
}

/// Puts the backup into an empty volume.
pub(super) fn ingest(server: &Server<'_>, path: &Path, task: &mut dyn Task) -> Result<()> {
    let user = &server.programs.user;
    task.step("extract the backup")?;
    conf::make_state_folder(server)?;
    // What an earlier attempt saw of the WAL folder says nothing of this one.
    super::files::remove(&wal_folder::state_file(server))?;
    let volume = &server.instance.volume;
    make_folder(&volume.join(DATA_FOLDER), user, Readers::User)?;
    make_folder(&volume.join(TABLESPACES_FOLDER), user, Readers::Group)?;
    let owner = FileOwner { uid: user.uid, gid: user.gid };
    backup::ingest(path, &server.data(), &volume.join(TABLESPACES_FOLDER), owner, &mut |done, total| {
        task.bytes(done, Some(total));
        task.check()
    })?;
    if server.data().join("backup_manifest").exists() {
        verify(server, task)?;
    }
    prepare(server, "clean", &[], "")?;
    make_slot(server, task)
}

/// The slot keeps the source's WAL from now on; what the backup needs from before must still be there.
pub(super) fn make_slot(server: &Server<'_>, task: &mut dyn Task) -> Result<()> {
    let (Some(address), Some(slot)) = (&server.config.source, &server.config.slot) else { return Ok(()) };
    task.step("make the replication slot")?;
    write_passfile(server, address)?;
    if !slot_exists(server, address, slot)? {
        let sql = source::connect(address, server.instance.secrets.get(SOURCE_PASSWORD))?;
        sql.rows(&format!("SELECT pg_create_physical_replication_slot({}, true)", quote(slot)))?;
    }
    Ok(())
}
