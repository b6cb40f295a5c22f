//! Verifying a snapshot: PostgreSQL's own checks of a throw-away clone of it, first running, then shut down.

use std::path::Path;

use super::super::{Task, Verified};
use super::controldata::ControlData;
use super::program::{self, Programs, end_of};
use super::server::Server;
use crate::base::{Error, ErrorKind, Result};

const AMCHECK: &str = "pg_amcheck";
const CHECKSUMS: &str = "pg_checksums";
/// What `pg_amcheck` ends with when it found damage.
const AMCHECK_FOUND: i32 = 2;
/// What `pg_checksums` ends with when a page is bad; also when it cannot run.
const CHECKSUMS_FOUND: i32 = 1;
const PAGE_BYTES: u64 = 8192;
/// Findings that are kept; how many there were in all is told.
const FINDINGS_MAX: usize = 50;

/// Checks every table and B-tree of a running clone, and then, shut down, every page's checksum.
pub(super) fn verify(server: &Server<'_>, task: &mut dyn Task) -> Result<Verified> {
    let mut verified = Verified::default();
    if server.programs.has(AMCHECK) {
        task.step("check tables and indexes")?;
        amcheck(server, &mut verified, task)?;
    } else {
        verified
            .left_out
            .push(format!("{AMCHECK} is not among the programs of PostgreSQL {}", server.config.major));
    }
    task.step("shut down")?;
    server.stop(task)?;
    let data = server.data();
    let control = ControlData::read(&server.programs, &data)?;
    if control.number::<u32>("Data page checksum version")? == 0 {
        verified.left_out.push("pages have no checksums: the cluster was made without them".into());
    } else if server.programs.has(CHECKSUMS) {
        task.step("check the pages' checksums")?;
        checksums(&server.programs, &data, &mut verified, task)?;
    } else {
        verified.left_out.push(format!("{CHECKSUMS} is not among the programs of this installation"));
    }
    Ok(verified)
}

fn amcheck(server: &Server<'_>, verified: &mut Verified, task: &mut dyn Task) -> Result<()> {
    // As this process, whom the server's socket lets in.
    let mut command = std::process::Command::new(server.programs.folder.join(AMCHECK));
    command.arg("-h").arg(server.sockets()).arg("-p").arg(server.instance.port.to_string());
    command.arg("-U").arg(&server.config.superuser).args(["--maintenance-db", "postgres", "--no-password"]);
    // What the clone is changed by ends with it, so that indexes may be checked under locks.
    command.args(["--all", "--install-missing", "--heapallindexed", "--parent-check", "--progress"]);
    let ended = program::run_to_end(&mut command, task, &mut |line, task| {
        if let Some((done, total)) = pages_of(line) {
            task.bytes(done * PAGE_BYTES, Some(total * PAGE_BYTES));
        }
    })?;
    let code = ended.status.code();
    if !ended.status.success() && code != Some(AMCHECK_FOUND) {
        return Err(failed(AMCHECK, &ended));
    }
    verified.checks.push(format!("{AMCHECK} --all --heapallindexed --parent-check"));
    let before = verified.problems.len();
    // A finding is a line that names its place, and lines that tell it.
    let lines = ended.said.lines().map(str::trim).filter(|line| !line.is_empty());
    take_problems(verified, lines);
    if code == Some(AMCHECK_FOUND) && verified.problems.len() == before {
        verified.problems.push(format!("{AMCHECK} tells of damage: {}", end_of(&ended.heard)));
    }
    Ok(())
}

fn checksums(programs: &Programs, data: &Path, verified: &mut Verified, task: &mut dyn Task) -> Result<()> {
    let mut command = programs.command(CHECKSUMS);
    command.args(["--check", "-D"]).arg(data);
    let ended = program::run_to_end(&mut command, task, &mut |_, _| {})?;
    let bad = |line: &&str| line.contains("checksum verification failed");
    let found = ended.heard.lines().filter(bad).count();
    if !ended.status.success() && (ended.status.code() != Some(CHECKSUMS_FOUND) || found == 0) {
        return Err(failed(CHECKSUMS, &ended));
    }
    verified.checks.push(format!("{CHECKSUMS} --check"));
    take_problems(verified, ended.heard.lines().filter(bad));
    Ok(())
}

fn take_problems<'a>(verified: &mut Verified, lines: impl Iterator<Item = &'a str>) {
    let mut more = 0_u64;
    for line in lines {
        if verified.problems.len() < FINDINGS_MAX {
            verified.problems.push(line.to_owned());
        } else {
            more += 1;
        }
    }
    if more > 0 {
        verified.problems.push(format!("and {more} more lines"));
    }
}

fn failed(program: &str, ended: &program::Ended) -> Error {
    let text = format!("{program} failed ({}); it said:\n{}", ended.status, end_of(&ended.heard));
    Error::new(ErrorKind::Failed, text)
}

/// Pages done and in all, of a line such as `12/345 relations (3%), 67/890 pages (7%)`.
fn pages_of(line: &str) -> Option<(u64, u64)> {
    let counts = line.split(',').find(|part| part.contains("pages"))?;
    let (done, total) = counts.trim().split(' ').next()?.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read() {
        assert_eq!(pages_of("   3/1234 relations (  0%),   567/89012 pages (  0%)"), Some((567, 89012)));
        assert_eq!(pages_of("3/1234 relations"), None);
        assert_eq!(pages_of("x/y pages"), None);
    }

    #[test]
    fn findings_are_bounded_and_counted() {
        let mut verified = Verified::default();
        let lines: Vec<String> = (0..FINDINGS_MAX + 7).map(|line| format!("line {line}")).collect();
        take_problems(&mut verified, lines.iter().map(String::as_str));
        assert_eq!(verified.problems.len(), FINDINGS_MAX + 1);
        assert_eq!(verified.problems.last().unwrap(), "and 7 more lines");
    }
}
