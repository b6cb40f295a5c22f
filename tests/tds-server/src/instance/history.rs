//! msdb: what was backed up and restored.

use super::media::{MediaHead, SetHead};
use super::value::{Guid, Lsn};

/// A media set: `backupmediaset` and its `backupmediafamily` rows.
#[derive(Clone, Debug)]
pub(crate) struct MediaRow {
    pub id: i32,
    pub head: MediaHead,
    /// Family number, GUID and path of each stripe.
    pub families: Vec<(u8, Guid, String)>,
}

/// A row of `backupset`.
#[derive(Clone, Debug)]
pub(crate) struct SetRow {
    pub id: i32,
    pub media_id: i32,
    pub position: i32,
    pub head: SetHead,
}

/// A row of `restorehistory` with its `restorefile` rows.
#[derive(Clone, Debug)]
pub(crate) struct RestoreRow {
    pub id: i32,
    /// Nanoseconds since 1970.
    pub date: i64,
    pub database: String,
    pub user: String,
    pub set_id: i32,
    /// `D`, `I`, `L` or `V`.
    pub kind: &'static str,
    pub replace: bool,
    pub recovery: bool,
    /// Nanoseconds since 1970.
    pub stop_at: Option<i64>,
    pub stop_mark: Option<String>,
    pub stop_before: bool,
    pub devices: u8,
    pub files: Vec<(i32, String)>,
}

/// A row of `logmarkhistory`.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub database: String,
    pub mark: String,
    pub description: String,
    pub user: String,
    pub lsn: Lsn,
    /// Nanoseconds since 1970.
    pub time: i64,
}

/// The tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub media: Vec<MediaRow>,
    pub sets: Vec<SetRow>,
    pub restores: Vec<RestoreRow>,
    pub marks: Vec<Mark>,
}

fn next(ids: impl Iterator<Item = i32>) -> i32 {
    ids.max().unwrap_or(0) + 1
}

impl History {
    /// Adds a backup set and its media where they are not known yet; the set's id.
    pub(crate) fn add_set(&mut self, stripes: &[(String, MediaHead)], position: i32, head: &SetHead) -> i32 {
        let Some((_, media)) = stripes.first() else {
            return 0;
        };
        let families: Vec<_> =
            stripes.iter().map(|(path, head)| (head.family, head.family_guid, path.clone())).collect();
        let known = self.media.iter().find(|row| row.head.media_set == media.media_set);
        let same_place = known.filter(|row| row.families == families).map(|row| row.id);
        let media_id = same_place.or(known.map(|row| row.id)).unwrap_or_else(|| {
            let id = next(self.media.iter().map(|row| row.id));
            self.media.push(MediaRow { id, head: media.clone(), families });
            id
        });
        if let Some(row) =
            self.sets.iter().find(|row| row.head.guid == head.guid && row.head.database == head.database)
        {
            return row.id;
        }
        let id = next(self.sets.iter().map(|row| row.id));
        self.sets.push(SetRow { id, media_id, position, head: head.clone() });
        id
    }

    /// Adds a restore; its `id` is given here.
    pub(crate) fn add_restore(&mut self, row: RestoreRow) {
        let id = next(self.restores.iter().map(|row| row.id));
        self.restores.push(RestoreRow { id, ..row });
    }
}
