//! Interrupts: at SIGINT and SIGTERM what runs is taken down and cleaned up.
//!
//! The work is dropped where it waits: that kills its nodes and removes their namespaces and records (`cluster.rs`,
//! `backend.rs`). Signals are heard on another thread, so that a second one ends the program at once, also while the work
//! does not wait (a checker may search for a while) or is being dropped. What is left then is for the next sweep
//! (`cleanup.rs`).
//!
//! Left out: SIGHUP and SIGQUIT, which end the program as ever.

use std::future::Future;
use std::process;

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use trefoil_world::task;

/// What the program exits with after an interrupt, as when the harness failed: nothing was judged.
pub const EXIT_CODE: u8 = 255;

/// Does the work, unless it is interrupted. To be called once in a program: signals are heard from then on.
///
/// # Errors
/// It was interrupted, and what it had made is removed; or as the work.
pub async fn or_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let signals = Signals::listen().context("cannot listen for signals")?;
    let (first, told) = oneshot::channel();
    let listener = task::spawn(signals.hear(first));
    // What is not chosen is dropped before the choice is acted on.
    let done = tokio::select! {
        biased;
        Ok(name) = told => Err(name),
        done = work => Ok(done),
    };
    listener.abort();
    match done {
        Ok(done) => done,
        Err(name) => bail!("interrupted by {name}: what ran is taken down, and not judged"),
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Tells of the first one. At the second one the program ends.
    async fn hear(mut self, first: oneshot::Sender<&'static str>) {
        let name = self.next().await;
        eprintln!("jepsen: {name}: cleaning up; a second one ends it at once");
        // Nobody hears it when the work is done already.
        let _ = first.send(name);
        let name = self.next().await;
        eprintln!("jepsen: {name} again: what is left is removed by `jepsen cleanup`");
        process::exit(i32::from(EXIT_CODE));
    }

    /// The next one, by its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
