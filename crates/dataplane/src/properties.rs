//! What must hold for any bytes that a client or a server sends: the sentences that fuzzing tries to refute.
//!
//! Owns the list of [`TARGETS`] and the measure of the memory that one takes. `properties/frames.rs` and
//! `properties/answers.rs` have the sentences; each is stated once, for two callers: the programs in
//! `fuzz/fuzz_targets` search for bytes that break it, and `properties/replay.rs`, an ordinary test, tries all bytes
//! of `fuzz/corpus` again, whole and cut. Neither is part of the library that is shipped: this is compiled
//! for tests and for fuzzing only.

mod answers;
mod frames;
#[cfg(test)]
mod replay;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Panics if the bytes break it.
pub type Property = fn(&[u8]);

/// Each property with the name of its fuzz target and of the folder of its corpus.
pub const TARGETS: [(&str, Property); 5] = [
    ("requests", frames::requests),
    ("replies", frames::replies),
    ("keys", answers::keys),
    ("merge", answers::merge),
    ("exec", answers::exec),
];

/// Tries the property of this name.
///
/// # Panics
/// If the bytes break it.
pub fn hold(name: &str, bytes: &[u8]) {
    let known = TARGETS.iter().find(|&&(known, _)| known == name);
    let &(_, property) = known.expect("a name in TARGETS");
    property(bytes);
}

/// Runs `work`, which may take no more than `most` bytes of memory at any moment.
fn bounded<T>(most: usize, work: impl FnOnce() -> T) -> T {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    let taken = PEAK.get() - before;
    assert!(
        taken <= most.cast_signed(),
        "took {taken} bytes, {most} are allowed"
    );
    result
}

thread_local! {
    /// Bytes that this thread has taken and not given back; below 0 where it gave back another's.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The system's allocator, counted for [`bounded`].
struct Counting;

impl Counting {
    fn took(bytes: isize) {
        // A thread that ends has no counters any more.
        let _ = LIVE.try_with(|live| {
            live.set(live.get() + bytes);
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
        });
    }
}

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its nature; this one passes everything on"
)]
// SAFETY: all that is asked is the system's allocator's to answer.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::took(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::took(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        Self::took(-layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::took(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}
