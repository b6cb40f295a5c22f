//! Each request of the protocol turned into one call of the file system.

use super::convert::{entry_parts, errno, from_system_time, open_request, time_change};
use super::replies::{
    PlainSink, PlusSink, caller, give_data, give_empty, give_offset, open_flags, space_mode,
};
use super::run::{GENERATION, Requests};
use crate::counters::Opcode;
use crate::filesystem::FileSystem;
use crate::options::{BACKGROUND_MAX, CONGESTION_THRESHOLD, REQUEST_BYTES_MAX};
use crate::types::{Change, Copy, Durability, NewNode, OpenRequest, RenameMode, Seek, Write, XattrMode};
use fuser::{
    CopyFileRangeFlags, FileHandle, FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, FileType, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

/// `SEEK_DATA` and `SEEK_HOLE` of `lseek(2)`; the kernel sends no other.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

impl<F: FileSystem> fuser::Filesystem for Requests<F> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Not FUSE_ATOMIC_O_TRUNC: with it a running program is truncated before the open is refused.
        let mut wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            // Without it the kernel asks for security.capability before every write.
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
        if self.writeback {
            wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        if let Err(missing) = config.add_capabilities(wanted) {
            tracing::warn!(?missing, "the kernel lacks FUSE capabilities");
            // What is left of the request is a subset of what the kernel offers.
            let _ = config.add_capabilities(wanted.difference(missing));
        }
        // Each setter refuses only values out of its range, and then names the nearest good one.
        if let Err(nearest) = config.set_max_write(REQUEST_BYTES_MAX) {
            let _ = config.set_max_write(nearest);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.set_congestion_threshold(CONGESTION_THRESHOLD);
        Ok(())
    }

    fn destroy(&mut self) {
        self.filesystem.ended();
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let caller = caller(req);
        self.run_entry(Opcode::Lookup, reply, |fs| fs.lookup(caller, parent.0, name.as_bytes()));
    }

    fn forget(&self, _: &Request, _: INodeNo, _: u64) {
        self.counters.count(Opcode::Forget);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.run_attr(Opcode::GetAttributes, reply, |fs| fs.attributes(ino.0));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            accessed: atime.map(time_change),
            modified: mtime.map(time_change),
            changed: ctime.map(from_system_time),
            handle: fh.map(|fh| fh.0),
        };
        let caller = caller(req);
        self.run_attr(Opcode::SetAttributes, reply, |fs| fs.set_attributes(caller, ino.0, &change));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.run(Opcode::ReadLink, |fs| give_data(reply, fs.read_link(ino.0)));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let caller = caller(req);
        self.run_entry(Opcode::MakeNode, reply, |fs| {
            let new = match FileType::from_raw_mode(mode) {
                FileType::RegularFile => NewNode::File,
                FileType::Fifo => NewNode::Fifo,
                FileType::Socket => NewNode::Socket,
                FileType::CharacterDevice => NewNode::CharDevice(rdev),
                FileType::BlockDevice => NewNode::BlockDevice(rdev),
                _ => return Err(Errno::INVAL),
            };
            fs.make(caller, parent.0, name.as_bytes(), new, mode & 0o7777)
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let caller = caller(req);
        self.run_entry(Opcode::MakeDirectory, reply, |fs| {
            fs.make(caller, parent.0, name.as_bytes(), NewNode::Directory, mode & 0o7777)
        });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let caller = caller(req);
        let target = target.as_os_str().as_bytes();
        self.run_entry(Opcode::Symlink, reply, |fs| {
            fs.make(caller, parent.0, name.as_bytes(), NewNode::Symlink(target), 0o777)
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.run_empty(Opcode::Unlink, reply, |fs| fs.unlink(parent.0, name.as_bytes()));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.run_empty(Opcode::RemoveDirectory, reply, |fs| fs.remove_directory(parent.0, name.as_bytes()));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.run_empty(Opcode::Rename, reply, |fs| {
            let mode = if flags.is_empty() {
                RenameMode::Replace
            } else if flags == RenameFlags::RENAME_NOREPLACE {
                RenameMode::NoReplace
            } else if flags == RenameFlags::RENAME_EXCHANGE {
                RenameMode::Exchange
            } else {
                return Err(Errno::INVAL);
            };
            fs.rename((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()), mode)
        });
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.run_entry(Opcode::Link, reply, |fs| fs.link(ino.0, newparent.0, newname.as_bytes()));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let caller = caller(req);
        let request = open_request(flags.0);
        self.run(Opcode::Open, |fs| match fs.open(caller, ino.0, request) {
            Ok(opened) => reply.opened(FileHandle(opened.handle), open_flags(opened)),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let caller = caller(req);
        let request: OpenRequest = open_request(flags);
        self.run(Opcode::Create, |fs| {
            match fs.create(caller, parent.0, name.as_bytes(), mode & 0o7777, request) {
                Ok((entry, opened)) => {
                    let (_, name_valid, attr) = entry_parts(&entry);
                    let handle = FileHandle(opened.handle);
                    reply.created(&name_valid, &attr, GENERATION, handle, open_flags(opened));
                }
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.run(Opcode::Read, |fs| {
            let answer = fs.read(ino.0, fh.0, offset, size as usize);
            if let Ok(data) = &answer {
                self.counters.count_read(data.len());
            }
            give_data(reply, answer);
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let caller = caller(req);
        let write = Write {
            node: ino.0,
            handle: fh.0,
            offset,
            data,
            clear_privileges: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            sync: open_request(flags.0).sync && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
        };
        self.counters.count_written(data.len());
        self.run(Opcode::Write, |fs| {
            // A request holds at most REQUEST_BYTES_MAX bytes.
            let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
            match fs.write(caller, &write) {
                Ok(Durability::Deferred) => reply.written(length),
                Ok(Durability::Required) => fs.sync(
                    ino.0,
                    fh.0,
                    Box::new(move |outcome| match outcome {
                        Ok(()) => reply.written(length),
                        Err(error) => reply.error(errno(error)),
                    }),
                ),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    /// The kernel has written its pages back before it sends this; after one ENOSYS it sends no more.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.run_empty(Opcode::Flush, reply, |_| Err(Errno::NOSYS));
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.run_empty(Opcode::Release, reply, |fs| {
            fs.release(ino.0, fh.0);
            Ok(())
        });
    }

    fn fsync(&self, _: &Request, ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.run(Opcode::Sync, |fs| {
            fs.sync(ino.0, fh.0, Box::new(move |outcome| give_empty(reply, outcome)));
        });
    }

    /// Listings carry their whole position in the offset, so a directory needs no handle.
    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.run(Opcode::OpenDirectory, |_| reply.opened(FileHandle(0), FopenFlags::empty()));
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.run(Opcode::ReadDirectory, |fs| {
            let mut sink = PlainSink(reply);
            match fs.list_directory(ino.0, offset, &mut sink) {
                Ok(()) => sink.0.ok(),
                Err(error) => sink.0.error(errno(error)),
            }
        });
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.run(Opcode::ReadDirectoryPlus, |fs| {
            let mut sink = PlusSink(reply);
            match fs.list_directory(ino.0, offset, &mut sink) {
                Ok(()) => sink.0.ok(),
                Err(error) => sink.0.error(errno(error)),
            }
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.run_empty(Opcode::ReleaseDirectory, reply, |_| Ok(()));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.run(Opcode::SyncDirectory, |fs| {
            fs.sync_directory(ino.0, Box::new(move |outcome| give_empty(reply, outcome)));
        });
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.run(Opcode::Statistics, |fs| match fs.statistics(ino.0) {
            Ok(s) => reply.statfs(
                s.blocks,
                s.blocks_free,
                s.blocks_available,
                s.files,
                s.files_free,
                s.block_size,
                s.name_bytes_max,
                s.block_size,
            ),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        let mode = if flags.contains(XattrFlags::CREATE) {
            XattrMode::Create
        } else if flags.contains(XattrFlags::REPLACE) {
            XattrMode::Replace
        } else {
            XattrMode::Set
        };
        self.run_empty(Opcode::SetXattr, reply, |fs| fs.set_xattr(ino.0, name.as_bytes(), value, mode));
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.run_xattr(Opcode::GetXattr, size, reply, |fs| fs.xattr(ino.0, name.as_bytes()));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let caller = caller(req);
        self.run_xattr(Opcode::ListXattrs, size, reply, |fs| {
            let mut list = Vec::new();
            for name in fs.list_xattrs(caller, ino.0)? {
                list.extend_from_slice(&name);
                list.push(0);
            }
            Ok(list)
        });
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.run_empty(Opcode::RemoveXattr, reply, |fs| fs.remove_xattr(ino.0, name.as_bytes()));
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: fuser::IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: fuser::ReplyIoctl,
    ) {
        self.run(Opcode::Other, |_| reply.error(errno(Errno::NOTTY)));
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: fuser::PollNotifier,
        _: fuser::PollEvents,
        _: fuser::PollFlags,
        reply: fuser::ReplyPoll,
    ) {
        self.run(Opcode::Other, |_| reply.error(errno(Errno::NOSYS)));
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let caller = caller(req);
        self.run_empty(Opcode::Space, reply, |fs| {
            let mode = space_mode(FallocateFlags::from_bits_retain(mode.cast_unsigned()))?;
            fs.space(caller, ino.0, fh.0, mode, (offset, length))
        });
    }

    fn lseek(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.run(Opcode::Seek, |fs| {
            let target = match whence {
                SEEK_DATA => Seek::Data,
                SEEK_HOLE => Seek::Hole,
                _ => return reply.error(errno(Errno::INVAL)),
            };
            let Ok(from) = u64::try_from(offset) else { return reply.error(errno(Errno::NXIO)) };
            let seek = move |fs: &F| give_offset(reply, fs.seek(ino.0, fh.0, from, target));
            match self.notifier.get() {
                Some(notifier) if self.writeback && fs.has_writers(ino.0) => {
                    self.after_write_back(notifier.clone(), ino, seek);
                }
                _ => seek(fs),
            }
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let caller = caller(req);
        let copy = Copy {
            from_node: ino_in.0,
            from_handle: fh_in.0,
            from_offset: offset_in,
            to_node: ino_out.0,
            to_handle: fh_out.0,
            to_offset: offset_out,
            length: len,
        };
        self.run_write(Opcode::Copy, reply, |fs| fs.copy(caller, &copy));
    }
}
