//! An allocator that counts, for tests of what is not allocated.

#![expect(unsafe_code, reason = "a counting allocator is the one way to see that nothing was allocated")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// To be made the test binary's `global_allocator`.
pub(crate) struct Counting;

thread_local! {
    /// Of this thread only: the test harness allocates on its own.
    pub(crate) static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    pub(crate) static BYTES: Cell<usize> = const { Cell::new(0) };
    /// The largest of them, in bytes.
    pub(crate) static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    BYTES.set(BYTES.get() + bytes);
    LARGEST.set(LARGEST.get().max(bytes));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}
