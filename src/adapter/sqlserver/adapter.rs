//! The SQL Server adapter: staging databases that their users or a folder of backups are restored into, and VDBs of their
//! snapshots.
//!
//! The engine starts no server here: databases are made on, taken up by and let go of by an instance that runs already. A
//! stopped dataset is one that the instance does not have. Holds the connections that hold a freeze, since its end is the
//! freeze's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::Value;

use super::super::backups::Backups;
use super::super::{
    Abilities, Adapter, ChangeKind, Described, Health, History, HookAccess, Instance, LinkPlan, Parent,
    Point, Problem, Repository, Secrets, Span, Synced, Target, Task, VdbOptions, Verified, no_points,
};
use super::backups::Headers;
use super::client::{Refusal, Sql};
use super::config::{Change, Config, FILES_FOLDER, FileRecord, LinkRequest, Metadata, PASSWORD, keep, read};
use super::staging::{self, RESTORING, Staging};
use super::state::{self, DatabaseState};
use super::{file_check, files, statements};
use crate::base::{Error, ErrorKind, OsUser, Result};

/// The first version that can hold a database for a snapshot: SQL Server 2022.
const SUSPENDS_SINCE: u32 = 16;
/// The oldest version that is known: SQL Server 2016.
const MAJOR_MIN: u32 = 13;

/// The adapter.
#[derive(Default)]
pub struct SqlServer {
    /// By state folder: the connection that holds a database's writes.
    freezing: Mutex<HashMap<PathBuf, Sql>>,
    /// What was read of backup files.
    pub(super) headers: Headers,
    /// Volumes whose database was restored just now: nothing of it is of an earlier mount.
    pub(super) fresh: Mutex<HashSet<PathBuf>>,
}

/// One dataset's database, and a connection to its instance.
pub(super) struct At<'a> {
    pub(super) sql: Sql,
    pub(super) config: Config,
    pub(super) instance: &'a Instance,
    pub(super) user: OsUser,
}

impl SqlServer {
    /// Refuses what has no logs to lead anywhere.
    fn with_points(&self, instance: &Instance) -> Result<()> {
        let config = Self::config(instance)?;
        let has = !config.vdb && (instance.logs.is_some() || config.follow.is_some());
        if has { Ok(()) } else { Err(no_points(&instance.name)) }
    }

    pub(super) fn config(instance: &Instance) -> Result<Config> {
        read(&format!("the configuration of {}", instance.name), &instance.config)
    }

    fn at<'a>(&self, instance: &'a Instance) -> Result<At<'a>> {
        let config = Self::config(instance)?;
        let mut sql = connect(&config, &instance.secrets)?;
        sql.about.database = config.database(&instance.name).to_owned();
        sql.about.data_folder = Some(instance.volume.join(FILES_FOLDER).display().to_string());
        let user = OsUser::named(&config.user)?;
        Ok(At { sql, config, instance, user })
    }
}

pub(super) fn connect(config: &Config, secrets: &Secrets) -> Result<Sql> {
    let password = secrets.get(PASSWORD).ok_or_else(|| {
        Error::new(ErrorKind::NotAllowed, format!("no password of {} is known", config.instance.user))
            .with_hint("name its file with --password-file, or set STILLPOINT_SOURCE_PASSWORD")
    })?;
    Sql::connect(&config.instance, password).map_err(|refusal| {
        let server = config.instance.connect_string();
        let hint = match refusal.number {
            Some(18456) => "check user and password",
            Some(_) => "see the server's error log",
            None => "check host, port or instance name, that TCP is enabled there, and --encryption",
        };
        Error::from(refusal).context(format!("cannot ask {server}")).with_hint(hint)
    })
}

impl At<'_> {
    pub(super) fn name(&self) -> &str {
        self.config.database(&self.instance.name)
    }

    pub(super) fn volume(&self) -> &Path {
        &self.instance.volume
    }

    /// The connection, and the staging database that is asked over it.
    pub(super) fn staging(&mut self) -> (&mut Sql, Staging<'_>) {
        let Self { sql, config, instance, .. } = self;
        let (database, volume) = (config.database(&instance.name), instance.volume.as_path());
        (sql, Staging { database, volume, config })
    }

    /// The database when the instance has it with files of this volume; one of the same name with others is somebody else's.
    pub(super) fn own(&mut self) -> Result<Option<DatabaseState>> {
        let (name, volume) = (self.name().to_owned(), self.volume().to_owned());
        let found = state::database(&mut self.sql, &name, &volume)?;
        Ok(found.filter(|found| found.outside(&volume).is_none()))
    }

    /// The same, after what an operation left that did not end was ended.
    fn settled(&mut self) -> Result<Option<DatabaseState>> {
        let (name, volume, records) = (self.name().to_owned(), self.volume().to_owned(), self.records()?);
        let found = self.own()?;
        let there = files::settle(&mut self.sql, &name, found.as_ref(), &records, &volume)?;
        Ok(found.filter(|_| there))
    }

    /// Its files as they were when the instance last let go of it, or when it was made.
    fn records(&self) -> Result<Vec<FileRecord>> {
        Ok(files::recall(self.volume())?.unwrap_or_else(|| self.config.files.clone()))
    }

    pub(super) fn check_free(&mut self) -> Result<()> {
        let (name, volume) = (self.name().to_owned(), self.volume().to_owned());
        match state::database(&mut self.sql, &name, &volume)? {
            None => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::Exists,
                format!(
                    "{} has a database {name} already, which is not ours",
                    self.config.instance.connect_string()
                ),
            )
            .with_hint("drop or rename it, or choose another name")),
        }
    }

    /// Makes the staging database, empty.
    fn create(&mut self, task: &mut dyn Task) -> Result<()> {
        task.step("create the staging database")?;
        let folder = self.volume().join(FILES_FOLDER);
        files::make_folder(&folder, &self.user)?;
        files::open_folders(self.volume(), &folder)?;
        let name = self.name().to_owned();
        let (data, log) = (folder.join(format!("{name}.mdf")), folder.join(format!("{name}_log.ldf")));
        let logical = format!("{name}_log");
        let data = [statements::NewFile { logical: &name, path: &data }];
        let logs = [statements::NewFile { logical: &logical, path: &log }];
        self.sql.change(&statements::create(&name, &data, &logs))?;
        task.log(&format!("{name} was made, with its files in {}", folder.display()));
        Ok(())
    }

    /// Takes a database up whose files lie on the volume, in the state that they are in.
    fn take_up(&mut self, records: &Metadata, task: &mut dyn Task) -> Result<DatabaseState> {
        let (name, volume) = (self.name().to_owned(), self.volume().to_owned());
        if records.state != RESTORING {
            task.step("attach")?;
            files::attach(&mut self.sql, &name, &records.files, &volume)?;
            let found = state::database(&mut self.sql, &name, &volume)?;
            return found.ok_or_else(|| {
                Error::new(ErrorKind::Failed, format!("{name} is gone after it was attached"))
            });
        }
        task.step("put the files under a new database")?;
        let found = files::take_up(&mut self.sql, &name, &records.files, &volume)?;
        if found.state != RESTORING {
            return Err(Error::new(
                ErrorKind::Failed,
                format!(
                    "{name} is {} and not RESTORING: SQL Server did not take the files as they are",
                    found.state
                ),
            ));
        }
        Ok(found)
    }

    /// Lets go of a database; its files stay on the volume as they are.
    fn let_go(&mut self, task: &mut dyn Task) -> Result<()> {
        let (name, volume) = (self.name().to_owned(), self.volume().to_owned());
        let Some(found) = self.settled()? else { return Ok(()) };
        if !volume.is_dir() || found.files.iter().all(|(_, path)| !path.exists()) {
            // Nothing of it is left to keep.
            self.sql.change(&statements::drop(&name))?;
            return Ok(());
        }
        // One that waits for more restores cannot be detached.
        if found.state == "ONLINE" && !found.standby {
            files::remember(&volume, &found.records())?;
            self.sql.change(&statements::single_user(&name))?;
            self.sql.change(&statements::detach(&name))?;
            return Ok(());
        }
        task.log(&format!("{name} is dropped, and its files kept"));
        self.drop_and_keep(&found)
    }

    fn drop_and_keep(&mut self, found: &DatabaseState) -> Result<()> {
        let (name, volume, records) = (self.name().to_owned(), self.volume().to_owned(), found.records());
        files::remember(&volume, &records)?;
        files::let_go(&mut self.sql, &name, &records, &volume)
    }

    /// Opens the files anew: what it has open may be of a mount that is gone.
    fn reopen(&mut self) -> Result<()> {
        let name = self.name().to_owned();
        self.sql.change(&statements::offline(&name))?;
        self.sql.change(&statements::online(&name))?;
        Ok(())
    }

    fn major(&mut self) -> Result<u32> {
        Ok(state::server(&mut self.sql)?.major())
    }
}

impl Adapter for SqlServer {
    fn kind(&self) -> &'static str {
        "sqlserver"
    }

    fn abilities(&self) -> Abilities {
        Abilities { logs: true, vdb_logs: false, images: false, verifies: true, checks_files: true }
    }

    fn backups(&self) -> Option<&dyn Backups> {
        Some(self)
    }

    /// VDBs are on their parent's instance.
    fn inherited_secrets(&self) -> &'static [&'static str] {
        &[PASSWORD]
    }

    /// None: an instance is named with each link, and asked then.
    fn discover(&self) -> Result<Vec<Repository>> {
        Ok(Vec::new())
    }

    fn plan_link(&self, request: &Value, secrets: &Secrets) -> Result<LinkPlan> {
        let request: LinkRequest = read("the request to link", request)?;
        if request.staging_push == request.backup_path.is_some() {
            return Err(Error::invalid(
                "say how it is kept in sync: --staging-push, or --backup-path FOLDER",
            ));
        }
        let database = match (request.database, request.staging_push) {
            (Some(database), _) => database,
            (None, false) => format!("{}_staging", request.name),
            (None, true) => return Err(Error::invalid("name the staging database: --staging-database")),
        };
        let user = OsUser::named(&request.user)?;
        let mut config = Config {
            instance: request.instance,
            user: user.name.clone(),
            database: Some(database),
            vdb: false,
            files: Vec::new(),
            follow: None,
        };
        check_name(config.database(""))?;
        let mut sql = connect(&config, secrets)?;
        let server = check_instance(&mut sql, &config)?;
        let shown = config.instance.connect_string();
        let name = config.database("").to_owned();
        let mut review: Vec<(String, String)> = vec![
            ("instance".into(), format!("{shown}, SQL Server {} {}", server.version, server.edition)),
            ("login".into(), config.instance.user.clone()),
            ("staging database".into(), format!("{name}, made now")),
            ("files".into(), format!("a folder of the volume, {FILES_FOLDER}, of the user {}", user.name)),
        ];
        let mut estimated_bytes = None;
        let mut warnings = vec![
            "SQL Server on a FUSE mount is not on Microsoft's list of supported file systems".to_owned(),
        ];
        match &request.backup_path {
            Some(folder) => {
                let plan = self.plan_follow(&mut sql, folder, request.source_database.as_deref())?;
                review.extend(plan.review);
                warnings.extend(plan.warnings);
                estimated_bytes = Some(plan.bytes);
                config.follow = Some(plan.follow);
            }
            None => review.extend([
                (
                    "kept in sync by".to_owned(),
                    "you: RESTORE ... WITH NORECOVERY, by hand or in a pre_sync hook".to_owned(),
                ),
                (
                    "time zone".to_owned(),
                    format!("that of the instance's host, {} minutes east of UTC", server.zone_minutes),
                ),
            ]),
        }
        if config.instance.encryption != super::client::Encryption::Verified {
            warnings.push(
                "the server's certificate is not checked: somebody else could answer in its place".into(),
            );
        }
        Ok(LinkPlan { config: keep("the configuration", &config)?, review, warnings, estimated_bytes })
    }

    fn ingest(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        let mut at = self.at(instance)?;
        if let Some(follow) = at.config.follow.clone() {
            return self.first_copy(&mut at, &follow, task);
        }
        at.check_free()?;
        at.create(task)
    }

    fn unlink(&self, _instance: &Instance, _task: &mut dyn Task) -> Result<()> {
        // What it had on the instance `stop` let go of.
        Ok(())
    }

    fn plan_change(&self, instance: &Instance, change: &Value, kind: ChangeKind) -> Result<LinkPlan> {
        let mut config = Self::config(instance)?;
        let mut change: Change = read(&format!("the change of {}", instance.name), change)?;
        let converts =
            change.staging_push || change.backup_path.is_some() || change.source_database.is_some();
        if !change.settings.is_empty() || !change.unset.is_empty() {
            return Err(Error::invalid(format!(
                "{} is a SQL Server database, which has no settings here",
                instance.name
            )));
        }
        if config.vdb && converts {
            return Err(Error::invalid(format!(
                "{} is a VDB, which is kept in sync by nothing",
                instance.name
            )));
        }
        if let Some(address) = change.instance.take() {
            address.apply(&mut config.instance)?;
        }
        if let Some(database) = change.database.take() {
            if kind != ChangeKind::Attach {
                return Err(Error::invalid(
                    "a staging database gets another name when it is attached: detach it first",
                ));
            }
            check_name(&database)?;
            config.database = Some(database);
        }
        let changed = Instance { config: keep("the configuration", &config)?, ..instance.clone() };
        let mut at = self.at(&changed)?;
        let server = state::server(&mut at.sql)?;
        let shown = format!("{}, SQL Server {}", config.instance.connect_string(), server.version);
        let mut review =
            vec![("instance".into(), shown), ("database".into(), config.database(&instance.name).to_owned())];
        let converted = self.convert(&mut at, &change)?.unwrap_or_default();
        review.extend(converted.review);
        Ok(LinkPlan {
            review,
            warnings: converted.warnings,
            estimated_bytes: None,
            config: if converts { converted.config } else { keep("the configuration", &config)? },
        })
    }

    fn plan_resync(&self, instance: &Instance, change: &Value) -> Result<LinkPlan> {
        let change: Change = read(&format!("the change of {}", instance.name), change)?;
        if let Some(plan) = self.plan_anew(&mut self.at(instance)?, &change)? {
            return Ok(plan);
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} is kept in sync by its user (staging push): restore a full backup into it WITH NORECOVERY, REPLACE",
                instance.name
            ),
        ))
    }

    fn detached(&self, instance: &Instance) -> Result<Value> {
        let mut at = self.at(instance)?;
        let found = at.own()?;
        let mut config = at.config;
        if let Some(found) = found {
            config.files = found.records();
        }
        keep("the configuration", &config)
    }

    fn attach(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        self.at(instance)?.check_free()?;
        self.start_staging(instance, task)
    }

    /// With the files that it has now: by them it is taken up again.
    fn reconfigure(&self, instance: &Instance) -> Result<Value> {
        self.detached(instance)
    }

    /// Has the instance take up the staging database. When it cannot, the storage is there all the same: a full restore
    /// mends it, and the job says so.
    fn start_staging(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        let mut at = self.at(instance)?;
        let (name, volume) = (at.name().to_owned(), at.volume().to_owned());
        let is_fresh = self.fresh.lock().remove(&volume);
        if let Some(found) = at.settled()? {
            if is_fresh {
                return Ok(());
            }
            if found.state != RESTORING {
                return at.reopen();
            }
            at.drop_and_keep(&found)?;
        } else if let Err(e) = at.check_free() {
            task.warn(&format!("SKIP_ATTACH_OPERATION: {e}; the storage is mounted"));
            return Ok(());
        }
        let records = at.records()?;
        let known = !records.is_empty() && records.iter().all(|file| file.place(&volume).exists());
        if let (false, None) = (known, &at.config.follow) {
            task.warn(&format!(
                "SKIP_ATTACH_OPERATION: what {name} consists of is not known; restore a full backup into it"
            ));
            return Ok(());
        }
        let taken = match known {
            true => files::take_up(&mut at.sql, &name, &records, &volume).map(drop),
            false => {
                Err(Error::new(ErrorKind::Precondition, format!("what {name} consists of is not known")))
            }
        };
        let taken = match (taken, at.config.follow.clone()) {
            (Err(e), Some(follow)) => {
                task.log(&format!("{e}; it is restored from its backups again"));
                at.restore_again(self, &follow, task)
            }
            (taken, _) => taken,
        };
        if let Err(e) = taken {
            task.warn(&format!(
                "SKIP_ATTACH_OPERATION: {e}; the storage is mounted: restore a full backup as {name} WITH NORECOVERY, REPLACE"
            ));
        }
        Ok(())
    }

    fn sync(&self, instance: &Instance, before: Option<&Value>, task: &mut dyn Task) -> Result<Synced> {
        let before: Option<Metadata> =
            before.map(|value| read("the snapshot's records", value)).transpose()?;
        let mut at = self.at(instance)?;
        if let Some(follow) = at.config.follow.clone() {
            return self.catch_up(&mut at, &follow, before.as_ref(), task);
        }
        let (sql, staging) = at.staging();
        let synced = staging.sync(sql, before.as_ref(), task)?;
        if synced == Synced::Ready {
            self.keep_pushed(&mut at, before.as_ref(), task);
        }
        Ok(synced)
    }

    fn monitor(&self, instance: &Instance) -> Result<Health> {
        let config = Self::config(instance)?;
        // The engine starts no instance: whatever is seen counts as running.
        let mut health = Health { running: true, state: "unknown".into(), ..Health::default() };
        let mut at = match self.at(instance) {
            Ok(at) => at,
            Err(e) => {
                health.state = "unreachable".into();
                health.problems.push(Problem {
                    code: "INSTANCE_UNREACHABLE".into(),
                    message: e.message().to_owned(),
                    action: "start the instance, or name its address with `configure`".into(),
                });
                return Ok(health);
            }
        };
        health.facts.push(("instance".into(), config.instance.connect_string()));
        let name = at.name().to_owned();
        let Some(found) = at.own()? else {
            health.state = "missing".into();
            health.running = !config.vdb;
            health.problems.push(Problem {
                code: if config.vdb { "DATABASE_MISSING" } else { staging::CANNOT_MONITOR }.into(),
                message: format!("the instance has no database {name} with files on the volume"),
                action: match config.vdb {
                    true => "it is attached again by itself".into(),
                    false => format!(
                        "restore a full backup as {name} WITH NORECOVERY, with MOVE to {}",
                        at.volume().join(FILES_FOLDER).display()
                    ),
                },
            });
            return Ok(health);
        };
        health.state = found.shown().to_lowercase();
        health.facts.push(("database".into(), name));
        health.facts.push(("recovery model".into(), found.recovery_model.clone()));
        if let Some(lsn) = found.redo_start_lsn {
            health.facts.push(("restored up to LSN".into(), lsn.to_string()));
        }
        if config.vdb {
            if found.state != "ONLINE" {
                health.problems.push(Problem {
                    code: "DATABASE_NOT_ONLINE".into(),
                    message: format!("{} is {}", at.name(), found.shown()),
                    action: "see the instance's error log; stop and start the VDB".into(),
                });
            }
        } else {
            health.problems.extend(at.staging().1.problem(&found));
            if let Some(follow) = &config.follow {
                self.look_at_folder(&mut at, follow, &found, &mut health);
            }
        }
        Ok(health)
    }

    fn quiesce(&self, instance: &Instance, task: &mut dyn Task) -> Result<Described> {
        let mut at = self.at(instance)?;
        if !at.config.vdb {
            task.step("check the staging database")?;
            let (sql, staging) = at.staging();
            return staging.describe(sql);
        }
        let name = at.name().to_owned();
        let Some(found) = at.own()? else {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!("the instance has no database {name} of this VDB"),
            ));
        };
        if found.state != "ONLINE" {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!("{name} is {}, and not ONLINE", found.shown()),
            ));
        }
        let freezes = at.major()? >= SUSPENDS_SINCE;
        let metadata = staging::metadata(&mut at.sql, &found, None, freezes)?;
        if freezes {
            task.step("hold writes")?;
            at.sql.change(&statements::suspend(&name))?;
            self.freezing.lock().insert(instance.state.clone(), at.sql);
        } else {
            task.log("this version cannot hold writes: the snapshot is what a power cut leaves, and recovers as from one");
        }
        Ok(Described {
            metadata: keep("the snapshot's records", &metadata)?,
            unprovisionable: files::cannot_be_taken(&found.records()),
        })
    }

    fn thaw(&self, instance: &Instance) -> Result<()> {
        let held = self.freezing.lock().remove(&instance.state);
        let config = Self::config(instance)?;
        if !config.vdb {
            return Ok(());
        }
        let resume = statements::resume(config.database(&instance.name));
        if let Some(mut sql) = held
            && sql.change(&resume).is_ok()
        {
            return Ok(());
        }
        // The end of the session that held it lets go, too; this is for one that another engine left.
        let mut sql = connect(&config, &instance.secrets)?;
        match sql.change(&resume) {
            Ok(()) => Ok(()),
            // It is not held, or not there.
            Err(Refusal { number: Some(_), .. }) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn describe_end(&self, instance: &Instance, metadata: &mut Value) -> Result<()> {
        if Self::config(instance)?.vdb {
            return Ok(());
        }
        let recorded: Metadata = read("the snapshot's records", metadata)?;
        let mut at = self.at(instance)?;
        let (sql, staging) = at.staging();
        staging.still(sql, &recorded)
    }

    fn find_point(&self, history: &History<'_>, target: &Target) -> Result<Point> {
        self.with_points(history.instance)?;
        self.point(history, target)
    }

    fn span(&self, history: &History<'_>) -> Result<Span> {
        match self.with_points(history.instance) {
            Ok(()) => self.points_span(history),
            Err(_) => Ok(Span::default()),
        }
    }

    fn prune_logs(&self, instance: &Instance, oldest: &Value) -> Result<usize> {
        self.prune_kept(instance, oldest)
    }

    fn plan_vdb(&self, parent: &Value, metadata: &Value, options: &VdbOptions) -> Result<Value> {
        let parent: Config = read("the configuration of the parent", parent)?;
        let metadata: Metadata = read("the snapshot's records", metadata)?;
        if options.owner.is_some() || !options.settings.is_empty() {
            return Err(Error::invalid(
                "a SQL Server VDB has no settings and no owner: use a configure_clone hook",
            ));
        }
        let database = match options.renames.len() {
            0 => None,
            1 => options.renames.values().next().cloned(),
            _ => return Err(Error::invalid("a SQL Server VDB is one database: give it one name")),
        };
        if let Some(name) = &database {
            check_name(name)?;
        }
        keep(
            "the configuration",
            &Config { database, vdb: true, files: metadata.files, follow: None, ..parent },
        )
    }

    fn plan_refresh(&self, vdb: &Value, _parent: &Value, metadata: &Value) -> Result<Value> {
        let vdb: Config = read("the configuration of the VDB", vdb)?;
        let metadata: Metadata = read("the snapshot's records", metadata)?;
        keep("the configuration", &Config { files: metadata.files, ..vdb })
    }

    fn provision(
        &self,
        instance: &Instance,
        metadata: &Value,
        target: &Target,
        parent: Option<Parent<'_>>,
        task: &mut dyn Task,
    ) -> Result<()> {
        let records: Metadata = read("the snapshot's records", metadata)?;
        let mut at = self.at(instance)?;
        at.check_free()?;
        files::open_folders(at.volume(), &at.volume().join(FILES_FOLDER))?;
        let found = match (at.take_up(&records, task), &parent) {
            (Err(e), Some(parent)) if records.state == RESTORING => {
                self.restore_clone(&mut at, &records, parent, e, task)?
            }
            (found, _) => found?,
        };
        let name = at.name().to_owned();
        if *target != Target::Snapshot {
            let parent = parent.ok_or_else(|| no_points(&instance.name))?;
            self.go_to(&mut at, &records, &found, target, &parent, task)?;
        } else if found.state == RESTORING {
            task.step("recover")?;
            at.sql.long(&statements::recover(&name), task)?;
        }
        at.online(task)
    }

    fn adopt(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        self.start(instance, task)
    }

    fn start(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        let mut at = self.at(instance)?;
        let name = at.name().to_owned();
        match at.settled()? {
            Some(_) => at.reopen()?,
            None => {
                at.check_free()?;
                let (records, volume) = (at.records()?, at.volume().to_owned());
                files::attach(&mut at.sql, &name, &records, &volume)?;
            }
        }
        at.online(task)
    }

    fn verify(&self, instance: &Instance, task: &mut dyn Task) -> Result<Verified> {
        let mut at = self.at(instance)?;
        let name = at.name().to_owned();
        let mut verified = Verified { checks: vec!["DBCC CHECKDB".into()], ..Verified::default() };
        task.step("DBCC CHECKDB")?;
        match at.sql.long(&statements::check(&name), task) {
            Ok(_) => {}
            Err(Refusal { number: Some(number), text, .. }) => {
                verified.problems.push(format!("Msg {number}: {text}"));
            }
            Err(refusal) => return Err(refusal.into()),
        }
        Ok(verified)
    }

    fn check_files(&self, folder: &Path, metadata: &Value, task: &mut dyn Task) -> Result<Verified> {
        let records: Metadata = read("the snapshot's records", metadata)?;
        file_check::check_files(folder, &records.files, task)
    }

    fn export(&self, _instance: &Instance, from: &Path, to: &Path, task: &mut dyn Task) -> Result<()> {
        task.step("copy the files")?;
        files::export(&from.join(FILES_FOLDER), to, task)
    }

    fn stop(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        self.at(instance)?.let_go(task)
    }

    /// A freeze ends with its connection; databases are taken up again by `start`.
    fn end_strays(&self, _state: &Path, _mount: &Path, _kept: &[PathBuf]) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }

    fn connection(&self, instance: &Instance) -> BTreeMap<String, String> {
        let Ok(config) = Self::config(instance) else { return BTreeMap::new() };
        let server = config.instance.connect_string();
        BTreeMap::from([
            ("CONNECT_STRING".to_owned(), server.clone()),
            ("SQLCMDSERVER".to_owned(), server),
            ("SQLCMDUSER".to_owned(), config.instance.user.clone()),
            ("SQLCMDDBNAME".to_owned(), config.database(&instance.name).to_owned()),
        ])
    }

    fn hook_access(&self, instance: &Instance, _door: &Path) -> Result<HookAccess> {
        let config = Self::config(instance)?;
        let mut variables = self.connection(instance);
        // A restore is not done from within the database that it replaces.
        variables.remove("SQLCMDDBNAME");
        let password = instance.secrets.get(PASSWORD).unwrap_or_default();
        variables.insert("SQLCMDPASSWORD".into(), password.to_owned());
        Ok(HookAccess {
            user: Some(config.user.clone()),
            host: config.instance.host.clone(),
            database: config.database(&instance.name).to_owned(),
            variables,
            ..HookAccess::default()
        })
    }
}

impl At<'_> {
    /// Waits for nothing: what is not ONLINE now does not get so by itself.
    fn online(&mut self, task: &mut dyn Task) -> Result<()> {
        let name = self.name().to_owned();
        let found = self.own()?.map_or_else(|| "gone".to_owned(), |found| found.shown());
        if found != "ONLINE" {
            return Err(Error::new(ErrorKind::Failed, format!("{name} is {found} and not ONLINE")));
        }
        self.sql.change(&statements::multi_user(&name))?;
        task.log(&format!("{name} is ONLINE on {}", self.config.instance.connect_string()));
        Ok(())
    }
}

/// The instance of a new link, whose version, rights and free name were looked at.
fn check_instance(sql: &mut Sql, config: &Config) -> Result<state::ServerState> {
    let server = state::server(sql)?;
    let shown = config.instance.connect_string();
    if server.major() < MAJOR_MIN {
        return Err(Error::new(
            ErrorKind::Precondition,
            format!("{shown} runs SQL Server {}: older than 2016 is not known", server.version),
        ));
    }
    let missing = state::missing_rights(sql, &config.instance.user)?;
    if !missing.is_empty() {
        return Err(Error::new(
            ErrorKind::NotAllowed,
            format!("{} lacks rights on {shown}", config.instance.user),
        )
        .with_hint(format!("as an administrator there: {}", missing.join("; "))));
    }
    let name = config.database("");
    if state::database(sql, name, Path::new("/"))?.is_some() {
        return Err(Error::new(ErrorKind::Exists, format!("{shown} has a database {name} already"))
            .with_hint("choose another staging database name; who restores into it names this one"));
    }
    Ok(server)
}

/// A database's name is a sysname; what the system has for its own is refused.
pub(super) fn check_name(name: &str) -> Result<()> {
    let taken = ["master", "model", "msdb", "tempdb", "resource"];
    let plain = !name.is_empty()
        && name.encode_utf16().count() <= 128
        && !name.contains(['/', '\0', '\n', '\r', '\\']);
    match plain && !taken.contains(&name.to_lowercase().as_str()) {
        true => Ok(()),
        false => Err(Error::invalid(format!("{name:?} cannot be the name of a database"))),
    }
}
