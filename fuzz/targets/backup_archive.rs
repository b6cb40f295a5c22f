//! Base backups whose archive has any members: they are unpacked or refused, and whatever happens nothing
//! outside of the two folders is made or changed, and no link leads elsewhere.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use stillpoint::adapter::postgres::backup::{FileOwner, ingest, inspect};

const PARTS: [&str; 18] = [
    "base", "global", "pg_tblspc", "16384", "pg_wal", "..", ".", "", "/tmp", "PG_VERSION", "pg_control",
    "backup_label", "tablespace_map", "000000010000000000000001", "postgresql.auto.conf", "pg_replslot", "1", "x",
];
const KINDS: &[u8] = b"0012357xgLKS\0";

#[derive(Arbitrary, Debug)]
struct Member {
    parts: Vec<u8>,
    /// A name that is not made of known parts.
    name: Option<Vec<u8>>,
    kind: u8,
    link: Vec<u8>,
    content: Content,
    /// A size that is not that of the content.
    size: Option<u32>,
    /// A byte changed after the checksum.
    damage: Option<(u16, u8)>,
}

#[derive(Arbitrary, Debug)]
enum Content {
    Any(Vec<u8>),
    Version,
    Label,
    Map(u16),
    Control(u8),
    Name(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Input {
    members: Vec<Member>,
    tablespace: Option<Vec<Member>>,
    cut: Option<u16>,
}

fuzz_target!(|input: Input| {
    let folder = folder();
    let (data, spaces, backup) = (folder.join("data"), folder.join("spaces"), folder.join("backup"));
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(&backup).unwrap();
    let mut base = archive(&input.members);
    if let Some(cut) = input.cut {
        base.truncate(usize::from(cut));
    }
    fs::write(backup.join("base.tar"), &base).unwrap();
    if let Some(members) = &input.tablespace {
        fs::write(backup.join("16384.tar"), archive(members)).unwrap();
    }
    let _ = inspect(&backup);
    let metadata = folder.metadata().unwrap();
    let owner = FileOwner {
        uid: std::os::unix::fs::MetadataExt::uid(&metadata),
        gid: std::os::unix::fs::MetadataExt::gid(&metadata),
    };
    let _ = ingest(&backup, &data, &spaces, owner, &mut |_, _| Ok(()));
    assert_eq!(fs::read(backup.join("base.tar")).unwrap(), base);
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| !["backup", "data", "spaces"].iter().any(|known| name == known));
    assert!(names.is_empty(), "{names:?}");
    assert_no_link_leads_out(&data, &spaces);
    assert_no_link_leads_out(&spaces, &spaces);
    fs::remove_dir_all(folder).unwrap();
});

/// Made and removed with each input.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let shared = Path::new("/dev/shm");
        let base = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        base.join(format!("stillpoint-fuzz-{}", std::process::id()))
    })
}

fn assert_no_link_leads_out(folder: &Path, spaces: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_symlink() {
            assert!(fs::read_link(&path).unwrap().starts_with(spaces), "{}", path.display());
        } else if metadata.is_dir() {
            assert_no_link_leads_out(&path, spaces);
        } else {
            assert!(metadata.is_file(), "{}", path.display());
        }
    }
}

fn archive(members: &[Member]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in members.iter().take(12) {
        place(member, &mut bytes);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn place(member: &Member, bytes: &mut Vec<u8>) {
    let content = content(&member.content);
    let parts: Vec<&str> = member.parts.iter().take(6).map(|at| PARTS[usize::from(*at) % PARTS.len()]).collect();
    let name = member.name.clone().unwrap_or_else(|| parts.join("/").into_bytes());
    let mut header = [0_u8; 512];
    put(&mut header, 0, 100, &name);
    put(&mut header, 100, 8, b"0000777\0");
    let size = member.size.unwrap_or(content.len() as u32);
    put(&mut header, 124, 12, format!("{size:011o}\0").as_bytes());
    header[156] = KINDS[usize::from(member.kind) % KINDS.len()];
    put(&mut header, 157, 100, &member.link);
    put(&mut header, 257, 8, b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut header, 148, 8, format!("{sum:06o}\0 ").as_bytes());
    if let Some((at, byte)) = member.damage {
        header[usize::from(at) % 512] = byte;
    }
    bytes.extend(header);
    bytes.extend(&content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

fn put(header: &mut [u8; 512], at: usize, length: usize, value: &[u8]) {
    let length = length.min(value.len());
    header[at..at + length].copy_from_slice(&value[..length]);
}

fn content(content: &Content) -> Vec<u8> {
    match content {
        Content::Any(bytes) => bytes.clone(),
        Content::Version => b"15\n".to_vec(),
        Content::Label => b"START WAL LOCATION: 0/100028 (file 000000010000000000000001)\n".to_vec(),
        Content::Map(oid) => format!("{} /tmp/elsewhere\n", if *oid % 2 == 0 { 16384 } else { *oid }).into_bytes(),
        Content::Name(name) => {
            let rest = [b" path=", &name[..name.len().min(60)], b"\n"].concat();
            [(rest.len() + 2).to_string().as_bytes(), &rest].concat()
        }
        Content::Control(state) => {
            let mut bytes = vec![0; 300];
            bytes[0] = 7;
            bytes[8..12].copy_from_slice(&1300_u32.to_le_bytes());
            bytes[16] = *state;
            bytes[208..216].copy_from_slice(&1_234_567.0_f64.to_le_bytes());
            bytes[228..232].copy_from_slice(&(1_u32 << 20).to_le_bytes());
            bytes
        }
    }
}
