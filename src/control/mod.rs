//! The control socket: how a command reaches the process that holds the store.
//!
//! `Operations` is the one way to ask for something; it is served by a store opened in this process
//! (`direct`), by the mounting process (`mounted`), and by a client of that process's socket (`client`), so a
//! command never knows which. Knows no arguments and no terminal.

mod client;
mod direct;
mod holder;
mod host;
mod mounts;
mod operations;
mod perform;
mod remote;
mod rows;
mod server;
mod upkeep;
mod volumes;
mod wire;

pub use client::{Client, connect_socket};
pub use direct::Direct;
pub use holder::Holder;
pub use host::{Host, HostOptions};
pub use operations::{Operations, ProgressSink};
pub use remote::Remote;
pub use rows::{
    CheckRow, FindingRow, GcRow, MountRow, RequestsRow, ScrubRow, SnapshotRow, StatsRow, StatusRow, VolumeRow,
};
pub use server::{HttpHandler, Server};
pub use volumes::HostVolumes;
pub use wire::{Limit, Message, Progress, Reply, Request, told_error};

/// The socket's name in the store's directory.
pub const SOCKET_NAME: &str = "control.sock";
/// That of a process that mounts the store for a daemon, which has `SOCKET_NAME` for itself.
pub const MOUNT_SOCKET_NAME: &str = "mount.sock";
