//! Memory that a process shares with the children it forks, and to which a child can give up
//! writing for good.
//!
//! The memory is a file in memory, not an anonymous mapping, because a file can be sealed against
//! new writable mappings (F_SEAL_FUTURE_WRITE, fcntl(2)). A child that has replaced its mapping by
//! a read-only one cannot go back, whatever runs in it. On a system without such files the pages
//! are only protected, which helps against accidents.

use std::ffi::CStr;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::{Deref, Range};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::fstat;
use nix::unistd::{SysconfVar, ftruncate, sysconf};

use crate::base::unpoisoned::Unpoisoned;

/// A type that can live in shared memory.
///
/// # Safety
/// All zero bytes are a valid value; any change goes through atomics (several processes write at
/// once); it holds no pointer (the other process may have other memory there) and needs no drop; it
/// needs no larger alignment than a page has.
pub unsafe trait Shareable: Sync + 'static {}

/// Counters that one process writes and others read, in cache lines of their own: no two `Counters`
/// share one.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Counters<const N: usize>([AtomicU64; N]);

// SAFETY: nothing but atomics, for which zero is a value.
unsafe impl<const N: usize> Shareable for Counters<N> {}

impl<const N: usize> Deref for Counters<N> {
    type Target = [AtomicU64; N];

    fn deref(&self) -> &[AtomicU64; N] {
        &self.0
    }
}

/// A slice in memory shared with every child forked after it was made. Starts as zeroes. Each
/// process unmaps its own view.
#[derive(Debug)]
pub struct SharedSlice<T: Shareable> {
    mapping: Mapping,
    length: usize,
    items: PhantomData<T>,
}

impl<T: Shareable> SharedSlice<T> {
    /// Maps room for `length` items (mmap(2)); pages that are never touched cost nothing. `name` is
    /// what /proc shows. ENOMEM when there is no room.
    pub fn new(name: &CStr, length: NonZeroUsize) -> io::Result<SharedSlice<T>> {
        let mapping = Mapping::new(name, size_of::<T>().saturating_mul(length.get()))?;
        Ok(SharedSlice { mapping, length: length.get(), items: PhantomData })
    }

    /// As [`SharedSlice::new`], for memory that the program executed next may write as well: that
    /// program gets the [descriptor](SharedSlice::descriptor). Any process that has the descriptor
    /// may write.
    pub fn for_successors(name: &CStr, length: NonZeroUsize) -> io::Result<SharedSlice<T>> {
        let mapping = Mapping::open_to_successors(name, size_of::<T>().saturating_mul(length.get()))?;
        Ok(SharedSlice { mapping, length: length.get(), items: PhantomData })
    }

    /// The memory that an earlier program has made by [`SharedSlice::for_successors`]. `None` for
    /// any other file.
    pub fn inherited(file: OwnedFd, length: NonZeroUsize) -> io::Result<Option<SharedSlice<T>>> {
        let bytes = size_of::<T>().saturating_mul(length.get()).next_multiple_of(page_size()?);
        let mapping = Mapping::of_unsealed(file, bytes)?;
        Ok(mapping.map(|mapping| SharedSlice { mapping, length: length.get(), items: PhantomData }))
    }

    /// The number of the memory's file; `None` once this process has given up writing, or on a
    /// system without files in memory.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.mapping.descriptor()
    }

    /// From now on this process only reads. For a child right after the fork: no other thread may
    /// use the memory meanwhile.
    pub fn give_up_writing(&self) -> io::Result<()> {
        self.mapping.keep_writable(0..0)
    }
}

impl<T: Shareable> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `length` zero-initialised or since validly written `T`s; pages
        // are aligned for them; `Shareable` allows shared references while others write.
        unsafe { std::slice::from_raw_parts(self.mapping.start.cast().as_ptr(), self.length) }
    }
}

/// As [`SharedSlice`], with every item on pages of its own, so that a child can keep one of them
/// writable.
#[derive(Debug)]
pub struct SharedPages<T: Shareable> {
    mapping: Mapping,
    /// Bytes from one item to the next.
    stride: usize,
    length: usize,
    items: PhantomData<T>,
}

impl<T: Shareable> SharedPages<T> {
    /// As [`SharedSlice::new`].
    pub fn new(name: &CStr, length: NonZeroUsize) -> io::Result<SharedPages<T>> {
        let stride = size_of::<T>().max(1).next_multiple_of(page_size()?);
        let mapping = Mapping::new(name, stride.saturating_mul(length.get()))?;
        Ok(SharedPages { mapping, stride, length: length.get(), items: PhantomData })
    }

    /// Pages that the program executed next is going to write, by [`SharedPages::inherited`]; this
    /// process only reads them. `None` on a system without files in memory.
    pub fn for_successor(name: &CStr, length: NonZeroUsize) -> io::Result<Option<SharedPages<T>>> {
        let stride = size_of::<T>().max(1).next_multiple_of(page_size()?);
        let bytes = NonZeroUsize::new(stride.saturating_mul(length.get())).ok_or(io::ErrorKind::InvalidInput)?;
        let Some(file) = file_in_memory(name, bytes) else { return Ok(None) };
        add_seals(&file, &FIXED_SIZE);
        SharedPages::of_file(file)
    }

    /// Pages whose file an earlier program has made by [`SharedPages::for_successor`]. From now on
    /// they are like those of [`SharedPages::new`]. `None` for any other file.
    pub fn inherited(file: OwnedFd, length: NonZeroUsize) -> io::Result<Option<SharedPages<T>>> {
        let stride = size_of::<T>().max(1).next_multiple_of(page_size()?);
        let Some(mapping) = Mapping::of_unsealed(file, stride.saturating_mul(length.get()))? else { return Ok(None) };
        mapping.file.lock().unpoisoned().iter().for_each(|file| add_seals(file, &[SealFlag::F_SEAL_FUTURE_WRITE]));
        Ok(Some(SharedPages { mapping, stride, length: length.get(), items: PhantomData }))
    }

    /// The number of the file; `None` once the file was given up, or on a system without files in
    /// memory.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.mapping.descriptor()
    }

    /// Closes the file. The mapping stays.
    pub fn close_file(&self) {
        drop(self.mapping.file.lock().unpoisoned().take());
    }

    /// The pages of another process, from its `file` in memory, to be read only. `None` where the
    /// file is too short for an item.
    ///
    /// # Errors
    /// The file cannot be mapped.
    pub fn of_file(file: OwnedFd) -> io::Result<Option<SharedPages<T>>> {
        let stride = size_of::<T>().max(1).next_multiple_of(page_size()?);
        let size = usize::try_from(fstat(&file)?.st_size).unwrap_or(0);
        let Some(bytes) = NonZeroUsize::new(size / stride * stride) else { return Ok(None) };
        // Our files are sealed against becoming shorter: without the seal, reading the pages could
        // end this process.
        if !fcntl(&file, FcntlArg::F_GET_SEALS).is_ok_and(|seals| seals & SealFlag::F_SEAL_SHRINK.bits() != 0) {
            return Ok(None);
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory in use.
        let start = unsafe { mmap(None, bytes, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &file, 0) }?;
        let mapping = Mapping { start, bytes, file: Mutex::new(Some(file)) };
        Ok(Some(SharedPages { mapping, stride, length: bytes.get() / stride, items: PhantomData }))
    }

    /// How many items there are.
    pub fn count(&self) -> usize {
        self.length
    }

    /// The item with this number, which must be below [`SharedPages::count`].
    pub fn at(&self, number: usize) -> &T {
        assert!(number < self.length, "item {number} of {}", self.length);
        // SAFETY: within the mapping, as was just seen; for the rest as in `SharedSlice`.
        unsafe { self.mapping.start.cast::<u8>().add(number * self.stride).cast().as_ref() }
    }

    /// From now on this process writes to the item with this number only. The condition of
    /// [`SharedSlice::give_up_writing`] holds here, too.
    pub fn keep_writable(&self, number: usize) -> io::Result<()> {
        self.mapping.keep_writable(number * self.stride..(number + 1) * self.stride)
    }
}

/// Shared pages, unmapped on drop.
#[derive(Debug)]
struct Mapping {
    /// INVARIANT: maps `bytes` bytes, readable at least, until drop.
    start: NonNull<libc::c_void>,
    bytes: NonZeroUsize,
    /// The file that is mapped, until the process gives it up. `None` also on a system without
    /// files in memory.
    file: Mutex<Option<OwnedFd>>,
}

impl Mapping {
    fn new(name: &CStr, bytes: usize) -> io::Result<Mapping> {
        let mapping = Mapping::open_to_successors(name, bytes)?;
        // A kernel before 5.1 does not know this seal; then the pages are as safe as without a
        // file.
        let file = mapping.file.lock().unpoisoned();
        file.iter().for_each(|file| add_seals(file, &[SealFlag::F_SEAL_FUTURE_WRITE]));
        drop(file);
        Ok(mapping)
    }

    /// As `new`, without the seal that keeps other processes from writing.
    fn open_to_successors(name: &CStr, bytes: usize) -> io::Result<Mapping> {
        let bytes = NonZeroUsize::new(bytes.next_multiple_of(page_size()?)).ok_or(io::ErrorKind::InvalidInput)?;
        let file = file_in_memory(name, bytes);
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        let start = match &file {
            // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory in
            // use.
            Some(file) => unsafe { mmap(None, bytes, access, flags, file, 0) }?,
            // SAFETY: as above.
            None => unsafe { mmap_anonymous(None, bytes, access, flags) }?,
        };
        file.iter().for_each(|file| add_seals(file, &FIXED_SIZE));
        Ok(Mapping { start, bytes, file: Mutex::new(file) })
    }

    /// Maps a file of this size that another process has made without that seal; `None` for any
    /// other file.
    fn of_unsealed(file: OwnedFd, bytes: usize) -> io::Result<Option<Mapping>> {
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map_or(SealFlag::empty(), SealFlag::from_bits_retain);
        let is_ours = seals.contains(SealFlag::F_SEAL_SHRINK) && !seals.contains(SealFlag::F_SEAL_FUTURE_WRITE);
        let size = usize::try_from(fstat(&file)?.st_size).unwrap_or(0);
        let Some(bytes) = NonZeroUsize::new(bytes).filter(|bytes| is_ours && size == bytes.get()) else {
            return Ok(None);
        };
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory in use.
        // The file cannot become shorter.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, &file, 0) }?;
        Ok(Some(Mapping { start, bytes, file: Mutex::new(Some(file)) }))
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.file.lock().unpoisoned().as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Only these bytes, whole pages, stay writable in this process.
    fn keep_writable(&self, kept: Range<usize>) -> io::Result<()> {
        let file = self.file.lock().unpoisoned().take();
        self.make_read_only(0..kept.start, file.as_ref())?;
        self.make_read_only(kept.end..self.bytes.get(), file.as_ref())
    }

    fn make_read_only(&self, pages: Range<usize>, file: Option<&OwnedFd>) -> io::Result<()> {
        let Some(length) = NonZeroUsize::new(pages.len()) else { return Ok(()) };
        // SAFETY: both callers pass a range within the mapping.
        let start = unsafe { self.start.cast::<u8>().add(pages.start) };
        match file {
            // SAFETY: the same pages of the same file are mapped at the same address, and no other
            // thread uses them meanwhile, so references into them stay valid.
            Some(file) => unsafe {
                let (flags, offset) = (MapFlags::MAP_SHARED | MapFlags::MAP_FIXED, pages.start as libc::off_t);
                mmap(Some(start.addr()), length, ProtFlags::PROT_READ, flags, file, offset)?;
            },
            // SAFETY: the pages stay mapped and readable, which is all that references into them
            // need.
            None => unsafe { mprotect(start.cast(), length.get(), ProtFlags::PROT_READ) }?,
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and no reference outlives self. It can only fail for
        // arguments that are wrong.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}

// SAFETY: the mapping belongs to the process, not to a thread; what is in it is reached through
// `T: Sync` only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// The seals that keep the size of a file.
const FIXED_SIZE: [SealFlag; 2] = [SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW];

/// Seals the file, as far as the kernel knows the seals.
fn add_seals(file: &OwnedFd, seals: &[SealFlag]) {
    for seal in seals {
        let _ = fcntl(file, FcntlArg::F_ADD_SEALS(*seal));
    }
}

/// A file in memory of this many zeroes; `None` on a system without such files, or where none of
/// that size can be made.
fn file_in_memory(name: &CStr, bytes: NonZeroUsize) -> Option<OwnedFd> {
    // If the process makes a file longer than this, a signal ends the process (setrlimit(2)).
    let (longest, _) = getrlimit(Resource::RLIMIT_FSIZE).ok()?;
    if longest < bytes.get() as u64 {
        return None;
    }
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Kernels before 6.3 do not know the third flag; later ones warn without it.
    let not_executable = flags | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let file = memfd_create(name, not_executable).or_else(|_| memfd_create(name, flags)).ok()?;
    ftruncate(&file, bytes.get() as libc::off_t).ok()?;
    Some(file)
}

fn page_size() -> io::Result<usize> {
    let size = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| usize::try_from(size).ok());
    size.filter(|size| size.is_power_of_two()).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::sys::fork::{Forked, fork};
    use crate::sys::process::{End, exit_now, reap};

    type Items = SharedPages<Counters<3>>;

    #[test]
    fn counters_fill_whole_cache_lines() {
        assert_eq!((size_of::<Counters<1>>(), size_of::<Counters<8>>(), size_of::<Counters<9>>()), (64, 64, 128));
    }

    #[test]
    fn a_child_can_write_only_to_the_item_it_has_kept() {
        let items = Items::new(c"test", NonZeroUsize::new(4).unwrap()).unwrap();
        let without_file = without_file(&items);
        for items in [&items, &without_file] {
            for (at, end) in [(2, End::Exited(0)), (1, End::Killed(libc::SIGSEGV)), (3, End::Killed(libc::SIGSEGV))] {
                let ended = in_child(|| {
                    items.keep_writable(2).unwrap();
                    assert_eq!(items.at(0)[0].load(Relaxed), 7);
                    items.at(at)[1].fetch_add(1, Relaxed);
                });
                items.at(0)[0].store(7, Relaxed);
                assert_eq!(ended(), end, "{at}");
            }
            assert_eq!([1, 2, 3].map(|at| items.at(at)[1].load(Relaxed)), [0, 1, 0]);
        }
    }

    #[test]
    fn a_page_that_was_given_up_cannot_be_made_writable_again() {
        let slice = SharedSlice::<Counters<1>>::new(c"test", NonZeroUsize::MIN).unwrap();
        let ended = in_child(|| {
            slice.give_up_writing().unwrap();
            // SAFETY: whether the pages can be made writable is what is asked here; nothing is
            // written.
            let asked = unsafe { mprotect(slice.mapping.start, 1, ProtFlags::PROT_WRITE) };
            exit_now(if asked.is_err() { 3 } else { 4 });
        });
        assert_eq!(ended(), End::Exited(3));
        slice[0][0].store(1, Relaxed);
    }

    fn without_file(items: &Items) -> Items {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let bytes = items.mapping.bytes;
        // SAFETY: as in `Mapping::new`.
        let start = unsafe { mmap_anonymous(None, bytes, access, MapFlags::MAP_SHARED) }.unwrap();
        let mapping = Mapping { start, bytes, file: Mutex::new(None) };
        SharedPages { mapping, stride: items.stride, length: items.length, items: PhantomData }
    }

    /// Runs `action` in a child; the returned function waits for its end.
    fn in_child(action: impl FnOnce()) -> impl FnOnce() -> End {
        let (mut gate, mut opener) = io::pipe().unwrap();
        match fork().unwrap() {
            Forked::Child => {
                io::Read::read_exact(&mut gate, &mut [0]).unwrap();
                action();
                exit_now(0)
            }
            Forked::Parent(pid) => move || {
                // A byte, and not the pipe's end: a child of another test may hold a copy of this
                // one.
                io::Write::write_all(&mut opener, b"!").unwrap();
                loop {
                    if let Some(end) = reap(pid) {
                        return end;
                    }
                    std::thread::yield_now();
                }
            },
        }
    }
}
