//! Bytes: appends, holes, preallocation, copies, direct and synchronous I/O, mapped memory.

use crate::fixture::{errno, in_each_mode};
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom as At};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

fn read_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

#[test]
fn appends_of_several_writers_do_not_overlap() {
    in_each_mode(|_, root| {
        let path = root.join("log");
        std::thread::scope(|scope| {
            for writer in 0..4u8 {
                let path = &path;
                scope.spawn(move || {
                    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
                    for _ in 0..200 {
                        file.write_all(&[b'a' + writer; 100]).unwrap();
                    }
                });
            }
        });
        let all = fs::read(&path).unwrap();
        assert_eq!(all.len(), 4 * 200 * 100);
        assert!(all.chunks(100).all(|record| record.iter().all(|byte| *byte == record[0])));
    });
}

/// The kernel brings a written file's times after the file is gone; PostgreSQL takes an error of syncfs for lost data.
#[test]
fn files_that_went_leave_no_error_for_syncfs() {
    in_each_mode(|_, root| {
        let folder = File::open(root).unwrap();
        for size in [1, 20_000] {
            fs::write(root.join("gone"), vec![7; size]).unwrap();
            fs::remove_file(root.join("gone")).unwrap();
            fs::write(root.join("over"), vec![7; size]).unwrap();
            fs::write(root.join("new"), b"new").unwrap();
            fs::rename(root.join("new"), root.join("over")).unwrap();
            rustix::fs::syncfs(&folder).unwrap();
        }
    });
}

#[test]
fn truncate_cuts_extends_and_zeroes() {
    in_each_mode(|_, root| {
        let file = read_write(&root.join("t"));
        file.write_all_at(&[7; 20_000], 0).unwrap();
        file.set_len(5_000).unwrap();
        file.set_len(20_000).unwrap();
        let mut all = vec![1; 20_000];
        file.read_exact_at(&mut all, 0).unwrap();
        assert!(all[..5_000].iter().all(|byte| *byte == 7) && all[5_000..].iter().all(|byte| *byte == 0));
        drop(file);
        let again = OpenOptions::new().write(true).truncate(true).open(root.join("t")).unwrap();
        assert_eq!(again.metadata().unwrap().len(), 0);
    });
}

#[test]
fn holes_are_found_and_take_no_space() {
    in_each_mode(|_, root| {
        let file = read_write(&root.join("sparse"));
        let (data_at, size) = (1 << 30, (1 << 30) + 8192);
        file.write_all_at(&[1; 8192], data_at).unwrap();
        // Also what was not yet written back must be found.
        assert_eq!(rustix::fs::seek(&file, At::Data(0)).unwrap(), data_at);
        file.sync_all().unwrap();
        assert_eq!(rustix::fs::seek(&file, At::Data(0)).unwrap(), data_at);
        assert_eq!(rustix::fs::seek(&file, At::Hole(0)).unwrap(), 0);
        assert_eq!(rustix::fs::seek(&file, At::Hole(data_at)).unwrap(), size);
        assert_eq!(rustix::fs::seek(&file, At::Data(size)).unwrap_err(), Errno::NXIO);
        assert!(file.metadata().unwrap().blocks() < 1000);
    });
}

#[test]
fn a_file_may_have_16_tib() {
    in_each_mode(|_, root| {
        let file = read_write(&root.join("huge"));
        let last = (16 << 40) - 4096;
        file.write_all_at(b"end", last).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.sync_all().unwrap();
        let mut buffer = [0; 3];
        file.read_exact_at(&mut buffer, last).unwrap();
        assert_eq!(&buffer, b"end");
        assert_eq!(file.metadata().unwrap().len(), last + 3);
        file.set_len(10).unwrap();
        assert_eq!(fs::read(root.join("huge")).unwrap(), b"start\0\0\0\0\0");
    });
}

#[test]
fn fallocate_keeps_punches_and_zeroes() {
    in_each_mode(|_, root| {
        let file = read_write(&root.join("f"));
        let allocate = |flags, offset, length| rustix::fs::fallocate(&file, flags, offset, length);
        allocate(FallocateFlags::empty(), 0, 100_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100_000);
        allocate(FallocateFlags::KEEP_SIZE, 0, 200_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100_000);
        file.write_all_at(&[9; 100_000], 0).unwrap();
        allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 10_000, 30_000).unwrap();
        allocate(FallocateFlags::ZERO_RANGE, 90_000, 20_000).unwrap();
        let mut all = vec![1; 110_000];
        file.read_exact_at(&mut all, 0).unwrap();
        for (i, byte) in all.iter().enumerate() {
            let zero = (10_000..40_000).contains(&i) || i >= 90_000;
            assert_eq!(*byte, if zero { 0 } else { 9 }, "at {i}");
        }
        allocate(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 109_000, 20_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 110_000);
        assert_eq!(allocate(FallocateFlags::COLLAPSE_RANGE, 0, 8192), Err(Errno::OPNOTSUPP));
    });
}

#[test]
fn copy_file_range_copies_aligned_and_not() {
    in_each_mode(|fixture, root| {
        let from = read_write(&root.join("from"));
        let content: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        from.write_all_at(&content, 0).unwrap();
        let to = read_write(&root.join("to"));
        let copy = |from_at: u64, to_at: u64, length: usize| {
            let (mut from_at, mut to_at, mut left) = (from_at, to_at, length);
            while left > 0 {
                let copied =
                    rustix::fs::copy_file_range(&from, Some(&mut from_at), &to, Some(&mut to_at), left);
                match copied.unwrap() {
                    0 => break,
                    copied => left -= copied,
                }
            }
        };
        copy(0, 0, 1_000_000);
        copy(5, 2_000_003, 70_000);
        let mut all = vec![0; 1_000_000];
        to.read_exact_at(&mut all, 0).unwrap();
        assert_eq!(all, content);
        let mut part = vec![0; 70_000];
        to.read_exact_at(&mut part, 2_000_003).unwrap();
        assert_eq!(part, content[5..70_005]);
        // Between volumes of one store too.
        fixture.store.create_volume("w").unwrap();
        fixture.session().volume_created("w");
        fs::copy(root.join("from"), fixture.mount_point().join("w/copy")).unwrap();
        assert_eq!(fs::read(fixture.mount_point().join("w/copy")).unwrap(), content);
    });
}

#[test]
fn direct_reads_and_writes_agree_with_cached_ones() {
    in_each_mode(|_, root| {
        let path = root.join("d");
        let cached = read_write(&path);
        cached.write_all_at(&[1; 65_536], 0).unwrap();
        let flags = OFlags::DIRECT.bits().cast_signed();
        let direct = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).unwrap();
        let mut buffer = vec![0; 65_536];
        direct.read_exact_at(&mut buffer, 0).unwrap();
        assert!(buffer.iter().all(|byte| *byte == 1), "what lies in the page cache is read");
        direct.write_all_at(&[2; 4096], 8192).unwrap();
        cached.read_exact_at(&mut buffer, 0).unwrap();
        assert!(
            buffer[8192..12_288].iter().all(|byte| *byte == 2),
            "what was written past the cache is read"
        );
        std::thread::scope(|scope| {
            for writer in 0..4u8 {
                let direct = &direct;
                scope.spawn(move || {
                    for i in 0..50 {
                        let at = (u64::from(writer) * 50 + i) * 4096;
                        direct.write_all_at(&[10 + writer; 4096], at).unwrap();
                    }
                });
            }
        });
        let all = fs::read(&path).unwrap();
        assert_eq!(all.len(), 200 * 4096);
        assert!(all.chunks(50 * 4096).zip(10..).all(|(part, byte)| part.iter().all(|b| *b == byte)));
    });
}

#[test]
fn synchronous_writes_ask_for_an_fsync_each() {
    in_each_mode(|fixture, root| {
        let count = || {
            let counters = fixture.session().counters();
            counters.requests(stillpoint_fuse::Opcode::Sync)
        };
        let mode = Mode::from_raw_mode(0o600);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::DSYNC;
        let before = count();
        let file = File::from(rustix::fs::open(root.join("s"), flags, mode).unwrap());
        file.write_all_at(&[1; 8192], 0).unwrap();
        assert!(count() > before);
        // Past the cache the write itself is synchronous.
        let direct = File::from(rustix::fs::open(root.join("ds"), flags | OFlags::DIRECT, mode).unwrap());
        direct.write_all_at(&[1; 8192], 0).unwrap();
        assert_eq!(fs::read(root.join("ds")).unwrap(), vec![1; 8192]);
    });
}

#[test]
fn mapped_memory_is_shared_with_the_file() {
    in_each_mode(|_, root| {
        let path = root.join("m");
        fs::write(&path, vec![b'.'; 20_000]).unwrap();
        let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\n\
            assert m[:3]==b'...'\nm[5000:5005]=b'hello'\nm.flush()\nf2=open(sys.argv[1],'rb')\n\
            f2.seek(5000)\nassert f2.read(5)==b'hello'\nm[6000:6003]=b'bye'";
        let done = Command::new("python3").args(["-c", script]).arg(&path).status();
        match done {
            Ok(status) => assert!(status.success()),
            Err(_) => return eprintln!("python3 is not here: mapped writes were not tried"),
        }
        let mut all = Vec::new();
        File::open(&path).unwrap().read_to_end(&mut all).unwrap();
        assert_eq!((&all[5000..5005], &all[6000..6003]), (&b"hello"[..], &b"bye"[..]));
    });
}

#[test]
fn a_directory_is_not_written() {
    in_each_mode(|_, root| {
        assert_eq!(errno(File::create(root)), Errno::ISDIR);
        assert_eq!(errno(fs::read(root)), Errno::ISDIR);
    });
}

#[test]
fn a_running_program_is_not_truncated() {
    in_each_mode(|_, root| {
        let path = root.join("program");
        fs::copy("/bin/sleep", &path).unwrap();
        let mut running = Command::new(&path).arg("30").spawn().unwrap();
        for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::RDONLY | OFlags::TRUNC] {
            assert_eq!(rustix::fs::open(&path, flags, Mode::empty()).unwrap_err(), Errno::TXTBSY);
        }
        assert!(running.try_wait().unwrap().is_none(), "it died");
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(fs::read(&path).unwrap(), fs::read("/bin/sleep").unwrap());
    });
}
