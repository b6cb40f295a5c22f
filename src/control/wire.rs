//! The words of the control socket: requests, replies, and how one message lies on the stream.
//!
//! A message is one line of JSON ended by a line feed. A caller writes one `Call` and reads `Message`s until
//! `Done` or `Failed`; then it may write the next. Both sides bound a line's length before they keep it. These
//! types are the wire's own: the store's types never appear here.

use std::io::{BufRead, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::rows::{CheckRow, GcRow, MountRow, ScrubRow, SnapshotRow, StatsRow, StatusRow, VolumeRow};
use crate::base::{Error, ErrorKind, Result, kind_name, kind_of_name};

/// Raised with every change of meaning; a server refuses another version by name.
pub(super) const PROTOCOL_VERSION: u32 = 1;
/// The longest request line.
pub(super) const CALL_BYTES_MAX: u64 = 64 << 10;
/// The longest reply line: about 100,000 snapshots.
pub(super) const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// One request with the version of the words it is made of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub version: u32,
    pub request: Request,
}

/// What a command may ask of a store, mounted or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Request {
    Status,
    VolumeCreate {
        name: String,
    },
    VolumeList,
    VolumeShow {
        name: String,
    },
    VolumeRename {
        name: String,
        new_name: String,
    },
    VolumeDestroy {
        name: String,
        with_snapshots: bool,
    },
    VolumeMount {
        name: String,
        directory: PathBuf,
    },
    VolumeQuota {
        name: String,
        quota: Option<Limit>,
        reservation: Option<Limit>,
    },
    SnapshotCreate {
        volume: String,
        name: String,
    },
    SnapshotList {
        volume: Option<String>,
    },
    SnapshotShow {
        volume: String,
        name: String,
    },
    SnapshotDestroy {
        volume: String,
        name: String,
    },
    SnapshotHold {
        volume: String,
        name: String,
        tag: String,
    },
    SnapshotRelease {
        volume: String,
        name: String,
        tag: String,
    },
    /// The snapshots of a volume that are held: cheap, without figures.
    SnapshotHolds {
        volume: String,
    },
    CloneCreate {
        volume: String,
        snapshot: String,
        name: String,
    },
    StoreStats,
    /// `rate`: bytes a second, 0 for as fast as it goes; absent for the usual.
    StoreGc {
        rate: Option<u64>,
    },
    StoreScrub {
        rate: Option<u64>,
    },
    StoreCheck,
    Unmount {
        directory: PathBuf,
    },
}

impl Request {
    /// What is asked, and of which object, for an error that does not name it: `create volume alpha`.
    pub fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Status => ("tell the status of", "the store".into()),
            Self::VolumeCreate { name } => ("create volume", name.clone()),
            Self::VolumeList => ("list", "volumes".into()),
            Self::VolumeShow { name } => ("show volume", name.clone()),
            Self::VolumeRename { name, .. } => ("rename volume", name.clone()),
            Self::VolumeDestroy { name, .. } => ("destroy volume", name.clone()),
            Self::VolumeMount { name, .. } => ("mount volume", name.clone()),
            Self::VolumeQuota { name, .. } => ("set limits of volume", name.clone()),
            Self::SnapshotCreate { volume, name } => ("create snapshot", format!("{volume}@{name}")),
            Self::SnapshotList { .. } => ("list", "snapshots".into()),
            Self::SnapshotShow { volume, name } => ("show snapshot", format!("{volume}@{name}")),
            Self::SnapshotDestroy { volume, name } => ("destroy snapshot", format!("{volume}@{name}")),
            Self::SnapshotHold { volume, name, .. } => ("hold snapshot", format!("{volume}@{name}")),
            Self::SnapshotRelease { volume, name, .. } => ("release snapshot", format!("{volume}@{name}")),
            Self::SnapshotHolds { volume } => ("list the held snapshots of", volume.clone()),
            Self::CloneCreate { name, .. } => ("create clone", name.clone()),
            Self::StoreStats => ("tell the figures of", "the store".into()),
            Self::StoreGc { .. } => ("collect in", "the store".into()),
            Self::StoreScrub { .. } => ("scrub", "the store".into()),
            Self::StoreCheck => ("check", "the store".into()),
            Self::Unmount { directory } => ("unmount", directory.display().to_string()),
        }
    }
}

/// A limit's new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    None,
    Bytes(u64),
}

impl Limit {
    /// The limit in bytes, if there is one.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

/// What a server sends: any number of `Progress`, then one of the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    Progress(Progress),
    Done(Reply),
    Failed {
        kind: String,
        message: String,
        /// What to do about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

impl Message {
    /// An error for the other side.
    pub fn failed(error: &Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self::Failed { kind: kind_name(error.kind()).into(), message: error.message().into(), hint }
    }
}

/// The error that the other side told.
pub fn told_error(kind: &str, message: String, hint: Option<String>) -> Error {
    let error = Error::new(kind_of_name(kind), message);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// How far a long operation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, for a person.
    pub step: String,
    pub done: u64,
    /// Absent while it is unknown.
    pub total: Option<u64>,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Done,
    Status(StatusRow),
    Volume(VolumeRow),
    Volumes(Vec<VolumeRow>),
    Snapshot(SnapshotRow),
    Snapshots(Vec<SnapshotRow>),
    /// Names of snapshots with the names they are held by.
    Holds(Vec<(String, Vec<String>)>),
    Stats(StatsRow),
    Gc(GcRow),
    Scrub(ScrubRow),
    Check(CheckRow),
    Mounted(MountRow),
    /// The mount is gone. `ending`: it was the last, the store is closed and the process ends.
    Unmounted {
        ending: bool,
    },
}

/// Writes one message and its line end.
pub(super) fn write_line<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<()> {
    let mut line = serde_json::to_vec(message)
        .map_err(|e| Error::with_source(ErrorKind::Io, format!("cannot encode a control message: {e}"), e))?;
    line.push(b'\n');
    stream
        .write_all(&line)
        .and_then(|()| stream.flush())
        .map_err(|e| Error::io("write to", "the control socket", e))
}

/// Reads one message of at most `bytes_max` bytes; `None` when the other side closed between messages.
pub(super) fn read_line<T: DeserializeOwned>(stream: &mut impl BufRead, bytes_max: u64) -> Result<Option<T>> {
    let mut line = Vec::new();
    stream
        .by_ref()
        .take(bytes_max)
        .read_until(b'\n', &mut line)
        .map_err(|e| Error::io("read from", "the control socket", e))?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let got = line.len();
        return Err(Error::new(
            ErrorKind::Io,
            format!("the control socket sent {got} bytes without a line end: cut off, or over {bytes_max}"),
        ));
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|e| Error::invalid(format!("the control socket sent what is no message: {e}")))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_call_survives_the_wire() {
        let request = Request::VolumeQuota {
            name: "a\nb".into(),
            quota: Some(Limit::Bytes(u64::MAX)),
            reservation: Some(Limit::None),
        };
        let mut stream = Vec::new();
        write_line(&mut stream, &Call { version: PROTOCOL_VERSION, request: request.clone() }).unwrap();
        assert_eq!(stream.iter().filter(|byte| **byte == b'\n').count(), 1);
        let mut reader = Cursor::new(stream);
        let call: Call = read_line(&mut reader, CALL_BYTES_MAX).unwrap().unwrap();
        assert_eq!(call.request, request);
        assert!(read_line::<Call>(&mut reader, CALL_BYTES_MAX).unwrap().is_none());
    }

    #[test]
    fn a_long_or_cut_line_is_refused() {
        let mut long = Cursor::new(vec![b'x'; 100]);
        assert_eq!(read_line::<Call>(&mut long, 10).unwrap_err().kind(), ErrorKind::Io);
        let mut cut = Cursor::new(b"{\"version\":1".to_vec());
        assert_eq!(read_line::<Call>(&mut cut, 100).unwrap_err().kind(), ErrorKind::Io);
        let mut noise = Cursor::new(b"noise\n".to_vec());
        assert_eq!(read_line::<Call>(&mut noise, 100).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
