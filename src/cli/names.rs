//! Names as arguments: checked before a store is opened. The store has the last word.

use std::str::FromStr;

use crate::volume::check_object_name;

/// A name of a volume, a snapshot or a hold.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    check_object_name(text).map_err(|e| e.message().to_owned())?;
    Ok(text.to_owned())
}

/// `VOL@NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotName {
    pub volume: String,
    pub name: String,
}

impl FromStr for SnapshotName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (volume, name) = text.split_once('@').ok_or("write a snapshot as VOLUME@NAME")?;
        Ok(Self { volume: parse_name(volume)?, name: parse_name(name)? })
    }
}

impl std::fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.volume, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "prod-1", "a.b_c"] {
            assert_eq!(parse_name(good).as_deref(), Ok(good));
        }
        for bad in ["", ".", "..", ".x", "-x", "a/b", "a@b", "a b", "a\0", "a\n", &"x".repeat(300)] {
            assert!(parse_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn snapshot_names() {
        let name: SnapshotName = "vol@one".parse().unwrap();
        assert_eq!((name.volume.as_str(), name.name.as_str()), ("vol", "one"));
        assert_eq!(name.to_string(), "vol@one");
        for bad in ["vol", "vol@", "@one", "vol@a@b", "a/b@c"] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad}");
        }
    }
}
