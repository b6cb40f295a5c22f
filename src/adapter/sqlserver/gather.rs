//! From the files of a folder to backups: stripes of one backup put together, copies of one file counted once.
//!
//! Files belong to one backup when their sets have the same id. That they are different stripes is told by the media family's number on the
//! label, which is measured for backups onto one file only: when labels contradict each other nothing is guessed, and the backup
//! is told to be unclear, for a server to be asked by RESTORE LABELONLY. Invariant: each file is in a backup, or in a
//! problem. Must not know how files are found.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use super::chain::{Backup, Stripe};
use super::guid::Guid;
use super::tape::{BackupFile, BackupSet, Media, SetKind};

/// What a folder's files come to.
#[derive(Debug, Default)]
pub struct Gathered {
    /// By database as the sets name it.
    pub databases: BTreeMap<String, Vec<Backup>>,
    /// File and what keeps it, or a set of it, from being used.
    pub problems: Vec<(String, String)>,
}

/// A set in one file.
struct Found<'a> {
    file: &'a str,
    media: &'a Media,
    set: &'a BackupSet,
}

/// Puts together what was read of these files, each under the name by which a server is to open it. `zone_quarters`
/// stands in for sets that do not know their time zone.
pub fn gather<F: Borrow<BackupFile>>(files: &[(String, F)], zone_quarters: Option<i8>) -> Gathered {
    let mut gathered = Gathered::default();
    // By set and place in the file: one media set may have several backups.
    let mut sets: BTreeMap<(Guid, u16), Vec<Found<'_>>> = BTreeMap::new();
    for (name, file) in files {
        let file: &BackupFile = file.borrow();
        if let Some(problem) = &file.problem {
            gathered.problems.push((name.clone(), problem.to_string()));
        }
        for set in &file.sets {
            sets.entry((set.id, set.position)).or_default().push(Found {
                file: name,
                media: &file.media,
                set,
            });
        }
    }
    for found in sets.into_values() {
        match backup(&found, zone_quarters) {
            Ok(backup) => gathered.databases.entry(found[0].set.database.clone()).or_default().push(backup),
            Err(why) => {
                gathered.problems.extend(found.iter().map(|found| (found.file.to_owned(), why.clone())))
            }
        }
    }
    gathered
}

fn backup(found: &[Found<'_>], zone_quarters: Option<i8>) -> Result<Backup, String> {
    // The whole ones describe a set best.
    let best = found.iter().find(|found| found.set.complete).unwrap_or(&found[0]);
    let set = best.set;
    if !matches!(set.kind, SetKind::Full | SetKind::Differential | SetKind::Log) {
        return Err(format!(
            "set {} backs up single files or filegroups, which make no restore of a whole database",
            set.position
        ));
    }
    let mut families: BTreeMap<u16, &Found<'_>> = BTreeMap::new();
    let mut count = 1;
    for found in found {
        let family = found.media.family.unwrap_or(1);
        count = count.max(found.media.families.unwrap_or(1));
        match families.get(&family) {
            Some(known) if known.media.family_id != found.media.family_id => {
                return Err(format!(
                    "set {} is in {} and {}, which both call themselves stripe {family}: ask a server with RESTORE \
                     LABELONLY which they are",
                    set.position, known.file, found.file
                ));
            }
            // Of copies of one file a whole one is taken.
            Some(known) if known.set.complete || !found.set.complete => {}
            _ => drop(families.insert(family, found)),
        }
    }
    let damaged = families.values().any(|found| !found.set.complete);
    let stripes =
        families.iter().map(|(family, found)| Stripe { family: *family, file: found.file.to_owned() });
    let zone = set.zone_quarters.or(zone_quarters);
    let ms = |time: Option<super::tape::LocalTime>| time.and_then(|time| time.utc_ms(zone));
    let times = ms(set.started).zip(ms(set.finished.or(set.started)));
    let backup = Backup::of_set(set, stripes.collect(), count, times);
    let mut backup = backup
        .ok_or_else(|| format!("set {} does not know its time zone, or when it was made", set.position))?;
    backup.damaged |= damaged;
    Ok(backup)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::chain::Unusable;
    use super::super::tape::read;
    use super::super::tape::writer::{SetSpec, write};
    use super::*;

    /// A file of a media set of so many families.
    fn file(name: &str, spec: &SetSpec, family: u16, families: u16, family_id: u32) -> (String, BackupFile) {
        let mut file = read(Cursor::new(write(std::slice::from_ref(spec)))).unwrap();
        (file.media.family, file.media.families, file.media.family_id) =
            (Some(family), Some(families), family_id);
        (name.to_owned(), file)
    }

    #[test]
    fn stripes_come_together_and_a_missing_one_is_known() {
        let spec = SetSpec::default();
        let files = [file("b", &spec, 2, 3, 20), file("a", &spec, 1, 3, 10)];
        let gathered = gather(&files, None);
        let backups = &gathered.databases["sales"];
        assert_eq!(backups.len(), 1);
        let names: Vec<_> =
            backups[0].stripes.iter().map(|stripe| (stripe.family, stripe.file.as_str())).collect();
        assert_eq!(names, [(1, "a"), (2, "b")]);
        assert_eq!(backups[0].unusable(), Some(Unusable::MissingStripes(vec![3])));
    }

    #[test]
    fn a_copy_counts_once_and_a_whole_one_goes_before_a_cut_one() {
        let spec = SetSpec::default();
        let whole = file("whole", &spec, 1, 1, 10);
        let mut cut = file("cut", &spec, 1, 1, 10);
        cut.1.sets[0].complete = false;
        for files in [[cut, whole], [file("whole", &spec, 1, 1, 10), file("other", &spec, 1, 1, 10)]] {
            let gathered = gather(&files, None);
            let backup = &gathered.databases["sales"][0];
            assert_eq!((backup.stripes[0].file.as_str(), backup.unusable()), ("whole", None));
        }
    }

    #[test]
    fn labels_that_contradict_each_other_are_not_guessed_at() {
        let spec = SetSpec::default();
        let gathered = gather(&[file("a", &spec, 1, 1, 10), file("b", &spec, 1, 1, 20)], None);
        assert!(gathered.databases.is_empty());
        assert_eq!(gathered.problems.len(), 2);
        assert!(gathered.problems[0].1.contains("RESTORE LABELONLY"), "{:?}", gathered.problems);
    }

    #[test]
    fn an_unknown_zone_needs_one_and_single_files_are_told() {
        let spec = SetSpec { zone: 127, ..SetSpec::default() };
        let files = [file("a", &spec, 1, 1, 10)];
        assert!(gather(&files, None).problems[0].1.contains("time zone"));
        let known = gather(&files, Some(4));
        let other = gather(&[file("a", &SetSpec::default(), 1, 1, 10)], None);
        assert_eq!(known.databases["sales"][0].finished_ms, other.databases["sales"][0].finished_ms);
        let spec = SetSpec { letter: b'F', ..SetSpec::default() };
        assert!(gather(&[file("a", &spec, 1, 1, 10)], None).problems[0].1.contains("filegroups"));
    }
}
