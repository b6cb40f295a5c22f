//! Backups of SQL Server's source databases: full, differential and log, onto a volume, and restored to any point.
//!
//! `look` sees what is to be done and why, `take` and `freeze` do it, `restore` and `verify` use what was made. Everything
//! that decides is a pure part beside this folder. Knows folders and an instance, no volumes and no jobs.

mod config;
mod freeze;
mod header;
mod keep;
mod look;
mod restore;
mod sequence;
mod session;
mod take;
mod verify;

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

pub use freeze::watch_freeze;

use super::super::backups::{
    BackupDone, BackupHistory, BackupKind, BackupMade, BackupPlan, BackupTarget, Backups, Cut, PlannedBackup,
    PointVerdict, RestoreAsk, RestorePlanned,
};
use super::super::{LinkPlan, Secrets, Span, Task, Verified};
use super::SqlServer;
use super::client::Encryption;
use super::config::{keep as keep_value, read};
use super::{state, statements};
use crate::base::{Error, ErrorKind, OsUser, Result};
use crate::schedule::RetentionPolicy;
use config::{BackupConfig, ProtectRequest};

/// The oldest version that is known: SQL Server 2016.
const MAJOR_MIN: u32 = 13;

impl Backups for SqlServer {
    fn plan_protect(&self, request: &Value, secrets: &Secrets) -> Result<LinkPlan> {
        let request: ProtectRequest = read("the request to back up", request)?;
        if !request.databases.is_empty() && !request.excluded.is_empty() {
            return Err(Error::invalid("name the databases to back up, or those to leave out, not both"));
        }
        if request.databases.iter().any(|name| name.eq_ignore_ascii_case("tempdb")) {
            return Err(Error::invalid("tempdb is never backed up: it is made anew at each start"));
        }
        let user = OsUser::named(&request.user)?;
        let mut sql = session::connect(&request.instance, secrets)?;
        let server = state::server(&mut sql)?;
        let shown = request.instance.connect_string();
        if server.major() < MAJOR_MIN {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!("{shown} runs SQL Server {}: older than 2016 is not known", server.version),
            ));
        }
        let login = request.instance.user.clone();
        refuse_lacking(&login, &shown, &missing_rights(&mut sql, &login)?)?;
        let (data, logs) = default_folders(&mut sql)?;
        let config = BackupConfig {
            instance: request.instance,
            databases: request.databases,
            excluded: request.excluded,
            user: user.name,
            data_folder: data,
            log_folder: logs,
            hold_seconds: request.hold_seconds.max(1),
        };
        let found = look::members(&mut sql, &config, &Default::default())?;
        if let Some(name) = found.missing.first() {
            return Err(Error::not_found(format!("{shown} has no database {name}")));
        }
        let names = found.seen.iter().map(|seen| seen.name.as_str());
        refuse_lacking(&login, &shown, &missing_in_databases(&mut sql, &login, names)?)?;
        let names: Vec<&str> = found.seen.iter().map(|seen| seen.name.as_str()).collect();
        let all = config.databases.is_empty();
        let review = vec![
            ("instance".to_owned(), format!("{shown}, SQL Server {} {}", server.version, server.edition)),
            ("login".to_owned(), config.instance.user.clone()),
            ("databases now".to_owned(), names.join(", ")),
            (
                "databases later".to_owned(),
                if all { "all that the instance has then, tempdb never" } else { "these" }.to_owned(),
            ),
        ];
        let mut warnings = Vec::new();
        if config.instance.encryption != Encryption::Verified {
            warnings.push(
                "the server's certificate is not checked: somebody else could answer in its place".into(),
            );
        }
        let estimated_bytes = Some(found.seen.iter().map(|seen| seen.data_bytes).sum());
        Ok(LinkPlan { config: keep_value("the configuration", &config)?, review, warnings, estimated_bytes })
    }

    fn check(&self, target: &BackupTarget<'_>) -> Result<String> {
        let mut session = session::Session::open(target)?;
        let server = state::server(&mut session.sql)?;
        Ok(format!("{}, SQL Server {}", server.server, server.version))
    }

    fn estimate(
        &self,
        target: &BackupTarget<'_>,
        kind: BackupKind,
        history: &BackupHistory,
    ) -> Result<BackupPlan> {
        let plan = look::plan(target, kind, history)?;
        look::check_some(&plan, target.name, kind)?;
        Ok(plan)
    }

    fn back_up(
        &self,
        target: &BackupTarget<'_>,
        planned: &PlannedBackup,
        folder: &Path,
        cut: Option<Cut<'_>>,
        task: &mut dyn Task,
    ) -> Result<BackupDone> {
        take::back_up(target, planned, folder, cut, task)
    }

    fn let_go(&self, target: &BackupTarget<'_>, database: &str) -> Result<bool> {
        let config = session::config(target)?;
        let password = session::password(&config.instance, target.secrets)?;
        freeze::let_go_at(&config.instance, password, database).map_err(Error::from)
    }

    fn verify(&self, target: &BackupTarget<'_>, made: &BackupMade, task: &mut dyn Task) -> Result<Verified> {
        verify::verify(target, made, task)
    }

    fn plan_restore(
        &self,
        target: &BackupTarget<'_>,
        made: &[BackupMade],
        ask: &RestoreAsk,
    ) -> Result<RestorePlanned> {
        restore::plan(target, made, ask)
    }

    fn restore(
        &self,
        target: &BackupTarget<'_>,
        made: &[BackupMade],
        planned: &RestorePlanned,
        copy: Option<&Path>,
        task: &mut dyn Task,
    ) -> Result<Vec<(String, String)>> {
        restore::restore(target, made, planned, copy, task)
    }

    fn judge(
        &self,
        made: &[BackupMade],
        policy: &RetentionPolicy,
        zone: &TimeZone,
        now: Timestamp,
    ) -> Result<Vec<PointVerdict>> {
        keep::judge(made, policy, zone, now)
    }

    fn spans(&self, made: &[BackupMade], database: &str) -> Result<Span> {
        keep::spans(made, database)
    }
}

/// Refuses a login that lacks rights, with the statements that give them.
fn refuse_lacking(login: &str, server: &str, missing: &[String]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotAllowed, format!("{login} lacks rights on {server}"))
        .with_hint(format!("as an administrator there: {}", missing.join("; "))))
}

/// The databases that a login may not back up.
fn missing_in_databases<'a>(
    sql: &mut super::client::Sql,
    login: &str,
    databases: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>> {
    let user = statements::name(login);
    let mut missing = Vec::new();
    for name in databases {
        let rows = sql.rows(&statements::backup::may_back_up(name))?;
        let row = rows.first();
        let may = |column: &str| row.map_or(Ok(false), |row| row.flag(column));
        if !may("backs_up")? || !may("backs_up_log")? {
            let database = statements::name(name);
            missing.push(format!(
                "USE {database}; CREATE USER {user} FOR LOGIN {user}; ALTER ROLE db_backupoperator ADD MEMBER {user}"
            ));
        }
    }
    Ok(missing)
}

fn missing_rights(sql: &mut super::client::Sql, login: &str) -> Result<Vec<String>> {
    let rows = sql.rows(statements::backup::BACKUP_RIGHTS)?;
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Unsupported, "SQL Server answered no row"))?;
    if row.flag("is_sysadmin")? {
        return Ok(Vec::new());
    }
    let login = statements::name(login);
    let mut missing = Vec::new();
    for (column, grant) in [
        ("creates", format!("GRANT CREATE ANY DATABASE TO {login}")),
        ("sees_state", format!("GRANT VIEW SERVER STATE TO {login}")),
        ("reads_marks", format!("USE msdb; GRANT SELECT ON dbo.logmarkhistory TO {login}")),
    ] {
        if !row.flag(column)? {
            missing.push(grant);
        }
    }
    Ok(missing)
}

fn default_folders(sql: &mut super::client::Sql) -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    let rows = sql.rows(statements::backup::DEFAULT_FOLDERS)?;
    let of = |name: &str| -> Result<std::path::PathBuf> {
        let text = rows.first().map(|row| row.text(name)).transpose()?.flatten().unwrap_or_default();
        Ok(text.into())
    };
    Ok((of("data")?, of("logs")?))
}
