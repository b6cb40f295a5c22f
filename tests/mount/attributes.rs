//! Attributes: modes and set-id bits, owners, times, extended attributes, statistics.

use crate::fixture::{NOBODY, as_nobody, errno, in_each_mode};
use rustix::fs::{CWD, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn writes_of_others_take_set_id_bits_away() {
    in_each_mode(|_, root| {
        let path = root.join("setid");
        let shown = path.display();
        for (command, case) in [
            (format!("echo x >> {shown}"), "append"),
            (format!("echo x > {shown}"), "truncate at open"),
            (format!("truncate -s 3 {shown}"), "truncate"),
            (format!("fallocate -l 9000 {shown}"), "fallocate"),
        ] {
            fs::write(&path, b"before").unwrap();
            chmod(&path, 0o6777);
            assert!(as_nobody(&command), "{case}");
            assert_eq!(mode(&path), 0o777, "{case}");
        }
        chmod(&path, 0o6777);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"root may").unwrap();
        assert_eq!(mode(&path), 0o6777);
        // Set while the file is open: the next write of the other has to see it.
        assert!(as_nobody(&format!("exec 3>>{shown}; echo a >&3; echo b >&3")));
        assert_eq!(mode(&path), 0o777);
    });
}

#[test]
fn a_new_owner_takes_set_id_bits_away() {
    in_each_mode(|_, root| {
        let path = root.join("owned");
        fs::write(&path, b"x").unwrap();
        chmod(&path, 0o6755);
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        assert_eq!(mode(&path), 0o755);
        let status = fs::metadata(&path).unwrap();
        assert_eq!((status.uid(), status.gid()), (NOBODY, NOBODY));
        fs::create_dir(root.join("d")).unwrap();
        chmod(&root.join("d"), 0o2755);
        chown(root.join("d"), Some(NOBODY), None).unwrap();
        assert_eq!(mode(&root.join("d")), 0o2755, "a directory keeps its bits");
    });
}

#[test]
fn set_gid_directories_pass_on_their_group() {
    in_each_mode(|_, root| {
        let directory = root.join("shared");
        fs::create_dir(&directory).unwrap();
        chown(&directory, None, Some(4242)).unwrap();
        chmod(&directory, 0o2777);
        assert!(as_nobody(&format!("cd {0} && touch f && mkdir d", directory.display())));
        assert_eq!(fs::metadata(directory.join("f")).unwrap().gid(), 4242);
        let inner = fs::metadata(directory.join("d")).unwrap();
        assert_eq!((inner.gid(), inner.mode() & 0o2000), (4242, 0o2000));
    });
}

#[test]
fn the_kernel_checks_access() {
    in_each_mode(|_, root| {
        fs::write(root.join("secret"), b"x").unwrap();
        chmod(&root.join("secret"), 0o600);
        assert!(!as_nobody(&format!("cat {} 2>/dev/null", root.join("secret").display())));
        chmod(root, 0o1777);
        fs::write(root.join("others"), b"x").unwrap();
        chmod(&root.join("others"), 0o666);
        assert!(!as_nobody(&format!("rm -f {} 2>/dev/null", root.join("others").display())), "sticky");
    });
}

#[test]
fn times_have_nanoseconds_and_may_lie_before_1970() {
    in_each_mode(|_, root| {
        let path = root.join("t");
        fs::write(&path, b"x").unwrap();
        for (seconds, nanos) in [(1_700_000_000, 123_456_789), (-5, 999_999_999), (0, 0)] {
            let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
            let status = rustix::fs::stat(&path).unwrap();
            assert_eq!((status.st_mtime, status.st_mtime_nsec as i64), (seconds, nanos));
            assert_eq!((status.st_atime, status.st_atime_nsec as i64), (seconds, nanos));
        }
        let old = fs::metadata(&path).unwrap().modified().unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"y").unwrap();
        assert!(fs::metadata(&path).unwrap().modified().unwrap() > old);
    });
}

#[test]
fn times_survive_a_cold_kernel_cache() {
    for writeback in [true, false] {
        let mut fixture = crate::fixture::Fixture::new(writeback);
        let path = fixture.root().join("t");
        fs::write(&path, b"x").unwrap();
        let time = Timespec { tv_sec: 1_600_000_000, tv_nsec: 7 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        fixture.unmount();
        fixture.mount(&stillpoint::vfs::MountTarget::Store, writeback);
        let status = rustix::fs::stat(&path).unwrap();
        assert_eq!((status.st_mtime, status.st_mtime_nsec as i64), (1_600_000_000, 7));
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }
}

#[test]
fn extended_attributes_of_three_namespaces() {
    in_each_mode(|_, root| {
        let path = root.join("x");
        fs::write(&path, b"x").unwrap();
        let get = |name: &str| {
            let mut value = vec![0; 70_000];
            rustix::fs::getxattr(&path, name, &mut value).map(|length| value[..length].to_vec())
        };
        let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
        assert_eq!(get("user.a"), Err(Errno::NODATA));
        for name in ["user.a", "trusted.b", "security.c"] {
            set(name, b"value", XattrFlags::empty()).unwrap();
            assert_eq!(get(name).unwrap(), b"value");
        }
        assert_eq!(set("user.a", b"", XattrFlags::CREATE), Err(Errno::EXIST));
        assert_eq!(set("user.new", b"", XattrFlags::REPLACE), Err(Errno::NODATA));
        set("user.big", &vec![5; 65_536], XattrFlags::empty()).unwrap();
        assert_eq!(get("user.big").unwrap().len(), 65_536);
        set("user.big", b"", XattrFlags::REPLACE).unwrap();
        assert_eq!(get("user.big").unwrap(), b"");
        assert_eq!(set("system.posix_acl_access", b"", XattrFlags::empty()), Err(Errno::OPNOTSUPP));
        let mut names = vec![0; 1000];
        let length = rustix::fs::listxattr(&path, &mut names).unwrap();
        let mut listed: Vec<&[u8]> = names[..length].split(|byte| *byte == 0).collect();
        listed.retain(|name| !name.is_empty());
        listed.sort_unstable();
        assert_eq!(listed, [&b"security.c"[..], b"trusted.b", b"user.a", b"user.big"]);
        chmod(&path, 0o644);
        let names = format!("import os; assert sorted(os.listxattr('{}'))", path.display());
        let seen = "== ['security.c', 'user.a', 'user.big']";
        assert!(as_nobody(&format!("! command -v python3 >/dev/null || python3 -c \"{names} {seen}\"")));
        rustix::fs::removexattr(&path, "user.a").unwrap();
        assert_eq!(rustix::fs::removexattr(&path, "user.a"), Err(Errno::NODATA));
    });
}

#[test]
fn statistics_are_those_of_the_store() {
    in_each_mode(|_, root| {
        let space = rustix::fs::statvfs(root).unwrap();
        assert!(space.f_blocks > 0 && space.f_bavail > 0 && space.f_bavail <= space.f_blocks);
        assert_eq!(space.f_namemax, 255);
    });
}

#[test]
fn modes_stay_within_the_umask() {
    in_each_mode(|_, root| {
        assert!(as_nobody("true"));
        chmod(root, 0o777);
        assert!(as_nobody(&format!("cd {}; umask 027; touch f; mkdir d", root.display())));
        assert_eq!((mode(&root.join("f")), mode(&root.join("d"))), (0o640, 0o750));
        assert_eq!(fs::metadata(root.join("f")).unwrap().uid(), NOBODY);
        assert_eq!(errno(chown(root.join("absent"), Some(1), None)), Errno::NOENT);
    });
}

#[test]
fn a_quota_shows_in_statistics_and_stops_writers() {
    in_each_mode(|fixture, root| {
        let quota = 8 << 20;
        fixture.store.set_quota("v", Some(Some(quota)), None).unwrap();
        let space = rustix::fs::statvfs(root).unwrap();
        assert_eq!(space.f_blocks * space.f_frsize, quota);
        let path = root.join("f");
        // Bytes that do not compress, and no two pages alike.
        let mut state = 1u64;
        let content: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(16 << 20)
        .collect();
        let written = fs::write(&path, &content).and_then(|()| fs::File::open(&path)?.sync_all());
        assert_eq!(errno(written), Errno::DQUOT);
        fs::remove_file(&path).unwrap();
        fixture.store.checkpoint().unwrap();
        fs::write(root.join("small"), &content[..1 << 20]).unwrap();
        fs::File::open(root.join("small")).unwrap().sync_all().unwrap();
        assert_eq!(fs::read(root.join("small")).unwrap(), &content[..1 << 20]);
    });
}
