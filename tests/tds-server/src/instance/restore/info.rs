//! RESTORE HEADERONLY, FILELISTONLY, LABELONLY and VERIFYONLY.

use super::header;
use super::{damaged, pick, read_options};
use crate::instance::ast::{BackupOptions, RestoreWhat};
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::history::RestoreRow;
use crate::instance::media::{self, Gathered};
use crate::instance::rights;
use crate::instance::run::Run;
use crate::reply::Part;

/// Shows what the media holds. Errors: 262, 3132, 3201, 3241, 4038; 3183, 3187 and 3189 of VERIFYONLY.
pub(super) fn show(run: &mut Run<'_>, what: RestoreWhat, options: &BackupOptions) -> Outcome<()> {
    let login = run.login();
    if !rights::has(&run.state(), &login, "CREATE ANY DATABASE") {
        return Err(fail(262, &[&"CREATE DATABASE", &"master"]));
    }
    let read = read_options(run, options)?;
    let zone = run.state().zone_minutes;
    match what {
        RestoreWhat::HeaderOnly => {
            let gathered = media::gather(&read.disks, false)?;
            let only = options.has("FILE").then_some(read.position);
            let positions = (1..).zip(&gathered.sets).filter(|(at, _)| only.is_none_or(|only| only == *at));
            let major = run.shared.config.version.0;
            let mut rows = Vec::new();
            for (position, set) in positions {
                rows.extend(set.heads.iter().map(|head| header::header_row(head, position, zone, major)));
            }
            if rows.is_empty() && only.is_some() {
                return Err(fail(4038, &[&read.position, &read.disks[0]]));
            }
            run.send(Part::Rows { columns: header::header_columns(major), rows })
        }
        RestoreWhat::FileListOnly => {
            let (_, head, _) = pick(&read, false)?;
            run.send(Part::Rows { columns: header::file_columns(), rows: header::file_rows(&head) })
        }
        RestoreWhat::LabelOnly => {
            let Gathered { media, .. } = media::gather(&read.disks, false)?;
            run.send(Part::Rows {
                columns: header::label_columns(),
                rows: vec![header::label_row(&media, zone)],
            })
        }
        _ => verify(run, options, &read),
    }
}

fn verify(run: &mut Run<'_>, options: &BackupOptions, read: &super::Options) -> Outcome<()> {
    let (stripes, head, rows) = pick(read, true)?;
    if options.has("CHECKSUM") && !head.checksums {
        return Err(fail(3187, &[]));
    }
    if rows.is_none() || head.damaged {
        return Err(damaged(&head));
    }
    run.work("RESTORE VERIFYONLY", None)?;
    if options.has("LOADHISTORY") {
        let now = run.now();
        let user = run.login();
        let mut state = run.state();
        let set_id = state.history.add_set(&stripes, read.position, &head);
        state.history.add_restore(RestoreRow {
            id: 0,
            date: now,
            database: head.database.clone(),
            user,
            set_id,
            kind: "V",
            replace: false,
            recovery: false,
            stop_at: None,
            stop_mark: None,
            stop_before: false,
            devices: u8::try_from(stripes.len()).unwrap_or(u8::MAX),
            files: Vec::new(),
        });
    }
    run.info(3262, &[&read.position])
}
