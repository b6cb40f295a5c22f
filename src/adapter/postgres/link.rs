//! Linking by a base backup of our own, and the end of a link on the source.

use std::path::Path;
use std::time::Duration;

use super::super::{LinkPlan, Secrets, Task};
use super::Postgres;
use super::conf;
use super::config::{
    Config, DATA_FOLDER, LinkRequest, SOURCE_PASSWORD, SourceAddress, TABLESPACES_FOLDER, Tablespace, keep,
    read,
};
use super::external;
use super::files::{Readers, make_folder, prepare, write_state};
use super::program::{Programs, run};
use super::server::Server;
use super::source;
use super::sql::quote;
use super::tls;
use crate::base::{Clock, Error, ErrorKind, OsUser, Random, Result};

/// The user that Debian's packages make.
const OS_USER: &str = "postgres";
/// A slot's name has at most 63 bytes; the rest is ours.
const SLOT_NAME_BYTES_MAX: usize = 40;
const PASSFILE: &str = "passfile";
const SLOT_LOOK: Duration = Duration::from_millis(100);
const SLOT_LOOKS_MAX: u32 = 100;

/// Asks source and host, and says what a link will do.
pub(super) fn plan(request: &serde_json::Value, secrets: &Secrets, host: &Postgres) -> Result<LinkPlan> {
    let request: LinkRequest = read("the request to link", request)?;
    conf::check_settings(&request.settings)?;
    conf::check_port(request.port)?;
    match (request.initiated_backup, &request.external_backup) {
        (true, None) if request.wal_directory.is_some() => Err(Error::invalid(
            "WAL files are followed from an external backup: leave out the one or the other",
        )),
        (true, None) => plan_backup(&request, secrets, host),
        (false, Some(backup)) => external::plan(&request, backup, secrets, host),
        _ => Err(Error::invalid(
            "say how the first copy is made: exactly one of --initiated-backup and --external-backup",
        )),
    }
}

/// The user that is to run the servers.
pub(super) fn server_user(request: &LinkRequest) -> Result<OsUser> {
    OsUser::for_servers(request.user.as_deref().unwrap_or(OS_USER))
}

/// Asks the source of a request.
pub(super) fn ask_source(
    address: &SourceAddress,
    user: &OsUser,
    secrets: &Secrets,
    host: &Postgres,
) -> Result<source::Source> {
    let clients = Programs { folder: host.installations().newest()?.programs, user: user.clone() };
    source::ask(address, secrets.get(SOURCE_PASSWORD), &clients, &*host.clock)
}

/// What every review ends with.
pub(super) fn review_server(
    request: &LinkRequest,
    major: u32,
    user: &OsUser,
    tablespaces: &[Tablespace],
) -> Vec<(String, String)> {
    let server = format!("PostgreSQL {major} on port {}, as {}", request.port, user.name);
    let mut review = vec![("staging server".to_owned(), server)];
    for tablespace in tablespaces {
        let folder = format!("{} becomes a folder of the volume", tablespace.location.display());
        review.push(("tablespace".into(), folder));
    }
    for (name, value) in &request.settings {
        review.push(("setting".into(), format!("{name} = {value}")));
    }
    review
}

fn plan_backup(request: &LinkRequest, secrets: &Secrets, host: &Postgres) -> Result<LinkPlan> {
    let address = request
        .source
        .as_ref()
        .ok_or_else(|| Error::invalid("name the source: --source-host, --source-port, --source-user"))?;
    let user = server_user(request)?;
    let found = ask_source(address, &user, secrets, host)?;
    let programs = host.installations().of(found.major)?.with(&["pg_basebackup", "pg_controldata"])?;
    let slot = slot_name(&request.name, &*host.random);
    let mut review: Vec<(String, String)> = vec![
        ("source".into(), format!("{}, PostgreSQL {}", source::shown(address), found.version)),
        ("replication user".into(), address.user.clone()),
        ("TLS to the source".into(), tls::shown(address)),
        ("system identifier".into(), found.system_id.clone()),
        ("first copy".into(), "base backup taken now, with its WAL".into()),
        ("kept in sync by".into(), format!("streaming, replication slot {slot} on the source")),
    ];
    review.extend(review_server(request, found.major, &user, &found.tablespaces));
    let config = Config {
        major: found.major,
        programs: programs.programs,
        os_user: user.name,
        superuser: found.superuser,
        system_id: found.system_id,
        segment_bytes: found.segment_bytes,
        settings: request.settings.clone(),
        limits: found.limits,
        tablespaces: found.tablespaces,
        source: Some(address.clone()),
        slot: Some(slot),
        external_backup: None,
        wal_directory: None,
        detached: false,
        owner: None,
        renames: Default::default(),
    };
    Ok(LinkPlan {
        config: keep("the configuration", &config)?,
        review,
        warnings: found.warnings,
        estimated_bytes: found.bytes,
    })
}

/// Makes a configuration that of the source as it is now. One that begins with a backup must be of the same cluster.
pub(super) fn adopt_source(
    config: &mut Config,
    found: source::Source,
    warnings: &mut Vec<String>,
) -> Result<()> {
    if config.external_backup.is_some() && config.system_id != found.system_id {
        return Err(Error::new(
            ErrorKind::Precondition,
            format!(
                "the backup is of another cluster than the source: {} and {}",
                config.system_id, found.system_id
            ),
        ));
    }
    config.system_id = found.system_id;
    config.segment_bytes = found.segment_bytes;
    config.superuser = found.superuser;
    config.limits = found.limits;
    config.tablespaces = found.tablespaces;
    warnings.extend(found.warnings);
    Ok(())
}

/// A slot's name says whose it is; the random end keeps two stores apart that follow one source.
pub(super) fn slot_name(dataset: &str, random: &dyn Random) -> String {
    let plain: String = dataset
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .take(SLOT_NAME_BYTES_MAX)
        .collect();
    format!("stillpoint_{plain}_{:08x}", random.next_u64() >> 32)
}

/// Takes the base backup into an empty volume.
pub(super) fn ingest(server: &Server<'_>, task: &mut dyn Task) -> Result<()> {
    let config = &server.config;
    let address = source_of(config)?;
    task.step("base backup")?;
    prepare_folders(server)?;
    write_passfile(server, address)?;
    let mut command = server.programs.command("pg_basebackup");
    command.env("PGPASSFILE", server.state_file(PASSFILE));
    command.arg("--dbname").arg(connection_string(server, address));
    command.arg("--pgdata").arg(server.data());
    command.args([
        "--format=plain",
        "--wal-method=stream",
        "--checkpoint=fast",
        "--progress",
        "--no-password",
    ]);
    command.arg(format!("--label=stillpoint {}", server.instance.name));
    if config.major >= 13 {
        command.arg("--manifest-checksums=CRC32C");
    }
    if let Some(slot) = &config.slot {
        let there = slot_exists(server, address, slot)?;
        command.arg(format!("--slot={slot}"));
        if !there && config.major >= 11 {
            command.arg("--create-slot");
        }
    }
    for tablespace in &config.tablespaces {
        let mapping = format!(
            "{}={}",
            escape_mapping(&tablespace.location),
            escape_mapping(&server.tablespace(tablespace.oid))
        );
        command.arg("--tablespace-mapping").arg(mapping);
    }
    run(&mut command, task, &mut |line, task| match parse_progress(line) {
        Some((done, total)) => task.bytes(done, Some(total)),
        None => task.log(line),
    })?;
    verify(server, task)?;
    task.step("settings")?;
    let tablespaces = server.instance.volume.join(TABLESPACES_FOLDER);
    let outside = prepare(server, "outside", &[&tablespaces.display().to_string()], "")?;
    if !outside.is_empty() {
        return Err(Error::new(
            ErrorKind::Precondition,
            format!(
                "the source got a tablespace while it was copied, outside the volume ({}): link again",
                outside.trim()
            ),
        ));
    }
    prepare(server, "clean", &[], "").map(drop)
}

pub(super) fn verify(server: &Server<'_>, task: &mut dyn Task) -> Result<()> {
    if server.config.major < 13 {
        return Ok(());
    }
    if !server.programs.folder.join("pg_verifybackup").exists() {
        task.warn(&format!(
            "the backup is not verified: {} has no pg_verifybackup",
            server.programs.folder.display()
        ));
        return Ok(());
    }
    task.step("verify the backup")?;
    let mut command = server.programs.command("pg_verifybackup");
    // Rewritten for the volume's folders, where there are tablespaces.
    command.args(["--quiet", "--ignore=tablespace_map"]).arg(server.data());
    run(&mut command, task, &mut |line, task| task.log(line))?;
    Ok(())
}

/// The folders of a volume, owned by the server's user.
fn prepare_folders(server: &Server<'_>) -> Result<()> {
    let user = &server.programs.user;
    conf::make_state_folder(server)?;
    make_folder(&server.instance.volume.join(DATA_FOLDER), user, Readers::User)?;
    // Root's, so that what lies in it by number is what was put there.
    make_folder(&server.instance.volume.join(TABLESPACES_FOLDER), user, Readers::Group)?;
    for tablespace in &server.config.tablespaces {
        make_folder(&server.tablespace(tablespace.oid), user, Readers::User)?;
    }
    Ok(())
}

/// What ends a link: the slot goes, so that the source keeps no WAL for nobody.
pub(super) fn unlink(server: &Server<'_>, clock: &dyn Clock, task: &mut dyn Task) -> Result<()> {
    let (Some(address), Some(slot)) = (&server.config.source, &server.config.slot) else { return Ok(()) };
    task.step("drop the replication slot")?;
    let sql = source::connect(address, server.instance.secrets.get(SOURCE_PASSWORD))
        .map_err(|e| e.context(format!("replication slot {slot} stays on the source")))?;
    let owned = quote(slot);
    let in_use = format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = {owned} AND active");
    // A WAL sender that has just lost its standby holds the slot for a moment.
    for _ in 0..SLOT_LOOKS_MAX {
        if sql.rows(&in_use)?.is_empty() {
            break;
        }
        let ended = sql.rows(&format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = {owned} AND active"
        ));
        if let Err(e) = ended
            && e.kind() != ErrorKind::NotAllowed
        {
            return Err(e);
        }
        clock.sleep(SLOT_LOOK);
    }
    sql.rows(&format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {owned}"
    ))
    .map_err(|e| e.context(format!("replication slot {slot} on {}", source::shown(address))))?;
    Ok(())
}

pub(super) fn slot_exists(server: &Server<'_>, address: &SourceAddress, slot: &str) -> Result<bool> {
    let sql = source::connect(address, server.instance.secrets.get(SOURCE_PASSWORD))?;
    let found = sql.rows(&format!("SELECT 1 FROM pg_replication_slots WHERE slot_name = {}", quote(slot)))?;
    Ok(!found.is_empty())
}

/// The source, which a staging server has.
pub(super) fn source_of(config: &Config) -> Result<&SourceAddress> {
    config
        .source
        .as_ref()
        .ok_or_else(|| Error::new(ErrorKind::Precondition, "this dataset follows no source"))
}

/// How libpq reaches the source. The password is in the password file, never here.
pub(super) fn connection_string(server: &Server<'_>, address: &SourceAddress) -> String {
    let value = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    format!(
        "host={} port={} user={} passfile={} application_name={} connect_timeout=10 {}",
        value(&address.host),
        address.port,
        value(&address.user),
        value(&server.state_file(PASSFILE).display().to_string()),
        value(server.config.slot.as_deref().unwrap_or("stillpoint")),
        tls::words(address, value),
    )
}

/// Writes the password where only the server's user can read it: outside every volume.
pub(super) fn write_passfile(server: &Server<'_>, address: &SourceAddress) -> Result<()> {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let line = match server.instance.secrets.get(SOURCE_PASSWORD) {
        Some(password) => format!(
            "{}:{}:*:{}:{}\n",
            escape(&address.host),
            address.port,
            escape(&address.user),
            escape(password)
        ),
        None => String::new(),
    };
    conf::make_state_folder(server)?;
    write_state(&server.state_file(PASSFILE), &line, &server.programs.user, Readers::User)
}

/// `=` separates the two folders of a mapping.
fn escape_mapping(path: &Path) -> String {
    path.display().to_string().replace('=', "\\=")
}

/// Reads `12345/67890 kB (18%), 1/2 tablespaces` as bytes.
fn parse_progress(line: &str) -> Option<(u64, u64)> {
    let (figures, rest) = line.trim().split_once(' ')?;
    let (done, total) = figures.split_once('/')?;
    if !rest.starts_with("kB") {
        return None;
    }
    Some((done.parse::<u64>().ok()?.checked_mul(1024)?, total.parse::<u64>().ok()?.checked_mul(1024)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SeededRandom;

    #[test]
    fn progress_is_read() {
        assert_eq!(parse_progress("    12/34 kB (35%), 0/1 tablespace"), Some((12 * 1024, 34 * 1024)));
        assert_eq!(parse_progress("waiting for checkpoint"), None);
        assert_eq!(parse_progress("1/x kB"), None);
    }

    #[test]
    fn slots_have_names_that_postgresql_takes() {
        let name = slot_name(&format!("Shop-{}", "x".repeat(100)), &SeededRandom::new(1));
        assert!(name.len() <= 63, "{name}");
        assert!(name.starts_with("stillpoint_shop_x"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
    }
}
