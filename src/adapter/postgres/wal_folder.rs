//! Following a source by the WAL files that somebody puts into a folder, through our own restore command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::{Problem, Task};
use super::files::{Readers, write_state};
use super::logs::shell_quoted;
use super::lsn::{Lsn, SegmentName, SegmentSize};
use super::restore::{self, ChainVerdict, RestoreConfig};
use super::server::Server;
use super::sql::Sql;
use super::wal::WalFaultKind;
use crate::base::{Clock, Error, ErrorKind, OsUser, Result};

const POLL: Duration = Duration::from_millis(100);
/// PostgreSQL asks again for a file every five seconds; nothing replayed for this long is told.
const STALL_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a file may be missing, or look unfinished, while later ones are there.
const GRACE_SECONDS: u64 = 60;

/// Where the restore command keeps what it saw: the one folder of a state folder that its user can write in.
pub(super) fn state_file(server: &Server<'_>) -> PathBuf {
    server.sockets().join("wal.json")
}

/// Refuses a folder that the server's user cannot read.
pub(super) fn check_readable(folder: &Path, user: &OsUser) -> Result<()> {
    let shown = folder.display();
    if !folder.is_absolute() {
        return Err(Error::invalid(format!("{shown}: name the WAL folder from the root on")));
    }
    if !folder.is_dir() {
        return Err(Error::not_found(format!("{shown} is no folder: WAL files are to come there")));
    }
    if may(user, "-r", folder)? && may(user, "-x", folder)? {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotAllowed,
        format!(
            "{shown} cannot be read by {}: give that user r and x on it and x on what is above it",
            user.name
        ),
    ))
}

fn may(user: &OsUser, how: &str, path: &Path) -> Result<bool> {
    let status = user.command(Path::new("/usr/bin/test")).arg(how).arg(path).status();
    Ok(status.map_err(|e| Error::io("run", "test", e))?.success())
}

/// Writes the restore command's configuration and returns the setting that calls it.
pub(super) fn restore_command(server: &Server<'_>) -> Result<String> {
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    if !may(&server.programs.user, "-x", &program)? {
        return Err(Error::new(
            ErrorKind::NotAllowed,
            format!(
                "{} cannot run {}, which fetches its WAL files: install the program where every user can run it",
                server.programs.user.name,
                program.display()
            ),
        ));
    }
    let config = configuration(server)?;
    let text =
        serde_json::to_string(&config).map_err(|e| Error::invalid(format!("the restore command: {e}")))?;
    let path = server.state_file("restore.json");
    write_state(&path, &text, &server.programs.user, Readers::Group)?;
    Ok(format!("{} wal-restore --config {} %f %p %r", shell_quoted(&program), shell_quoted(&path)))
}

/// The configuration of the restore command.
fn configuration(server: &Server<'_>) -> Result<RestoreConfig> {
    let config = &server.config;
    let unusable =
        |what: &str| Error::corrupt(format!("the configuration of {} has no {what}", server.instance.name));
    Ok(RestoreConfig {
        wal_directory: config.wal_directory.clone().ok_or_else(|| unusable("WAL folder"))?,
        state_file: state_file(server),
        system_id: config.system_id.parse().map_err(|_| unusable("system identifier"))?,
        major: config.major,
        segment_size: SegmentSize::new(config.segment_bytes).ok_or_else(|| unusable("segment size"))?,
        grace_seconds: GRACE_SECONDS,
    })
}

/// Waits until all that is in the folder has been replayed.
pub(super) fn sync(server: &Server<'_>, sql: &Sql, clock: &dyn Clock, task: &mut dyn Task) -> Result<()> {
    let config = configuration(server)?;
    let (mut last, mut moved) = (None, clock.monotonic());
    task.step("replay the WAL files")?;
    loop {
        task.check()?;
        let replayed = replayed(sql)?;
        if replayed != last {
            (last, moved) = (replayed, clock.monotonic());
        }
        match restore::look(&config, replayed, clock)? {
            ChainVerdict::Fine => {}
            verdict @ ChainVerdict::Broken { .. } => {
                return Err(Error::new(ErrorKind::Precondition, format!("{verdict}; {}", action())));
            }
            ChainVerdict::Waiting { file, .. } => {
                let name: SegmentName = file.parse()?;
                let absent = |fault: &super::wal::WalFault| matches!(fault.kind, WalFaultKind::Missing);
                if restore::check(&config, name).as_ref().is_err_and(absent) {
                    task.log(&format!("the next file to come is {file}"));
                    return Ok(());
                }
            }
        }
        if clock.monotonic().saturating_sub(moved) > STALL_TIME_MAX {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!(
                    "{} replays nothing more, though there are files: see {}",
                    server.instance.name,
                    server.log().display()
                ),
            ));
        }
        clock.sleep(POLL);
    }
}

fn replayed(sql: &Sql) -> Result<Option<Lsn>> {
    sql.value("SELECT pg_last_wal_replay_lsn()")?.map(|text| text.parse()).transpose()
}

fn action() -> &'static str {
    "supply the file, and replay goes on by itself; or take a new first copy with `stillpoint dsource resync`"
}

/// What is to be said of the chain of files: a word for the state, and the problem if it is broken.
pub(super) fn look(
    server: &Server<'_>,
    replayed: Option<&str>,
    clock: &dyn Clock,
) -> Result<(String, Option<Problem>)> {
    let replayed = replayed.map(str::parse).transpose()?;
    let verdict = restore::look(&configuration(server)?, replayed, clock)?;
    Ok(match &verdict {
        ChainVerdict::Fine => ("replaying".into(), None),
        ChainVerdict::Waiting { file, .. } => (format!("waiting for {file}"), None),
        ChainVerdict::Broken { file, .. } => (
            format!("broken at {file}"),
            Some(Problem {
                code: "WAL_CHAIN_BROKEN".into(),
                message: verdict.to_string(),
                action: action().into(),
            }),
        ),
    })
}
