//! Checking a backup: the server reads all of it, our own reader its headers and pages, and the files of a cut page by page.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::super::backups::{BackupMade, BackupTarget};
use super::super::super::{Task, Verified};
use super::super::client::Refusal;
use super::super::config::read;
use super::super::errors::{ErrorContext, explain};
use super::super::page::{self, PAGE_BYTES, PageState};
use super::super::verify::{Watch, verify_file};
use super::super::{statements, tape};
use super::config::Recorded;
use super::look::{Known, disagrees};
use super::session::Session;
use crate::base::{Error, ErrorKind, Result};

pub(super) fn verify(target: &BackupTarget<'_>, made: &BackupMade, task: &mut dyn Task) -> Result<Verified> {
    let recorded: Recorded = read(&format!("restore point {}", made.id), &made.metadata)?;
    let known = Known { made, recorded };
    let recorded = &known.recorded;
    let mut verified = Verified::default();
    task.step("compare the files with their record")?;
    verified.checks.push("files and record".into());
    verified.problems.extend(disagrees(&known));
    if !verified.problems.is_empty() {
        return Ok(verified);
    }
    for stripe in &recorded.backup.stripes {
        own_reader(&made.folder.join(&stripe.file), recorded, &mut verified, task)?;
    }
    match (&made.cut, recorded.of_cut) {
        (Some(cut), true) => pages_of_cut(cut, recorded, &mut verified, task)?,
        _ => by_server(target, &known, &mut verified, task)?,
    }
    Ok(verified)
}

fn by_server(
    target: &BackupTarget<'_>,
    known: &Known<'_>,
    verified: &mut Verified,
    task: &mut dyn Task,
) -> Result<()> {
    task.step("RESTORE VERIFYONLY")?;
    let recorded = &known.recorded;
    let stripes = &recorded.backup.stripes;
    let files: Vec<String> =
        stripes.iter().map(|stripe| known.made.folder.join(&stripe.file).display().to_string()).collect();
    let sql = statements::backup::verify(&files, recorded.backup.position, recorded.checksums);
    let mut session = Session::open(target)?;
    verified.checks.push("RESTORE VERIFYONLY".into());
    match session.long(&sql, recorded.bytes, task) {
        Ok(()) => Ok(()),
        Err(Refusal { number: Some(number), text, .. }) => {
            let context =
                ErrorContext { database: recorded.database.clone(), files, ..ErrorContext::default() };
            verified.problems.push(explain(number, &text, &context).text());
            Ok(())
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// Headers and page checksums by our own reader, where it can read the file.
fn own_reader(path: &Path, recorded: &Recorded, verified: &mut Verified, task: &mut dyn Task) -> Result<()> {
    let shown = path.display().to_string();
    let found = match tape::read_file(path) {
        Ok(found) => found,
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => {
            verified.left_out.push(format!("{shown} by our own reader: {}", e.message()));
            return Ok(());
        }
        Err(e) => {
            verified.problems.push(e.message().to_owned());
            return Ok(());
        }
    };
    task.step("check headers and pages")?;
    verified.checks.push("headers and page checksums".into());
    if let Some(problem) = found.problem {
        verified.problems.push(problem.about(&shown).message().to_owned());
    }
    let file = File::open(path).map_err(|e| Error::io("open", &shown, e))?;
    for set in found.sets.iter().filter(|set| set.id == recorded.backup.id) {
        let bad = bad_pages(&file, &set.data, &shown, task)?;
        if bad > 0 {
            verified.problems.push(format!("{bad} pages of {shown} do not have the checksum that they tell"));
        }
        if set.data.more_runs || set.data.unplaced_bytes > 0 {
            verified.left_out.push(format!("pages of {shown} whose places are not known"));
        }
    }
    Ok(())
}

/// Pages in use that fail their checksum. One that an older use left is free, which only a PFS page tells, so the share is
/// compared with what the server says: here all count that are of an extent that has a place.
fn bad_pages(file: &File, data: &tape::DataStreams, shown: &str, task: &dyn Task) -> Result<u64> {
    let mut bad = 0;
    let mut extent = vec![0; tape::EXTENT_BYTES];
    for run in &data.runs {
        let mut at = run.at;
        let end = run.at + run.pages * PAGE_BYTES as u64;
        while at < end {
            task.check()?;
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(extent.len());
            let bytes = &mut extent[..length];
            file.read_exact_at(bytes, at).map_err(|e| Error::io("read", shown, e))?;
            let fails = |page: &[u8]| matches!(page::check(page), PageState::Checksum { .. });
            let placed = tape::place_extent(bytes).is_some();
            let failing = bytes.chunks_exact(PAGE_BYTES).filter(|page| fails(page)).count();
            // All that an extent has may be of an older use.
            if placed && failing < bytes.len() / PAGE_BYTES {
                bad += failing as u64;
            }
            at += length as u64;
        }
    }
    Ok(bad)
}

fn pages_of_cut(cut: &Path, recorded: &Recorded, verified: &mut Verified, task: &mut dyn Task) -> Result<()> {
    task.step("check the pages of the cut")?;
    verified.checks.push("page checksums of the files".into());
    for file in recorded.files.iter().filter(|file| file.kind == "D") {
        let Some(inside) = &file.in_cut else { continue };
        let path = cut.join(inside);
        task.check()?;
        match verify_file(&path, &Watch { progress: &|_, _| {}, cancelled: &|| false }) {
            Ok(report) if report.is_good() => {}
            Ok(report) => verified.problems.push(format!(
                "{} pages in use of {} are damaged",
                report.errors,
                path.display()
            )),
            Err(e) => verified.problems.push(e.message().to_owned()),
        }
    }
    Ok(())
}
