//! Whether a port is free, and else who has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::super::context::Context;
use super::Finding;
use crate::api::Dataset;

/// The state of a listening socket in the kernel's tables.
const LISTENING: &str = "0A";

/// A listening socket.
#[derive(Debug, PartialEq, Eq)]
struct Listener {
    address: SocketAddr,
    inode: u64,
}

pub(super) fn free(port: u16, context: &Context) -> Finding {
    const CHECK: &str = "port";
    if let Some(name) = dataset_at(port, context) {
        return Finding::warning(
            CHECK,
            format!("{port} belongs to {name}: each dataset has its own"),
            "choose another port",
        );
    }
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let listeners = tables.iter().flat_map(|table| table.lines().filter_map(parse_listener));
    let Some(listener) = listeners.into_iter().find(|listener| listener.address.port() == port) else {
        return Finding::ok(CHECK, format!("{port} is free"));
    };
    let who = owner(listener.inode)
        .map_or_else(|| "another process".to_owned(), |(pid, name)| format!("process {pid} ({name})"));
    Finding::warning(
        CHECK,
        format!("{who} listens at {}", listener.address),
        "choose another port, or end that process",
    )
}

/// The dataset of a running daemon that has a port, running or not.
fn dataset_at(port: u16, context: &Context) -> Option<String> {
    context.store().ok()?;
    let client = context.api().ok()?;
    let lists = ["/v1/dsources", "/v1/vdbs"].map(|path| client.get::<Vec<Dataset>>(path).unwrap_or_default());
    lists.into_iter().flatten().find(|dataset| dataset.port == port).map(|dataset| dataset.name)
}

/// A line of `/proc/net/tcp` or `tcp6`, if it is a listening socket's.
fn parse_listener(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else { return None };
    if state != LISTENING {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let address = SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?);
    Some(Listener { address, inode: inode.parse().ok()? })
}

/// Words of 32 bits, each in the host's byte order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for at in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    let v6 = <[u8; 16]>::try_from(bytes.as_slice()).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)));
    v4.or(v6).ok()
}

/// The process that has a socket, and its name; as far as this user may see.
fn owner(inode: u64) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    let has = |process: &Path| {
        let descriptors = std::fs::read_dir(process.join("fd")).ok()?;
        let mut links = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.any(|link| link.as_os_str() == wanted.as_str()).then_some(())
    };
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        has(&entry.path())?;
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some((pid, name.trim().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_tables_of_the_kernel_are_read() {
        let line = "   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 4242 1 0";
        let expected = Listener { address: "127.0.0.1:5432".parse().unwrap(), inode: 4242 };
        assert_eq!(parse_listener(line), Some(expected));
        let six = "  1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 7 1";
        let expected = Listener { address: "[::1]:8080".parse().unwrap(), inode: 7 };
        assert_eq!(parse_listener(six), Some(expected));
        for other in [
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
            "   0: 0100007F:1538 0100007F:9999 01 00000000:00000000 00:00000000 00000000   101        0 4242 1 0",
            "   0: 01007F:1538 00000000:0000 0A 0:0 00:0 0 0 0 4242 1",
            "",
        ] {
            assert_eq!(parse_listener(other), None, "{other}");
        }
    }

    #[test]
    fn who_listens_is_found() {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let found =
            table.lines().filter_map(parse_listener).find(|found| found.address.port() == port).unwrap();
        assert_eq!(found.address, socket.local_addr().unwrap());
        assert_eq!(owner(found.inode).unwrap().0, std::process::id());
    }
}
