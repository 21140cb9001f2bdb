//! The system's allocator, with the sum of what each thread asks of it.
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait; this one only counts and hands on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

struct Summing;

#[global_allocator]
static SUMMING: Summing = Summing;

// SAFETY: every call goes to `System` unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Summing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        add(new_size);
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }
}

fn add(size: usize) {
    // A thread that is ending has no counter any more, and nobody who reads it.
    let _ = BYTES.try_with(|sum| sum.set(sum.get().wrapping_add(size)));
}

/// Bytes that this thread has asked for so far.
pub(crate) fn bytes() -> usize {
    BYTES.get()
}

#[test]
fn all_that_is_asked_for_is_counted() {
    let before = bytes();
    let mut list = vec![0u8; 100];
    list.reserve_exact(1000);
    drop(list);
    assert_eq!(bytes() - before, 100 + 1100);
}
