//! What retention makes of restore points, and from where to where points can be reached.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::super::Span;
use super::super::super::backups::{BackupMade, PointVerdict};
use super::super::Guid;
use super::super::plan_text::time;
use super::super::retention::{BackupDecision, keep};
use super::look::{Known, known};
use super::restore;
use crate::base::Result;
use crate::schedule::RetentionPolicy;

pub(super) fn judge(
    made: &[BackupMade],
    policy: &RetentionPolicy,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<Vec<PointVerdict>> {
    let all = known(made)?;
    // A renamed database is the same one.
    let mut families: BTreeMap<(Guid, String), Vec<&Known<'_>>> = BTreeMap::new();
    for one in &all {
        let family = one.recorded.backup.family_id;
        let name = if family == Guid::NONE { one.recorded.database.clone() } else { String::new() };
        families.entry((family, name)).or_default().push(one);
    }
    let mut verdicts = Vec::new();
    for known in families.values() {
        let ids: BTreeMap<Guid, u64> =
            known.iter().map(|one| (one.recorded.backup.id, one.made.id)).collect();
        for verdict in keep(&restore::chain_of(known), policy, zone, now) {
            let Some(id) = ids.get(&verdict.id).copied() else { continue };
            let (kept, broken, reasons) = match verdict.decision {
                BackupDecision::Keep(reasons) => {
                    (true, false, reasons.iter().map(ToString::to_string).collect())
                }
                BackupDecision::Remove => (false, false, vec!["no rule of the policy keeps it".to_owned()]),
                BackupDecision::Broken(why) => (false, true, vec![why]),
            };
            verdicts.push(PointVerdict { id, kept, reasons, broken });
        }
    }
    verdicts.sort_by_key(|verdict| verdict.id);
    Ok(verdicts)
}

pub(super) fn spans(made: &[BackupMade], database: &str) -> Result<Span> {
    let chain = restore::chain(made, database)?;
    let spans = chain.spans();
    let first = spans.iter().map(|span| span.from).min_by_key(|point| point.ms);
    let last = spans.iter().map(|span| span.to).max_by_key(|point| (point.ms, point.lsn));
    let shown = |ms: i64| time(ms, &TimeZone::UTC);
    Ok(Span {
        earliest_time: first.map(|point| shown(point.ms)),
        earliest_place: first.map(|point| point.lsn.to_string()),
        latest_time: last.map(|point| shown(point.ms)),
        latest_place: last.map(|point| point.lsn.to_string()),
        can_sync: false,
        gaps: chain.gaps().iter().map(|gap| gap.describe(&TimeZone::UTC)).collect(),
    })
}
