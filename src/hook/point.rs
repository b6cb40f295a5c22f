//! The points of an operation at which a hook may run.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};

/// What a hook belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetKind {
    #[serde(rename = "dsource")]
    DSource,
    Vdb,
}

/// A named point of an operation on a dSource or VDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookPoint {
    PreSync,
    PostSync,
    PreLogSync,
    /// After ingestion on a dSource.
    PreSnapshot,
    PostSnapshot,
    ConfigureClone,
    PreRefresh,
    PostRefresh,
    PreRewind,
    PostRewind,
    PreStart,
    PostStart,
    PreStop,
    PostStop,
}

use HookPoint as P;

const DSOURCE_POINTS: [HookPoint; 5] =
    [P::PreSync, P::PostSync, P::PreLogSync, P::PreSnapshot, P::PostSnapshot];
const VDB_POINTS: [HookPoint; 11] = [
    P::ConfigureClone,
    P::PreRefresh,
    P::PostRefresh,
    P::PreRewind,
    P::PostRewind,
    P::PreSnapshot,
    P::PostSnapshot,
    P::PreStart,
    P::PostStart,
    P::PreStop,
    P::PostStop,
];

impl HookPoint {
    /// The points of a kind of dataset, in the order of an operation.
    pub fn all(kind: DatasetKind) -> &'static [Self] {
        match kind {
            DatasetKind::DSource => &DSOURCE_POINTS,
            DatasetKind::Vdb => &VDB_POINTS,
        }
    }

    /// The point of this name. `Invalid` lists the names that a dataset of this kind has.
    pub fn parse(kind: DatasetKind, name: &str) -> Result<Self> {
        let found = Self::all(kind).iter().find(|point| point.name() == name);
        found.copied().ok_or_else(|| Self::unknown(kind, name))
    }

    /// `Invalid`, with the list, when a dataset of this kind has no such point.
    pub fn check(self, kind: DatasetKind) -> Result<()> {
        if Self::all(kind).contains(&self) { Ok(()) } else { Err(Self::unknown(kind, self.name())) }
    }

    fn unknown(kind: DatasetKind, name: &str) -> Error {
        let known: Vec<&str> = Self::all(kind).iter().map(|point| point.name()).collect();
        Error::invalid(format!("a {kind} has no hook point {name:?}; it has {}", known.join(", ")))
    }

    /// The name in configuration and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            P::PreSync => "pre_sync",
            P::PostSync => "post_sync",
            P::PreLogSync => "pre_log_sync",
            P::PreSnapshot => "pre_snapshot",
            P::PostSnapshot => "post_snapshot",
            P::ConfigureClone => "configure_clone",
            P::PreRefresh => "pre_refresh",
            P::PostRefresh => "post_refresh",
            P::PreRewind => "pre_rewind",
            P::PostRewind => "post_rewind",
            P::PreStart => "pre_start",
            P::PostStart => "post_start",
            P::PreStop => "pre_stop",
            P::PostStop => "post_stop",
        }
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for DatasetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DSource => "dSource",
            Self::Vdb => "VDB",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_everywhere() {
        for kind in [DatasetKind::DSource, DatasetKind::Vdb] {
            for point in HookPoint::all(kind) {
                assert_eq!(serde_json::to_string(point).unwrap(), format!("\"{point}\""));
                assert_eq!(HookPoint::parse(kind, point.name()).unwrap(), *point);
                assert!(point.check(kind).is_ok());
            }
        }
    }

    #[test]
    fn a_wrong_point_gets_the_list_of_its_kind() {
        let error = HookPoint::parse(DatasetKind::DSource, "pre_start").unwrap_err();
        assert_eq!(
            error.message(),
            "a dSource has no hook point \"pre_start\"; it has pre_sync, post_sync, pre_log_sync, pre_snapshot, \
             post_snapshot"
        );
        assert!(
            P::PreSync
                .check(DatasetKind::Vdb)
                .unwrap_err()
                .message()
                .contains("configure_clone, pre_refresh")
        );
    }
}
