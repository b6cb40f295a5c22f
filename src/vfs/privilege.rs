//! Set-id bits and file capabilities: when POSIX and Linux take them away. Pure rules.
//!
//! The kernel leaves this to us (it is asked to, for otherwise it reads an extended attribute before every
//! write), but tells only of `write` whether the writer may keep them. Elsewhere uid 0 stands for
//! `CAP_FSETID`.

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o0010;

/// The extended attribute that holds a file's capabilities.
pub(crate) const CAPABILITY_XATTR: &[u8] = b"security.capability";

/// Whether a file has set-id bits that a write would take away.
pub(crate) fn has_set_id(mode: u32) -> bool {
    cleared(mode) != mode
}

/// The mode after a write or truncate by someone without the right to keep set-id bits. Set-gid without group
/// execution once meant mandatory locking, and is kept.
pub(crate) fn cleared(mode: u32) -> u32 {
    let mut mode_after = mode & !SET_UID;
    if mode & (SET_GID | GROUP_EXECUTE) == SET_GID | GROUP_EXECUTE {
        mode_after &= !SET_GID;
    }
    mode_after
}

/// Whether `uid` keeps set-id bits of the files it changes.
pub(crate) fn may_keep(uid: u32) -> bool {
    uid == 0
}

/// Group and mode of something made in a directory: a set-gid directory passes on its group, and to a
/// directory the bit as well.
pub(crate) fn inherited(
    parent_mode: u32,
    parent_gid: u32,
    gid: u32,
    mode: u32,
    directory: bool,
) -> (u32, u32) {
    match (parent_mode & SET_GID != 0, directory) {
        (true, true) => (parent_gid, mode | SET_GID),
        (true, false) => (parent_gid, mode),
        (false, _) => (gid, mode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_takes_set_id_bits_away() {
        assert_eq!(cleared(0o6755), 0o755);
        assert_eq!(cleared(0o4711), 0o711);
        assert_eq!(cleared(0o2644), 0o2644);
        assert_eq!(cleared(0o1777), 0o1777);
        assert!(has_set_id(0o4644) && !has_set_id(0o2644) && !has_set_id(0o755));
    }

    #[test]
    fn set_gid_directories_pass_on_their_group() {
        assert_eq!(inherited(0o2775, 50, 100, 0o755, true), (50, 0o2755));
        assert_eq!(inherited(0o2775, 50, 100, 0o644, false), (50, 0o644));
        assert_eq!(inherited(0o775, 50, 100, 0o755, true), (100, 0o755));
    }
}
