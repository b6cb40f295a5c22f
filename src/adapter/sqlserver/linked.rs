//! Linked dSources: the engine itself restores what comes into a folder of backups.
//!
//! The first copy is the newest chain that there is; from then on each sync applies what came since. What stands in the way is said
//! when it is seen, and ends by itself when the missing file comes. Must not know volumes and jobs.

use std::path::Path;

use super::super::{Health, Instance, LinkPlan, Problem, Synced, Task};
use super::adapter::{At, SqlServer};
use super::backups::{Backups, SetFacts};
use super::chain::Chain;
use super::client::Sql;
use super::config::{Change, FILES_FOLDER, Metadata, keep};
use super::follow::{self, Follow, Standing, Way};
use super::plan::{Leave, RestoreTarget, Step};
use super::restore::{Restoring, Stopped};
use super::staging::RESTORING;
use super::state::{self, DatabaseState};
use super::{Guid, files, headers, kept};
use crate::base::{Error, ErrorKind, Result};

/// The fault of log that is missing.
const LOG_MISSING: &str = "LOG_MISSING";
/// The fault of a folder that cannot be read.
const BACKUP_FOLDER: &str = "BACKUP_FOLDER";
/// Errors after which only a full leads on: of a restore that was cut off, of another full, of another fork.
const NEEDS_FULL: [u32; 6] = [3117, 3121, 3136, 4319, 4320, 4330];

/// What a link to a folder comes to.
pub(super) struct FollowPlan {
    pub follow: Follow,
    pub review: Vec<(String, String)>,
    pub warnings: Vec<String>,
    pub bytes: u64,
}

impl SqlServer {
    /// The backups in a folder, those that only a server can read asked of this one.
    pub(super) fn backups_in(&self, sql: &mut Sql, folder: &Path) -> Result<Backups> {
        let zone = state::server(sql)?.zone_minutes / 15;
        self.headers.folder(folder, i8::try_from(zone).ok(), &mut |path| headers::ask(sql, path))
    }

    /// Looks for what a link to a folder would restore, and refuses what cannot be staged.
    pub(super) fn plan_follow(
        &self,
        sql: &mut Sql,
        folder: &Path,
        database: Option<&str>,
    ) -> Result<FollowPlan> {
        let shown = folder.display().to_string();
        let backups = self.backups_in(sql, folder)?;
        let (database, family) = follow::choose(&backups, database, &shown)?;
        let chain = Chain::new(backups.of_family(family));
        let zone = follow::zone_of(&backups, &chain);
        let plan = chain
            .plan(&RestoreTarget::Newest, &Leave::NoRecovery)
            .map_err(|refusal| refusal.about(&database, &zone))?;
        let of_plan: Vec<&SetFacts> =
            plan.steps.iter().filter_map(|step| backups.facts.get(&step.backup)).collect();
        if let Some(why) = of_plan.iter().find_map(|facts| facts.unsupported()) {
            return Err(Error::new(ErrorKind::Unsupported, why)
                .with_hint("leave it out of the database, or link another"));
        }
        let server = of_plan.last().map_or("an unknown server", |facts| &facts.server);
        let mut warnings: Vec<String> =
            backups.problems.iter().take(10).map(|(file, why)| format!("not used: {file}: {why}")).collect();
        warnings.extend(chain.gaps().iter().map(|gap| gap.describe(&zone)));
        Ok(FollowPlan {
            review: vec![
                ("source database".into(), format!("{database} of {server}")),
                ("backups".into(), shown),
                ("restored now".into(), plan.describe(&zone)),
                ("kept in sync by".into(), "the engine: it restores what comes into that folder".into()),
            ],
            warnings,
            bytes: of_plan.first().map_or(0, |facts| facts.bytes),
            follow: Follow { folder: folder.to_owned(), database, family, replaces: None },
        })
    }

    /// Restores the newest chain into an empty volume.
    pub(super) fn first_copy(&self, at: &mut At<'_>, follow: &Follow, task: &mut dyn Task) -> Result<()> {
        if let Some(old) = &follow.replaces {
            let_go_of(at, old, task)?;
        }
        at.check_free()?;
        let folder = at.volume().join(FILES_FOLDER);
        files::make_folder(&folder, &at.user)?;
        files::open_folders(at.volume(), &folder)?;
        let backups = self.backups_in(&mut at.sql, &follow.folder)?;
        let chain = Chain::new(backups.of_family(follow.family));
        let way = follow::anew(&chain, &follow.database, &follow::zone_of(&backups, &chain))?;
        if let Some(why) =
            way.steps.iter().find_map(|step| backups.facts.get(&step.backup).and_then(SetFacts::unsupported))
        {
            return Err(Error::new(ErrorKind::Unsupported, why));
        }
        at.restore(&way.steps, &backups, None, true, task).map_err(|stopped| stopped.error)?;
        self.fresh.lock().insert(at.volume().to_owned());
        Ok(())
    }

    /// Applies what came since, and says whether there is something to snapshot.
    pub(super) fn catch_up(
        &self,
        at: &mut At<'_>,
        follow: &Follow,
        before: Option<&Metadata>,
        task: &mut dyn Task,
    ) -> Result<Synced> {
        task.step("look for backups")?;
        let backups = self.backups_in(&mut at.sql, &follow.folder)?;
        for (file, why) in &backups.problems {
            task.log(&format!("not used: {file}: {why}"));
        }
        let chain = Chain::new(backups.of_family(follow.family));
        let zone = follow::zone_of(&backups, &chain);
        keep_logs(at.instance, &chain, &backups, before, task)?;
        let found = self.checked_or_anew(at)?;
        let way = match &found {
            Some((found, standing)) => {
                let way = follow::on_from(&chain, standing, follow.family, &zone);
                at.apply(&way, found, &chain, &backups, (follow, &zone), task)?;
                way
            }
            None => {
                let way = follow::anew(&chain, &follow.database, &zone)?;
                at.restore(&way.steps, &backups, None, false, task).map_err(|stopped| stopped.error)?;
                way
            }
        };
        let (sql, staging) = at.staging();
        let synced = match before {
            None => staging.checked(sql).map(|_| Synced::Ready)?,
            Some(_) => staging.sync(sql, before, task)?,
        };
        match (&synced, &way.gap) {
            (Synced::Nothing(_), Some(gap)) => Err(follow::gap_error(staging.database, gap)),
            (Synced::Ready, Some(gap)) => {
                task.warn(gap);
                Ok(synced)
            }
            _ => Ok(synced),
        }
    }

    /// The staging database and where it is; nothing when it is to be restored anew, because nobody has it.
    fn checked_or_anew(&self, at: &mut At<'_>) -> Result<Option<(DatabaseState, Standing)>> {
        if at.own()?.is_none() {
            at.check_free()?;
            return Ok(None);
        }
        let (sql, staging) = at.staging();
        let found = staging.checked(sql)?;
        // As a link by staging push made it: empty.
        if found.state == "ONLINE" && state::last_restore(sql, staging.database)?.is_none() {
            return Ok(None);
        }
        staging.check_restoring(&found)?;
        let standing = standing(&found);
        Ok(standing.map(|standing| (found, standing)))
    }

    /// What a look at the folder says: newer backups are asked for, missing log is a problem.
    pub(super) fn look_at_folder(
        &self,
        at: &mut At<'_>,
        follow: &Follow,
        found: &DatabaseState,
        health: &mut Health,
    ) {
        health.facts.push(("backups".into(), follow.folder.display().to_string()));
        let backups = match self.backups_in(&mut at.sql, &follow.folder) {
            Ok(backups) => backups,
            Err(e) => {
                health.problems.push(Problem {
                    code: BACKUP_FOLDER.into(),
                    message: format!("the backups of {} cannot be looked at: {e}", follow.database),
                    action:
                        "make the folder readable, or name another with `dsource configure --backup-path`"
                            .into(),
                });
                return;
            }
        };
        let unused = backups.problems.len();
        if unused > 0 {
            health.facts.push(("files not used".into(), unused.to_string()));
        }
        let Some(standing) = standing(found).filter(|_| found.shown() == RESTORING) else { return };
        let chain = Chain::new(backups.of_family(follow.family));
        let zone = follow::zone_of(&backups, &chain);
        let way = follow::on_from(&chain, &standing, follow.family, &zone);
        health.needs_sync = !way.steps.is_empty();
        if let Some(gap) = way.gap {
            health.problems.push(Problem {
                code: LOG_MISSING.into(),
                message: gap,
                action: format!(
                    "put the missing log backup into {}, or take a new full or differential backup",
                    follow.folder.display()
                ),
            });
        }
    }

    /// What changes of how a dSource is kept in sync, if something does.
    pub(super) fn convert(&self, at: &mut At<'_>, change: &Change) -> Result<Option<LinkPlan>> {
        let mut config = at.config.clone();
        let (review, warnings) = match (&change.backup_path, change.staging_push) {
            (Some(_), true) => {
                return Err(Error::invalid(
                    "it is kept in sync by you or by a folder of backups: name one of both",
                ));
            }
            (None, false) if change.source_database.is_some() => {
                return Err(Error::invalid(
                    "a source database is one of a folder of backups: name it with --backup-path",
                ));
            }
            (None, false) => return Ok(None),
            (None, true) => {
                config.follow = None;
                (vec![("kept in sync by".into(), "you: RESTORE ... WITH NORECOVERY".into())], Vec::new())
            }
            (Some(folder), false) => {
                let plan = self.plan_follow(&mut at.sql, folder, change.source_database.as_deref())?;
                let name = at.name().to_owned();
                let restored = state::last_restore(&mut at.sql, &name)?.and_then(|last| last.family_guid);
                if at.own()?.is_some() && restored.is_some_and(|family| family != plan.follow.family) {
                    return Err(Error::new(
                        ErrorKind::Precondition,
                        format!(
                            "the backups of {} are of another database than what was restored into {name}",
                            plan.follow.database
                        ),
                    )
                    .with_hint("begin anew with `dsource resync --backup-path`"));
                }
                config.follow = Some(plan.follow);
                (plan.review, plan.warnings)
            }
        };
        Ok(Some(LinkPlan {
            config: keep("the configuration", &config)?,
            review,
            warnings,
            estimated_bytes: None,
        }))
    }

    /// The configuration for a new first copy from a folder.
    pub(super) fn plan_anew(&self, at: &mut At<'_>, change: &Change) -> Result<Option<LinkPlan>> {
        let known = at.config.follow.clone();
        let folder =
            change.backup_path.clone().or_else(|| known.as_ref().map(|follow| follow.folder.clone()));
        let Some(folder) = folder else { return Ok(None) };
        let database = change.source_database.clone().or_else(|| known.map(|follow| follow.database));
        let mut plan = self.plan_follow(&mut at.sql, &folder, database.as_deref())?;
        plan.follow.replaces = Some(at.volume().to_owned());
        let mut config = at.config.clone();
        (config.follow, config.files) = (Some(plan.follow), Vec::new());
        Ok(Some(LinkPlan {
            config: keep("the configuration", &config)?,
            review: plan.review,
            warnings: plan.warnings,
            estimated_bytes: Some(plan.bytes),
        }))
    }
}

fn standing(found: &DatabaseState) -> Option<Standing> {
    Some(Standing {
        lsn: found.redo_start_lsn?,
        fork: found.redo_start_fork_guid.unwrap_or_default(),
        base: found.differential_base_guid,
    })
}

/// Has the instance let go of an earlier copy's database, whose files stay.
fn let_go_of(at: &mut At<'_>, volume: &Path, task: &mut dyn Task) -> Result<()> {
    let name = at.name().to_owned();
    let Some(found) = state::database(&mut at.sql, &name, volume)? else { return Ok(()) };
    if found.outside(volume).is_some() {
        return Ok(());
    }
    task.log(&format!("{name} is dropped, and the files of the earlier copy kept"));
    files::remember(volume, &found.records())?;
    files::let_go(&mut at.sql, &name, &found.records(), volume)
}

/// Keeps the logs that lead on from the newest snapshot.
fn keep_logs(
    instance: &Instance,
    chain: &Chain,
    backups: &Backups,
    before: Option<&Metadata>,
    task: &mut dyn Task,
) -> Result<()> {
    let (Some(logs), Some(position)) = (&instance.logs, before.and_then(Metadata::position)) else {
        return Ok(());
    };
    let wanted = follow::logs_behind(chain, position.lsn, position.ms);
    let count = kept::keep(logs, wanted, &backups.facts, task)?;
    if count > 0 {
        task.log(&format!("{count} log backups are kept for points in time"));
    }
    Ok(())
}

impl At<'_> {
    /// Carries out steps; over the files of `found`, when there are some.
    pub(super) fn restore(
        &mut self,
        steps: &[Step],
        backups: &Backups,
        found: Option<&DatabaseState>,
        interruptible: bool,
        task: &mut dyn Task,
    ) -> std::result::Result<bool, Stopped> {
        let Self { sql, config, instance, .. } = self;
        let mut restoring = Restoring {
            sql,
            name: config.database(&instance.name),
            volume: &instance.volume,
            config,
            secrets: &instance.secrets,
            facts: &backups.facts,
            known: found.map(DatabaseState::records).unwrap_or_default(),
            // What lies on the volume is ours, whoever has it.
            replace: !interruptible,
            interruptible,
        };
        restoring.run(steps, task)
    }

    /// Goes on from where the database is. Where SQL Server wants a full first, it is begun anew.
    fn apply(
        &mut self,
        way: &Way,
        found: &DatabaseState,
        chain: &Chain,
        backups: &Backups,
        (follow, zone): (&Follow, &jiff::tz::TimeZone),
        task: &mut dyn Task,
    ) -> Result<()> {
        let Err(stopped) = self.restore(&way.steps, backups, Some(found), false, task) else { return Ok(()) };
        let needs_full = stopped.number.is_some_and(|number| NEEDS_FULL.contains(&number));
        if !needs_full || way.begins_with_full() {
            return Err(stopped.error);
        }
        task.log(&format!("it is begun anew with a full backup: {}", stopped.error));
        let anew = follow::anew(chain, &follow.database, zone)?;
        let again = self.restore(&anew.steps, backups, Some(found), false, task);
        again.map(drop).map_err(|stopped| stopped.error)
    }

    /// Restores a copy whose files no instance takes up from the folder again.
    pub(super) fn restore_again(
        &mut self,
        adapter: &SqlServer,
        follow: &Follow,
        task: &mut dyn Task,
    ) -> Result<()> {
        let backups = adapter.backups_in(&mut self.sql, &follow.folder)?;
        let chain = Chain::new(backups.of_family(follow.family));
        let way = follow::anew(&chain, &follow.database, &follow::zone_of(&backups, &chain))?;
        self.restore(&way.steps, &backups, None, false, task).map(drop).map_err(|stopped| stopped.error)
    }
}

/// The full backup's set that a snapshot's last restore was, for the shortest way back to it.
pub(super) fn target_of(metadata: &Metadata) -> Option<(RestoreTarget, Guid)> {
    let backup = metadata.backup.as_ref()?;
    let family = backup.family_guid?;
    let whole = backup.stop_at_millis.is_none() && backup.stop_at_mark.is_none();
    whole.then_some((RestoreTarget::Backup(backup.backup_set_uuid), family))
}
