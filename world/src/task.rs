//! Tasks and threads. A task that logs brings its own span (`Instrument`): entering one at every poll of a busy task
//! costs more than the task. Under a simulated world everything runs as a task of its one thread.

use std::future::Future;
use std::io;

use tokio::task::JoinHandle;

/// Runs `future` beside the caller.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// Runs work that may block for long off the async threads.
///
/// # Errors
/// When the work panicked or the runtime is going down.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    match crate::is_simulated() {
        true => Ok(work()),
        false => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
    }
}

/// Runs a loop that blocks on the disk: on a thread of its own, or as a task in a simulation.
///
/// # Errors
/// When the operating system has no thread left.
pub fn dedicated(name: &str, future: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    if crate::is_simulated() {
        tokio::spawn(future);
        return Ok(());
    }
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(future)).map(|_| ())
}
