//! The system's clocks and randomness as libraries find them: taken over while a seed runs.
//!
//! Our own code asks the world. Libraries ask libc: the standard library seeds its hash maps with `getrandom`; by
//! `clock_gettime` h2 forgets, after a second, the streams it has reset, and hyper dates its replies. This file defines
//! both functions, so that the linker takes these instead of libc's, in the whole program. They pass on to the kernel
//! until a seed runs: then every clock shows the simulation's true time, and randomness is a stream from one number.
//!
//! This is state of the process, since the two functions belong to the process; it runs one seed.
//!
//! Invariants:
//!
//! * While a seed runs, nothing that its thread gets here is of the real world: asserted when it begins.
//! * Time moves in [`show_ms`] only.
//!
//! Left out: the rates of the machines' clocks. Timers are tokio's and follow them; what is read here does not.

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::hash::RandomState;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use trefoil_jepsen::generator::Dice;
use trefoil_world::clock;

/// What clocks that are right show at the beginning, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

static TAKEN: AtomicBool = AtomicBool::new(false);
/// Milliseconds of true time since the beginning.
static NOW_MS: AtomicU64 = AtomicU64::new(0);
/// The number the next eight random bytes are made of.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Gives clocks and randomness back to the system when dropped.
#[must_use = "they are given back when it is dropped"]
pub struct TakenOver(());

/// Takes clocks and randomness over. `entropy` is what randomness is made of: nothing may depend on it.
///
/// Call it before the thread makes a hash map: its first one decides how all are seeded.
pub fn take_over(entropy: u64) -> TakenOver {
    let first = Dice::new(entropy).roll();
    NEXT.store(first, Ordering::Relaxed);
    NOW_MS.store(0, Ordering::Relaxed);
    assert!(!TAKEN.swap(true, Ordering::Relaxed), "a process runs one seed at a time");
    let _first_in_this_thread = RandomState::new();
    assert_ne!(NEXT.load(Ordering::Relaxed), first, "hash maps are seeded here, and none was before");
    assert_eq!(clock::wall_ms(), EPOCH_MS, "clocks are read here");
    TakenOver(())
}

impl Drop for TakenOver {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Relaxed);
    }
}

/// Moves the clocks to so much after the beginning.
pub fn show_ms(now_ms: u64) {
    NOW_MS.store(now_ms, Ordering::Relaxed);
}

/// libc's function of this name. No flag changes anything while it is taken over: it never blocks.
///
/// # Safety
/// `into` takes `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(into: *mut c_void, length: usize, flags: c_uint) -> isize {
    if !TAKEN.load(Ordering::Relaxed) {
        // SAFETY: the kernel asks of the caller what this function asks.
        return unsafe { libc::syscall(libc::SYS_getrandom, into, length, flags) as isize };
    }
    let mut bytes = [0; 8];
    for place in 0..length {
        if place % bytes.len() == 0 {
            bytes = Dice::new(NEXT.fetch_add(1, Ordering::Relaxed)).roll().to_be_bytes();
        }
        // SAFETY: `place` is below the length the caller vouches for.
        unsafe { into.cast::<u8>().add(place).write(bytes[place % bytes.len()]) };
    }
    isize::try_from(length).expect("no buffer is longer")
}

/// libc's function of this name. Every clock shows the same while it is taken over.
///
/// # Safety
/// `into` takes a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(which: libc::clockid_t, into: *mut libc::timespec) -> c_int {
    if !TAKEN.load(Ordering::Relaxed) {
        // SAFETY: the kernel asks of the caller what this function asks.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, which, into) as c_int };
    }
    let ms = EPOCH_MS + NOW_MS.load(Ordering::Relaxed);
    let shown = libc::timespec { tv_sec: (ms / 1000) as libc::time_t, tv_nsec: (ms % 1000 * 1_000_000) as c_long };
    // SAFETY: the caller vouches for it.
    unsafe { into.write(shown) };
    0
}
