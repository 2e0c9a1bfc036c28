//! Memory that a process shares with the children it forks: an anonymous mapping, no file behind it.

use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// A type that can live in shared memory.
///
/// # Safety
/// All zero bytes are a valid value; any change goes through atomics (several processes write at once); it holds no
/// pointer (the other process may have other memory there) and needs no drop.
pub unsafe trait Shareable: Sync + 'static {}

/// Counters that one process writes and others read, in cache lines of their own: two of them never meet in one.
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

/// A slice in memory shared with every child forked after it was made. Starts as zeroes. Each process unmaps its own view.
#[derive(Debug)]
pub struct SharedSlice<T: Shareable> {
    /// INVARIANT: maps `length` zero-initialised or since validly written `T`s, until drop.
    start: NonNull<T>,
    length: usize,
    items: PhantomData<T>,
}

impl<T: Shareable> SharedSlice<T> {
    /// Maps room for `length` items (mmap(2)); pages that nobody writes cost nothing. ENOMEM when there is no room.
    pub fn new(length: NonZeroUsize) -> io::Result<SharedSlice<T>> {
        let bytes =
            NonZeroUsize::new(size_of::<T>().saturating_mul(length.get())).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory in use.
        let start =
            unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED) }?;
        Ok(SharedSlice { start: start.cast(), length: length.get(), items: PhantomData })
    }
}

impl<T: Shareable> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the field's INVARIANT; pages are aligned for every type; `Shareable` allows shared references while
        // others write.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T: Shareable> Drop for SharedSlice<T> {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and no reference outlives self. It can only fail for arguments that are wrong.
        let _ = unsafe { munmap(self.start.cast(), size_of::<T>() * self.length) };
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and `T: Sync` may be read and written from any.
unsafe impl<T: Shareable> Send for SharedSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Shareable> Sync for SharedSlice<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_fill_whole_cache_lines() {
        assert_eq!((size_of::<Counters<1>>(), size_of::<Counters<8>>(), size_of::<Counters<9>>()), (64, 64, 128));
    }
}
