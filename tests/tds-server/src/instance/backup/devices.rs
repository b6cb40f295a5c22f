//! The devices of a backup: appending to a media set, a new one, and writing the stripes.

use std::path::Path;

use super::Job;
use crate::instance::catalogue::{Outcome, fail, system_error_text};
use crate::instance::database::Transaction;
use crate::instance::media::{self, MediaHead, SetHead};
use crate::instance::state::State;
use crate::instance::value::Guid;

/// The media set of the devices. Errors: 3098, 3132, 3201, 3231, 3241.
pub(super) fn media_for(state: &mut State, job: &Job) -> Outcome<(Vec<MediaHead>, bool, i32)> {
    let existing: Vec<&String> =
        job.disks.iter().filter(|path| std::fs::metadata(path).is_ok_and(|found| found.len() > 0)).collect();
    if job.format || existing.is_empty() {
        return Ok((new_media(state, job), true, 1));
    }
    let found = media::gather(&job.disks, false)?;
    let families = usize::from(found.media.families);
    if families != job.disks.len() {
        return Err(fail(3231, &[&job.disks[0], &families, &job.disks.len()]));
    }
    if job.init {
        return Ok((new_media(state, job), true, 1));
    }
    if found.media.compressed != job.compressed {
        let option = if job.compressed { "WITH COMPRESSION" } else { "WITH NO_COMPRESSION" };
        let other = if job.compressed { "WITH NO_COMPRESSION" } else { "WITH COMPRESSION" };
        return Err(fail(3098, &[&option, &option, &other]));
    }
    let heads = found.stripes.into_iter().map(|(_, head)| head).collect();
    Ok((heads, false, i32::try_from(found.sets.len()).unwrap_or(i32::MAX).saturating_add(1)))
}

fn new_media(state: &mut State, job: &Job) -> Vec<MediaHead> {
    let media_set = state.guid();
    let families = u8::try_from(job.disks.len()).unwrap_or(u8::MAX);
    let head = |family| MediaHead {
        media_set,
        families,
        family,
        family_guid: Guid::default(),
        compressed: job.compressed,
        written: 0,
    };
    let mut heads: Vec<MediaHead> = (1..=families).map(head).collect();
    heads.iter_mut().for_each(|head| head.family_guid = state.guid());
    heads
}

/// Spreads the rows over the stripes. Errors: 3201, 3202.
pub(super) fn write_stripes(
    job: &Job,
    stripes: &[MediaHead],
    fresh: bool,
    heads: &[SetHead],
    rows: &[Transaction],
    durable: bool,
) -> Outcome<()> {
    for (index, (path, media)) in job.disks.iter().zip(stripes).enumerate() {
        let part = rows.iter().enumerate().filter(|(row, _)| row % stripes.len() == index);
        let part: Vec<Transaction> = part.map(|(_, row)| row.clone()).collect();
        let written = media::write(path, fresh.then_some(media), heads, &part, durable);
        if let Err(error) = written {
            let not_opened =
                [Some(2), Some(13), Some(20), Some(21), Some(30)].contains(&error.raw_os_error());
            if fresh && Path::new(path).is_file() {
                let _gone = std::fs::remove_file(path);
            }
            let reason = system_error_text(&error);
            return Err(if not_opened {
                media::cannot_open(path, &error)
            } else {
                fail(3202, &[path, &reason])
            });
        }
    }
    Ok(())
}
