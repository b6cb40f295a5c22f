//! Names: links, renames, exclusive creation, unlinked open files, long and odd names, big directories.

use crate::fixture::{errno, in_each_mode};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};

#[test]
fn hard_links_share_an_inode() {
    in_each_mode(|_, root| {
        fs::write(root.join("a"), b"one").unwrap();
        fs::hard_link(root.join("a"), root.join("b")).unwrap();
        let (a, b) = (fs::metadata(root.join("a")).unwrap(), fs::metadata(root.join("b")).unwrap());
        assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
        fs::remove_file(root.join("a")).unwrap();
        assert_eq!(fs::metadata(root.join("b")).unwrap().nlink(), 1);
        assert_eq!(fs::read(root.join("b")).unwrap(), b"one");
        assert_eq!(errno(fs::hard_link(root, root.join("c"))), Errno::PERM);
    });
}

#[test]
fn symbolic_links_keep_their_target() {
    in_each_mode(|_, root| {
        let target = "t".repeat(4095);
        symlink(&target, root.join("long")).unwrap();
        assert_eq!(fs::read_link(root.join("long")).unwrap().as_os_str(), target.as_str());
        assert_eq!(errno(symlink("t".repeat(4096), root.join("longer"))), Errno::NAMETOOLONG);
        fs::write(root.join("file"), b"x").unwrap();
        symlink("file", root.join("short")).unwrap();
        assert_eq!(fs::read(root.join("short")).unwrap(), b"x");
        assert_eq!(fs::symlink_metadata(root.join("short")).unwrap().len(), 4);
    });
}

#[test]
fn rename_replaces_refuses_or_exchanges() {
    in_each_mode(|_, root| {
        let (a, b) = (root.join("a"), root.join("b"));
        fs::write(&a, b"a").unwrap();
        fs::write(&b, b"b").unwrap();
        let renamed = rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::NOREPLACE);
        assert_eq!(renamed, Err(Errno::EXIST));
        rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
        assert_eq!((fs::read(&a).unwrap(), fs::read(&b).unwrap()), (b"b".to_vec(), b"a".to_vec()));
        fs::rename(&a, &b).unwrap();
        assert_eq!(fs::read(&b).unwrap(), b"b");
        assert!(!a.exists());
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/x"), b"").unwrap();
        assert_eq!(errno(fs::rename(&b, root.join("d"))), Errno::ISDIR);
        fs::create_dir(root.join("e")).unwrap();
        assert_eq!(errno(fs::rename(root.join("e"), root.join("d"))), Errno::NOTEMPTY);
        assert_eq!(errno(fs::rename(root.join("d"), root.join("d/inner"))), Errno::INVAL);
        assert_eq!(fs::metadata(root).unwrap().nlink(), 4);
        fs::rename(root.join("e"), root.join("d/e")).unwrap();
        assert_eq!(fs::metadata(root).unwrap().nlink(), 3);
        assert_eq!(errno(fs::remove_dir(root.join("d"))), Errno::NOTEMPTY);
    });
}

#[test]
fn exclusive_creation_has_one_winner() {
    in_each_mode(|_, root| {
        let create = || OpenOptions::new().write(true).create_new(true).open(root.join("one"));
        create().unwrap();
        assert_eq!(errno(create()), Errno::EXIST);
        let winners = std::thread::scope(|scope| {
            let create = || OpenOptions::new().write(true).create_new(true).open(root.join("two")).is_ok();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(winners, 1);
    });
}

#[test]
fn an_unlinked_open_file_lives_until_it_is_closed() {
    in_each_mode(|fixture, root| {
        let path = root.join("f");
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all(b"kept").unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.write_all(b" alive").unwrap();
        file.sync_all().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut all = String::new();
        file.read_to_string(&mut all).unwrap();
        assert_eq!(all, "kept alive");
        // The same by rename over it.
        let mut over = File::create_new(root.join("over")).unwrap();
        over.write_all(b"old").unwrap();
        fs::write(root.join("new"), b"new").unwrap();
        fs::rename(root.join("new"), root.join("over")).unwrap();
        over.write_all(b"er").unwrap();
        assert_eq!(over.metadata().unwrap().len(), 5);
        assert_eq!(fs::read(root.join("over")).unwrap(), b"new");
        let view = fixture.store.volume("v").unwrap();
        let ino = file.metadata().unwrap().ino() & ((1 << 40) - 1);
        assert!(view.attributes(ino).is_ok());
        drop((file, over));
        let gone = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            view.attributes(ino).is_err()
        });
        assert!(gone, "the inode stayed after its last close");
    });
}

#[test]
fn names_are_any_bytes_up_to_255() {
    in_each_mode(|_, root| {
        let bytes: Vec<u8> = (0..255).map(|i| if i % 2 == 0 { 0xff } else { 0x80 + (i / 2) as u8 }).collect();
        let path = root.join(OsStr::from_bytes(&bytes));
        fs::write(&path, b"x").unwrap();
        let listed: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(listed, vec![OsStr::from_bytes(&bytes).to_owned()]);
        let longer = root.join(OsStr::from_bytes(&[b'n'; 256]));
        assert_eq!(errno(fs::write(longer, b"x")), Errno::NAMETOOLONG);
        fs::remove_file(path).unwrap();
    });
}

#[test]
fn ten_thousand_entries_are_each_listed_once() {
    in_each_mode(|_, root| {
        let directory = root.join("big");
        fs::create_dir(&directory).unwrap();
        for i in 0..10_000 {
            File::create(directory.join(format!("entry-{i}"))).unwrap();
        }
        let mut seen = HashSet::new();
        for entry in fs::read_dir(&directory).unwrap() {
            assert!(seen.insert(entry.unwrap().file_name()), "listed twice");
        }
        assert_eq!(seen.len(), 10_000);
        for (i, entry) in fs::read_dir(&directory).unwrap().enumerate() {
            assert!(fs::symlink_metadata(entry.unwrap().path()).unwrap().is_file(), "entry {i}");
        }
        fs::remove_dir_all(&directory).unwrap();
        assert!(!directory.exists());
    });
}

#[test]
fn directories_can_be_synced() {
    in_each_mode(|_, root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), b"x").unwrap();
        File::open(root.join("d")).unwrap().sync_all().unwrap();
        File::open(root).unwrap().sync_all().unwrap();
    });
}

#[test]
fn locks_are_held_against_other_opens() {
    in_each_mode(|_, root| {
        let path = root.join("lock");
        let first = File::create(&path).unwrap();
        let second = File::open(&path).unwrap();
        rustix::fs::flock(&first, FlockOperation::LockExclusive).unwrap();
        let refused = rustix::fs::flock(&second, FlockOperation::NonBlockingLockShared);
        assert_eq!(refused, Err(Errno::WOULDBLOCK));
        rustix::fs::flock(&first, FlockOperation::Unlock).unwrap();
        rustix::fs::flock(&second, FlockOperation::NonBlockingLockShared).unwrap();
        // fcntl locks belong to processes: another one has to be refused.
        rustix::fs::fcntl_lock(&first, FlockOperation::LockExclusive).unwrap();
        let script = "import fcntl,sys\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB)";
        let other = std::process::Command::new("python3").args(["-c", script]).arg(&path).output();
        match other {
            Ok(output) => assert!(!output.status.success(), "two processes hold one lock"),
            Err(_) => eprintln!("python3 is not here: fcntl locks were not tried from a second process"),
        }
    });
}

#[test]
fn nodes_of_all_kinds_can_be_made() {
    in_each_mode(|_, root| {
        let made = |name: &str, kind, device| {
            rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o600), device).unwrap();
            rustix::fs::lstat(root.join(name)).unwrap()
        };
        let device = rustix::fs::makedev(7, 3);
        let character = made("c", rustix::fs::FileType::CharacterDevice, device);
        assert_eq!(character.st_rdev, device);
        let fifo = made("p", rustix::fs::FileType::Fifo, 0);
        assert_eq!(rustix::fs::FileType::from_raw_mode(fifo.st_mode), rustix::fs::FileType::Fifo);
        let file = made("f", rustix::fs::FileType::RegularFile, 0);
        assert_eq!(file.st_mode & 0o7777, 0o600);
        std::os::unix::net::UnixListener::bind(root.join("s")).unwrap();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
        symlink("f", root.join("l")).unwrap();
        assert_eq!(rustix::fs::open(root.join("l"), flags, Mode::empty()).unwrap_err(), Errno::LOOP);
    });
}
