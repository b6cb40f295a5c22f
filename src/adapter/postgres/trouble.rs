//! What keeps a staging server from following its source, told by the end of its log and by the source: as problems
//! that say what to do.

use super::super::{Problem, Told};
use super::link::source_of;
use super::server::Server;
use super::source;
use super::sql::quote;
use crate::base::Result;

/// How much of the end of a log is looked at: a standby repeats what is wrong every few seconds.
const TAIL_BYTES: u64 = 16 << 10;
/// A slot for which the source will keep less than this is told of.
const SAFE_WAL_BYTES_MIN: i64 = 1 << 30;
/// A slot that holds back more than this fills the source's disk.
const HELD_WAL_BYTES_MAX: i64 = 16 << 30;

/// One cause: what the log says of it, the fault's code, what it means, and what to do. `{}` is the dSource.
struct Cause {
    signs: &'static [&'static str],
    code: &'static str,
    means: &'static str,
    action: &'static str,
}

const CAUSES: [Cause; 6] = [
    Cause {
        signs: &["has already been removed", "can no longer get changes", "has been invalidated"],
        code: "SOURCE_WAL_LOST",
        means: "the source no longer has the WAL that {} needs next",
        action: "supply it as files with `stillpoint dsource configure {} --wal-path DIR`, or take a new first copy with \
                 `stillpoint dsource resync {}`",
    },
    Cause {
        signs: &["replication slot \"", "\" does not exist"],
        code: "SLOT_MISSING",
        means: "the replication slot of {} is gone from the source",
        action: "`stillpoint dsource detach {} --force`, then `attach {}`; `resync` if the WAL since is gone, too",
    },
    Cause {
        signs: &[
            "forked off current database system",
            "is not a child of this server's history",
            "forked off from",
        ],
        code: "TIMELINE_FORKED",
        means: "the source went on from a place that {} was past already",
        action: "take a new first copy with `stillpoint dsource resync {}`; its snapshots stay",
    },
    Cause {
        signs: &["database system identifier differs"],
        code: "SOURCE_IS_ANOTHER",
        means: "at the address of the source of {} is another cluster now",
        action: "name the right address with `stillpoint dsource detach {}` and `attach {} --source-host …`, or resync",
    },
    Cause {
        signs: &["password authentication failed", "no password supplied", "no pg_hba.conf entry"],
        code: "SOURCE_REFUSES",
        means: "the source no longer lets the replication user of {} in",
        action: "give the new password with `stillpoint dsource configure {} --password-file FILE`, or see pg_hba.conf there",
    },
    Cause {
        signs: &["insufficient parameter settings"],
        code: LIMITS_RAISED,
        means: "the source raised a limit that {} must not be below",
        action: "the staging server is started again with it by itself",
    },
];
/// The one that a restart mends.
pub(super) const LIMITS_RAISED: &str = "SOURCE_RAISED_LIMITS";

/// Why a server that waits does so, as its log tells. Of several causes the last one counts.
pub(super) fn of_log(server: &Server<'_>) -> Option<Problem> {
    of_log_since(server, server.log_length().saturating_sub(TAIL_BYTES))
}

/// The same by what it said from a byte of its log on.
pub(super) fn of_log_since(server: &Server<'_>, start: u64) -> Option<Problem> {
    let tail = server.log_since(start);
    let (line, cause) = cause_in(&tail)?;
    let name = &server.instance.name;
    Some(Problem {
        code: cause.code.into(),
        message: format!("{}: {}", cause.means.replace("{}", name), said(line)),
        action: cause.action.replace("{}", name),
    })
}

/// The last line that tells of a cause, unless a later one tells that streaming began.
fn cause_in(tail: &str) -> Option<(&str, &'static Cause)> {
    for line in tail.lines().rev() {
        if line.contains("started streaming WAL") || line.contains("database system is ready to accept") {
            return None;
        }
        let tells = |cause: &&Cause| match cause.code {
            // Both halves: there are other things that do not exist.
            // A client of ours that is refused says the same.
            "SOURCE_REFUSES" => {
                line.contains("could not connect") && cause.signs.iter().any(|sign| line.contains(sign))
            }
            "SLOT_MISSING" => cause.signs.iter().all(|sign| line.contains(sign)),
            _ => cause.signs.iter().any(|sign| line.contains(sign)),
        };
        if let Some(cause) = CAUSES.iter().find(tells) {
            return Some((line, cause));
        }
    }
    None
}

/// A line of a log without time and process.
fn said(line: &str) -> &str {
    line.split_once("] ").map_or(line, |(_, said)| said).trim()
}

/// What the source says of the slot: how much it holds, and how long that will go well.
pub(super) fn of_source(server: &Server<'_>) -> Result<Told> {
    let config = &server.config;
    let (Some(slot), true) = (&config.slot, config.is_staging()) else { return Ok((Vec::new(), Vec::new())) };
    let address = source_of(config)?;
    let sql = source::connect(address, server.instance.secrets.get(super::config::SOURCE_PASSWORD))?;
    let later = if config.major >= 13 { "wal_status, safe_wal_size" } else { "NULL, NULL" };
    let rows = sql.rows(&format!(
        "SELECT active, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint, {later} \
         FROM pg_replication_slots WHERE slot_name = {}",
        quote(slot)
    ))?;
    let name = &server.instance.name;
    let Some(row) = rows.first() else { return Ok((Vec::new(), Vec::new())) };
    let text = |at: usize| row.get(at).cloned().flatten();
    let number = |at: usize| text(at).and_then(|text| text.parse::<i64>().ok());
    let mut facts = vec![("replication slot".to_owned(), slot.clone())];
    facts.extend(number(1).map(|bytes| ("WAL held on the source".to_owned(), format!("{bytes} bytes"))));
    Ok((facts, slot_problems(name, slot, text(2).as_deref(), number(3), number(1))))
}

fn slot_problems(
    name: &str,
    slot: &str,
    status: Option<&str>,
    safe: Option<i64>,
    held: Option<i64>,
) -> Vec<Problem> {
    let problem =
        |code: &str, message: String, action: String| Problem { code: code.into(), message, action };
    if status == Some("lost") {
        return vec![problem(
            "SOURCE_WAL_LOST",
            format!("replication slot {slot} of {name} is lost: the source has removed WAL it was to keep"),
            format!(
                "supply it as files with `stillpoint dsource configure {name} --wal-path DIR`, or take a new first copy \
                 with `stillpoint dsource resync {name}`"
            ),
        )];
    }
    if status == Some("unreserved") || safe.is_some_and(|safe| safe < SAFE_WAL_BYTES_MIN) {
        return vec![problem(
            "SLOT_AT_RISK",
            format!("the source is about to remove WAL that {name} still needs (replication slot {slot})"),
            format!(
                "see why {name} is behind with `stillpoint dsource show {name}`; raise max_slot_wal_keep_size there"
            ),
        )];
    }
    if held.is_some_and(|held| held > HELD_WAL_BYTES_MAX) {
        let gib = held.unwrap_or(0) >> 30;
        return vec![problem(
            "SLOT_HOLDS_WAL",
            format!(
                "the source keeps {gib} GiB of WAL for {name} (replication slot {slot}), which fills its disk"
            ),
            format!("start {name}, or detach it so that the slot goes"),
        )];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_by_their_last_sign() {
        let code = |tail: &str| cause_in(tail).map(|(_, cause)| cause.code);
        let lost = "2026-11-21 [1] FATAL:  could not receive data from WAL stream: ERROR:  requested WAL segment \
                    000000010000000000000003 has already been removed";
        let password = "2026-11-21 [2] FATAL:  could not connect to the primary server: FATAL:  password authentication failed for user \"r\"";
        let slot = "2026-11-21 [3] FATAL:  could not start WAL streaming: ERROR:  replication slot \"s\" does not exist";
        assert_eq!(code(&format!("{lost}\n{password}")), Some("SOURCE_REFUSES"));
        assert_eq!(code(&format!("{password}\n{lost}\n")), Some("SOURCE_WAL_LOST"));
        assert_eq!(code(slot), Some("SLOT_MISSING"));
        assert_eq!(code("[5] FATAL:  password authentication failed for user \"app\""), None);
        assert_eq!(code("ERROR:  relation \"x\" does not exist"), None);
        assert_eq!(code(&format!("{lost}\n[4] LOG:  started streaming WAL from primary at 0/3000000")), None);
        assert!(said(lost).starts_with("FATAL:"));
    }

    #[test]
    fn slots_are_told_of_before_they_are_lost() {
        let codes = |status, safe, held| -> Vec<String> {
            slot_problems("shop", "s", status, safe, held).into_iter().map(|problem| problem.code).collect()
        };
        assert_eq!(codes(Some("reserved"), None, Some(1 << 20)), Vec::<String>::new());
        assert_eq!(codes(Some("extended"), Some(1 << 20), Some(1 << 20)), ["SLOT_AT_RISK"]);
        assert_eq!(codes(Some("unreserved"), None, None), ["SLOT_AT_RISK"]);
        assert_eq!(codes(Some("lost"), None, None), ["SOURCE_WAL_LOST"]);
        assert_eq!(codes(None, None, Some(20 << 30)), ["SLOT_HOLDS_WAL"]);
    }
}
