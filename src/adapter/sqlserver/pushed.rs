//! The log backups that a user restored into a staging database, kept for points in time while they still lie where they were.
//!
//! msdb says which files they were restored from. One that is gone since, or that cannot be read, leaves a gap between two snapshots and
//! nothing else: it is said in the job's log. Must not know volumes and jobs.

use std::path::PathBuf;

use super::super::Task;
use super::adapter::{At, SqlServer};
use super::chain::{Backup, Chain};
use super::config::Metadata;
use super::{Guid, follow, headers, kept, state, statements};
use crate::base::Result;

impl SqlServer {
    /// Keeps the logs that were restored since a snapshot. That it does not work keeps nobody from the next snapshot.
    pub(super) fn keep_pushed(&self, at: &mut At<'_>, before: Option<&Metadata>, task: &mut dyn Task) {
        if let Err(e) = self.try_keep_pushed(at, before, task) {
            task.log(&format!("no point in time is kept between this snapshot and the one before: {e}"));
        }
    }

    fn try_keep_pushed(&self, at: &mut At<'_>, before: Option<&Metadata>, task: &mut dyn Task) -> Result<()> {
        let (Some(logs), Some(position)) = (at.instance.logs.clone(), before.and_then(Metadata::position))
        else {
            return Ok(());
        };
        let name = at.name().to_owned();
        let (mut sets, mut paths): (Vec<Guid>, Vec<PathBuf>) = (Vec::new(), Vec::new());
        for row in at.sql.rows(&statements::restored_logs(&name))? {
            sets.extend(row.guid("backup_set_uuid")?);
            paths.extend(row.text("physical_device_name")?.map(PathBuf::from));
        }
        paths.sort();
        paths.dedup();
        let zone = i8::try_from(state::server(&mut at.sql)?.zone_minutes / 15).ok();
        let sql = &mut at.sql;
        let found = self.headers.files(&paths, zone, &mut |path| headers::ask(sql, path));
        for (file, why) in &found.problems {
            task.log(&format!("not kept: {file}: {why}"));
        }
        let restored: Vec<Backup> =
            found.of_family(position.family_id).into_iter().filter(|log| sets.contains(&log.id)).collect();
        let chain = Chain::new(restored);
        let count =
            kept::keep(&logs, follow::logs_behind(&chain, position.lsn, position.ms), &found.facts, task)?;
        if count > 0 {
            task.log(&format!("{count} log backups are kept for points in time"));
        }
        Ok(())
    }
}
