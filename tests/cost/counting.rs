//! The system's allocator, with a count of what each thread asks of it.
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait; this one only counts and hands on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to `System` unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    /// Growing counts as one more: it may copy all there is.
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }
}

fn count() {
    // A thread that is ending has no counter any more, and nobody who reads it.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

/// Allocations of this thread so far.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// Runs `f` without counting what it allocates: what belongs to the test and not to the call.
pub(crate) fn uncounted<T>(f: impl FnOnce() -> T) -> T {
    let before = ALLOCATIONS.get();
    let value = f();
    ALLOCATIONS.set(before);
    value
}

#[test]
fn every_way_to_allocate_counts_once_unless_it_is_the_tests_own() {
    let counted = |f: fn() -> Vec<u8>| {
        let before = allocations();
        drop(f());
        allocations() - before
    };
    assert_eq!(counted(Vec::new), 0);
    assert_eq!(counted(|| Vec::with_capacity(10)), 1);
    assert_eq!(counted(|| vec![0; 10]), 1);
    assert_eq!(
        counted(|| {
            let mut grown = Vec::with_capacity(10);
            grown.reserve_exact(100);
            grown
        }),
        2
    );
    assert_eq!(counted(|| uncounted(|| vec![1; 10])), 0);
}
