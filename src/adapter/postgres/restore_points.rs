//! The restore points in a timeflow's WAL, found by `pg_waldump`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::logs;
use super::lsn::{Lsn, SegmentName, SegmentSize};
use super::server::Server;
use crate::base::{Error, Result};

/// What `pg_waldump` calls the records of restore points.
const RECORD: &str = "desc: RESTORE_POINT ";

/// A folder of links that goes with its owner.
struct Links(PathBuf);

impl Drop for Links {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("{} stays: {e}", self.0.display());
        }
    }
}

/// The restore points from a place on, in their order: where the record begins, and the name.
pub(super) fn list(server: &Server<'_>, from: Lsn, size: SegmentSize) -> Result<Vec<(Lsn, String)>> {
    let (links, segments) = link_all(server, from, size)?;
    let mut found = Vec::new();
    // Each run of segments without a gap on one timeline is read in one go.
    for run in runs(&segments, size) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let output = server
            .programs
            .command("pg_waldump")
            .args(["--rmgr=XLOG", "--path"])
            .arg(&links.0)
            .args([first.to_string(), last.to_string()])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Error::io("run", "pg_waldump", e))?;
        // Where the WAL ends it says so and fails: what it printed before is what there is.
        found.extend(String::from_utf8_lossy(&output.stdout).lines().filter_map(parse));
    }
    found.retain(|(at, _)| *at >= from);
    found.sort();
    found.dedup();
    Ok(found)
}

/// `pg_waldump` reads one folder.
fn link_all(server: &Server<'_>, from: Lsn, size: SegmentSize) -> Result<(Links, Vec<SegmentName>)> {
    let folder = server.state_file(&format!("points-{}", server.unique()));
    let failed = |e| Error::io("prepare", &folder.display().to_string(), e);
    std::fs::create_dir(&folder).map_err(failed)?;
    let links = Links(folder.clone());
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(failed)?;
    let mut segments: Vec<SegmentName> = Vec::new();
    let kept = logs::folder(server);
    for place in kept.into_iter().chain([server.data().join("pg_wal")]) {
        for segment in logs::list(&place)?.segments {
            let reaches = segment.end(size).is_some_and(|end| end > from);
            if !reaches || segments.contains(&segment) {
                continue;
            }
            let target: &Path = &place.join(segment.to_string());
            std::os::unix::fs::symlink(target, folder.join(segment.to_string())).map_err(failed)?;
            segments.push(segment);
        }
    }
    segments.sort();
    Ok((links, segments))
}

fn runs(segments: &[SegmentName], size: SegmentSize) -> Vec<&[SegmentName]> {
    segments.chunk_by(|one, next| one.next(size) == Some(*next)).collect()
}

/// Reads `rmgr: XLOG … lsn: 0/03000060, prev 0/03000028, desc: RESTORE_POINT before release`.
fn parse(line: &str) -> Option<(Lsn, String)> {
    let (head, name) = line.split_once(RECORD)?;
    let at = head.split("lsn: ").nth(1)?.split(',').next()?.trim();
    Some((at.parse().ok()?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let line = "rmgr: XLOG        len (rec/tot):     98/    98, tx:          0, lsn: 0/03000060, prev \
                    0/03000028, desc: RESTORE_POINT before, release";
        assert_eq!(parse(line), Some((Lsn(0x0300_0060), "before, release".to_owned())));
        assert_eq!(parse("rmgr: XLOG lsn: 0/03000060, prev 0/0, desc: CHECKPOINT_ONLINE"), None);
    }

    #[test]
    fn a_gap_or_a_new_timeline_ends_a_run() {
        let names = ["000000010000000000000003", "000000010000000000000004", "000000010000000000000006"];
        let segments: Vec<SegmentName> = names.iter().map(|name| name.parse().unwrap()).collect();
        let lengths: Vec<usize> = runs(&segments, SegmentSize::DEFAULT).iter().map(|run| run.len()).collect();
        assert_eq!(lengths, [2, 1]);
    }
}
