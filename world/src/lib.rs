//! The world: wall clock, randomness, tasks and sockets.
//!
//! Nothing else of the workspace asks the operating system for these (clippy refuses it), so a whole cluster can run
//! in one thread under another world. A simulation [`enter`]s its world on its thread; every other thread is in the
//! real one. Time itself is tokio's, which a simulation pauses: it needs no trait.
//!
//! Invariants:
//!
//! * All sockets are accepted in [`net::listen`] and dialled in [`net::dial`]: limits, TLS and faults have one place.
//! * Under a simulated world nothing here touches the operating system.
//!
//! Beside the world stands [`planted`]: bugs that a build of its own may have.
//!
//! Left out: the disk, which is the store's `Engine`.

#![allow(clippy::disallowed_methods, reason = "this crate is the replacement the lint names")]

pub mod clock;
pub mod net;
pub mod planted;
pub mod random;
pub mod task;
pub mod turn;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use futures::future::BoxFuture;

/// What a simulation brings in place of the operating system.
pub trait World {
    /// Milliseconds since 1970, as this world's wall clock shows them.
    fn wall_ms(&self) -> u64;

    /// The next random number.
    fn random_u64(&self) -> u64;

    /// Accepts connections at `address` (`host:port`).
    fn listen(&self, address: &str) -> io::Result<net::Listener>;

    /// Connects to `address` (`host:port`).
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<net::Stream>>;
}

thread_local! {
    static SIMULATED: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
}

/// Puts this thread into `world` until the guard is dropped.
pub fn enter(world: Rc<dyn World>) -> Entered {
    SIMULATED.with_borrow_mut(|simulated| {
        assert!(simulated.is_none(), "a thread is in one world at a time");
        *simulated = Some(world);
    });
    Entered
}

/// Ends the stay in a simulated world when dropped.
pub struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        SIMULATED.with_borrow_mut(|simulated| *simulated = None);
    }
}

/// Whether this thread is in a simulated world.
pub fn is_simulated() -> bool {
    SIMULATED.with_borrow(Option::is_some)
}

/// The simulated world this thread is in, if any.
fn simulated() -> Option<Rc<dyn World>> {
    SIMULATED.with_borrow(Clone::clone)
}
