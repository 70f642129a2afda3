//! What the kernel asks, answered from the state.
//!
//! Nothing is cached by the kernel: names and attributes are valid for no time, and files are read and written directly,
//! so that what a loss of power or a flipped bit changed is seen at once.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::content::{Change, PAGE_BYTES};
use crate::faults::{Effect, Operation};
use crate::names::{Node, ROOT};
use crate::state::{Shared, State};

const NOT_CACHED: Duration = Duration::ZERO;
/// The size that a disk without limit has.
const BYTES_UNLIMITED: u64 = 1 << 40;

const KEEP_SIZE: i32 = 1;
const PUNCH_HOLE: i32 = 2;
const ZERO_RANGE: i32 = 16;

type Listing = Vec<(Node, FileType, OsString)>;

#[derive(Debug)]
pub struct FaultFs {
    shared: Arc<Shared>,
    /// What open directories held when they were opened.
    listings: Mutex<HashMap<u64, Listing>>,
    next_handle: AtomicU64,
}

impl FaultFs {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, listings: Mutex::default(), next_handle: AtomicU64::new(1) }
    }

    fn handle(&self) -> FileHandle {
        FileHandle(self.next_handle.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a file or a directory and names it.
    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        directory: bool,
        open: bool,
    ) -> Result<FileAttr, Errno> {
        let mut admitted = self.shared.admit(Operation::Create, |state| state.path_in(parent.0, name))?;
        let (state, number) = (&mut *admitted.state, admitted.number);
        let entries = state.names.entries(parent.0).ok_or(Errno::ENOTDIR)?;
        if entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        // A new file needs something of the disk, as a directory's block.
        state.expect_space(1)?;
        let (mode, uid, gid) = ((mode & 0o7777) as u16, request.uid(), request.gid());
        let node = if directory { state.add_directory(mode, uid, gid) } else { state.add_file(mode, uid, gid)? };
        state.names.change(number, vec![(parent.0, name.into(), Some(node))]);
        let path = state.path_in(parent.0, name);
        let inode = state.inode(node)?;
        (inode.links, inode.path) = (1, path);
        inode.opened += u64::from(open);
        attributes(state, node)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, directory: bool) -> Result<(), Errno> {
        let mut admitted = self.shared.admit(Operation::Remove, |state| state.path_in(parent.0, name))?;
        let (state, number) = (&mut *admitted.state, admitted.number);
        let node = state.names.get(parent.0, name).ok_or(Errno::ENOENT)?;
        match (directory, state.names.entries(node)) {
            (true, None) => return Err(Errno::ENOTDIR),
            (true, Some(entries)) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
            (false, Some(_)) => return Err(Errno::EISDIR),
            _ => {}
        }
        state.names.change(number, vec![(parent.0, name.into(), None)]);
        state.tidy();
        Ok(())
    }

    fn write(&self, node: Node, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let mut admitted = self.shared.admit(Operation::Write, |state| state.path(node))?;
        let short = admitted.effect == Some(Effect::Short) && data.len() > 1;
        let data = if short { &data[..data.len() / 2] } else { data };
        let number = admitted.number;
        admitted.state.change(number, node, Change::Write { offset, data: data.to_vec() })?;
        Ok(data.len() as u32)
    }

    fn read(&self, node: Node, offset: u64, bytes: usize) -> Result<Vec<u8>, Errno> {
        let mut admitted = self.shared.admit(Operation::Read, |state| state.path(node))?;
        let effect = admitted.effect;
        let bytes = if effect == Some(Effect::Short) && bytes > 1 { bytes / 2 } else { bytes };
        let state = &mut *admitted.state;
        let mut data = state.content(node)?.read(offset, bytes)?;
        if effect == Some(Effect::Flip) && !data.is_empty() {
            let at = state.random.below(data.len() as u64) as usize;
            data[at] ^= 1 << state.random.below(8);
        }
        Ok(data)
    }

    fn allocate(&self, node: Node, offset: u64, length: u64, mode: i32) -> Result<(), Errno> {
        let mut admitted = self.shared.admit(Operation::Allocate, |state| state.path(node))?;
        let (state, number) = (&mut *admitted.state, admitted.number);
        if mode & PUNCH_HOLE != 0 {
            return state.change(number, node, Change::Zero { offset, length });
        }
        if mode & !(KEEP_SIZE | ZERO_RANGE) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if mode & ZERO_RANGE != 0 {
            state.change(number, node, Change::Zero { offset, length })?;
        }
        let missing = state.inode(node)?.allocation.missing_bytes(offset, length);
        state.expect_space(missing)?;
        let inode = state.inode(node)?;
        inode.allocation.add(offset, length);
        let content = inode.content.as_mut().ok_or(Errno::EISDIR)?;
        if mode & KEEP_SIZE == 0 && offset + length > content.length() {
            content.change(number, Change::Length(offset + length))?;
        }
        Ok(())
    }

    fn open(&self, node: Node) -> Result<(), Errno> {
        let mut admitted = self.shared.admit(Operation::Open, |state| state.path(node))?;
        admitted.state.inode(node)?.opened += 1;
        Ok(())
    }

    fn rename(&self, from: (Node, &OsStr), to: (Node, &OsStr), flags: RenameFlags) -> Result<(), Errno> {
        let mut admitted = self.shared.admit(Operation::Rename, |state| state.path_in(to.0, to.1))?;
        let (state, number) = (&mut *admitted.state, admitted.number);
        let node = state.names.get(from.0, from.1).ok_or(Errno::ENOENT)?;
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        if let Some(there) = state.names.get(to.0, to.1) {
            if flags.contains(RenameFlags::RENAME_NOREPLACE) {
                return Err(Errno::EEXIST);
            }
            if there == node {
                return Ok(());
            }
            match (state.names.is_directory(node), state.names.entries(there)) {
                (true, None) => return Err(Errno::ENOTDIR),
                (false, Some(_)) => return Err(Errno::EISDIR),
                (true, Some(entries)) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        state.names.change(number, vec![(from.0, from.1.into(), None), (to.0, to.1.into(), Some(node))]);
        state.tidy();
        Ok(())
    }

    fn link(&self, node: Node, parent: Node, name: &OsStr) -> Result<FileAttr, Errno> {
        let mut admitted = self.shared.admit(Operation::Link, |state| state.path_in(parent, name))?;
        let (state, number) = (&mut *admitted.state, admitted.number);
        if state.names.is_directory(node) {
            return Err(Errno::EPERM);
        }
        if state.names.get(parent, name).is_some() {
            return Err(Errno::EEXIST);
        }
        state.expect_space(1)?;
        state.names.change(number, vec![(parent, name.into(), Some(node))]);
        state.inode(node)?.links += 1;
        attributes(state, node)
    }

    fn sync(&self, node: Node) -> Result<(), Errno> {
        let mut admitted = self.shared.admit(Operation::Sync, |state| state.path(node))?;
        if admitted.effect == Some(Effect::Lie) {
            return Ok(());
        }
        let state = &mut *admitted.state;
        state.content(node)?.sync();
        if state.names.sync_file() {
            state.tidy();
        }
        Ok(())
    }

    fn sync_directory(&self, node: Node) -> Result<(), Errno> {
        let mut admitted = self.shared.admit(Operation::SyncDirectory, |state| state.path(node))?;
        if admitted.effect == Some(Effect::Lie) {
            return Ok(());
        }
        if admitted.state.names.sync_directory(node) {
            admitted.state.tidy();
        }
        Ok(())
    }

    fn truncate(&self, node: Node, length: u64) -> Result<(), Errno> {
        let mut admitted = self.shared.admit(Operation::Truncate, |state| state.path(node))?;
        let number = admitted.number;
        admitted.state.change(number, node, Change::Length(length))
    }

    fn list(&self, node: Node) -> Result<Listing, Errno> {
        let admitted = self.shared.admit(Operation::Open, |state| state.path(node))?;
        let names = &admitted.state.names;
        let entries = names.entries(node).ok_or(Errno::ENOTDIR)?;
        let kind = |node| if names.is_directory(node) { FileType::Directory } else { FileType::RegularFile };
        let mut found = vec![(node, FileType::Directory, ".".into()), (ROOT, FileType::Directory, "..".into())];
        found.extend(entries.iter().map(|(name, node)| (*node, kind(*node), name.clone())));
        Ok(found)
    }
}

fn attributes(state: &mut State, node: Node) -> Result<FileAttr, Errno> {
    let inode = state.inode(node)?;
    let length = inode.content.as_ref().map(crate::content::Content::length);
    Ok(FileAttr {
        ino: INodeNo(node),
        size: length.unwrap_or(PAGE_BYTES),
        blocks: inode.allocation.bytes() / 512,
        atime: inode.changed,
        mtime: inode.changed,
        ctime: inode.changed,
        crtime: inode.changed,
        kind: if length.is_some() { FileType::RegularFile } else { FileType::Directory },
        perm: inode.mode,
        nlink: if length.is_some() { inode.links } else { 2 },
        uid: inode.uid,
        gid: inode.gid,
        rdev: 0,
        blksize: PAGE_BYTES as u32,
        flags: 0,
    })
}

/// Answers with what a result holds.
macro_rules! answer {
    ($reply:ident, $result:expr, |$value:pat_param| $good:expr) => {
        match $result {
            Ok($value) => $good,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for FaultFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Where the kernel cannot, a shared mapping of a file is refused.
        let _unsupported = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.shared.lock();
        let found = state.names.get(parent.0, name).ok_or(Errno::ENOENT).and_then(|node| attributes(&mut state, node));
        answer!(reply, found, |found| reply.entry(&NOT_CACHED, &found, Generation(0)));
    }

    fn getattr(&self, _request: &Request, node: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, attributes(&mut self.shared.lock(), node.0), |found| reply.attr(&NOT_CACHED, &found));
    }

    fn setattr(
        &self,
        _request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let done = size.map_or(Ok(()), |size| self.truncate(node.0, size)).and_then(|()| {
            let mut state = self.shared.lock();
            let inode = state.inode(node.0)?;
            inode.mode = mode.map_or(inode.mode, |mode| (mode & 0o7777) as u16);
            (inode.uid, inode.gid) = (uid.unwrap_or(inode.uid), gid.unwrap_or(inode.gid));
            attributes(&mut state, node.0)
        });
        answer!(reply, done, |found| reply.attr(&NOT_CACHED, &found));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let made = self.make(request, parent, name, mode, true, false);
        answer!(reply, made, |made| reply.entry(&NOT_CACHED, &made, Generation(0)));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.make(request, parent, name, mode, false, true);
        let (handle, flags) = (self.handle(), FopenFlags::FOPEN_DIRECT_IO);
        answer!(reply, made, |made| reply.created(&NOT_CACHED, &made, Generation(0), handle, flags));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove(parent, name, false), |()| reply.ok());
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove(parent, name, true), |()| reply.ok());
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.rename((parent.0, name), (new_parent.0, new_name), flags), |()| reply.ok());
    }

    fn link(&self, _request: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let made = self.link(node.0, parent.0, name);
        answer!(reply, made, |made| reply.entry(&NOT_CACHED, &made, Generation(0)));
    }

    fn open(&self, _request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.open(node.0), |()| reply.opened(self.handle(), FopenFlags::FOPEN_DIRECT_IO));
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, self.read(node.0, offset, size as usize), |data| reply.data(&data));
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.write(node.0, offset, data), |bytes| reply.written(bytes));
    }

    fn flush(&self, _request: &Request, _node: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let mut state = self.shared.lock();
        // None after a loss of power: nothing was open any more.
        if let Ok(inode) = state.inode(node.0)
            && inode.opened > 0
        {
            inode.opened -= 1;
            if inode.opened == 0 && inode.links == 0 {
                state.tidy();
            }
        }
        reply.ok();
    }

    fn fsync(&self, _request: &Request, node: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync(node.0), |()| reply.ok());
    }

    fn opendir(&self, _request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.list(node.0), |found| {
            let handle = self.handle();
            self.listings.lock().expect("nothing panics").insert(handle.0, found);
            reply.opened(handle, FopenFlags::empty());
        });
    }

    fn readdir(&self, _request: &Request, _node: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listings = self.listings.lock().expect("nothing panics");
        let found = listings.get(&handle.0).map_or(&[][..], Vec::as_slice);
        for (index, (node, kind, name)) in found.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*node), index as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _request: &Request, _node: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().expect("nothing panics").remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, node: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync_directory(node.0), |()| reply.ok());
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        let state = self.shared.lock();
        let blocks = state.bytes_max.min(BYTES_UNLIMITED) / PAGE_BYTES;
        let free = blocks.saturating_sub(state.used_bytes() / PAGE_BYTES);
        reply.statfs(blocks, free, free, 1 << 20, 1 << 19, PAGE_BYTES as u32, 255, PAGE_BYTES as u32);
    }

    fn access(&self, _request: &Request, _node: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn getxattr(&self, _request: &Request, _node: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.allocate(node.0, offset, length, mode), |()| reply.ok());
    }
}
