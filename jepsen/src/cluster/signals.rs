//! Killing, stopping, pausing and continuing the nodes of a cluster.
//!
//! Invariant: each end is judged ([`taken`]). A node that was to be taken down may have ended by itself a moment before,
//! and one that is told to stop may crash over it.
//!
//! Left out: losing power, which takes from their disks too (`disks.rs`).

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::anyhow;
use trefoil_world::clock;

use super::process::{Process, end_of};
use super::{Cluster, Node};

/// A killed process that is still there after this is stuck in the kernel.
pub(super) const END_MAX: Duration = Duration::from_secs(20);
/// How long a clean stop may take; then the node is killed.
const STOP_MAX: Duration = Duration::from_secs(20);

/// What takes a node down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Down {
    /// kill -9.
    Kill,
    /// SIGTERM: it is to stop in order.
    Stop,
}

impl Down {
    fn signal(self) -> i32 {
        match self {
            Down::Kill => libc::SIGKILL,
            Down::Stop => libc::SIGTERM,
        }
    }

    /// How long it may take.
    fn bound(self) -> Duration {
        match self {
            Down::Kill => END_MAX,
            Down::Stop => STOP_MAX,
        }
    }

    /// What there is to say of a node that came to another end.
    fn otherwise(self) -> &'static str {
        match self {
            Down::Kill => "ended by itself",
            Down::Stop => "was told to stop, and did not do so in order",
        }
    }
}

/// Whether a node that came to this end was taken down as it should be. `ends_by_signal`: whether its program ends by the
/// signal once it has stopped. One that has never been ready has nothing to put in order.
fn taken(down: Down, status: ExitStatus, ends_by_signal: bool, ready: bool) -> bool {
    let by_signal = status.signal() == Some(down.signal());
    match down {
        Down::Kill => by_signal,
        Down::Stop => status.success() || by_signal && (ends_by_signal || !ready),
    }
}

/// Nodes that were taken down.
pub(super) struct Taken {
    /// Those that ended by what was done to them.
    pub(super) count: usize,
    /// How long it took to signal them all.
    pub(super) within: Duration,
}

impl Cluster {
    /// kill -9 to these nodes at once, and waits until they are gone; how many there were.
    ///
    /// # Errors
    /// One of them is not gone in time.
    pub async fn kill(&mut self, nodes: &BTreeSet<usize>) -> anyhow::Result<usize> {
        Ok(self.take_down(nodes, Down::Kill).await?.count)
    }

    /// SIGTERM to these nodes at once, and waits until they have stopped; how many did. One that ends otherwise, or not in
    /// time, is in [`Cluster::ended`]; the latter is killed.
    ///
    /// # Errors
    /// The system does not say how one of them is.
    pub async fn terminate(&mut self, nodes: &BTreeSet<usize>) -> anyhow::Result<usize> {
        Ok(self.take_down(nodes, Down::Stop).await?.count)
    }

    /// Signals these nodes at once, and judges how each has ended. What has not ended in time is killed, when its handle
    /// is dropped.
    pub(super) async fn take_down(&mut self, nodes: &BTreeSet<usize>, down: Down) -> anyhow::Result<Taken> {
        self.observe()?;
        let of_node = |&node: &usize| Some((node, self.nodes[node].process.take()?));
        let mut processes: Vec<(usize, Process)> = nodes.iter().filter_map(of_node).collect();
        let began = clock::now();
        for (_, process) in &mut processes {
            process.signal(down.signal())?;
        }
        let within = began.elapsed();
        let (mut count, mut result) = (0, Ok(()));
        for (node, mut process) in processes {
            let ended = process.end(began + down.bound()).await.and_then(|status| self.judge(node, down, status));
            match ended {
                Ok(was_taken) => count += usize::from(was_taken),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.map(|()| Taken { count, within })
    }

    /// Whether a node was taken down as it should be. Otherwise its end is noted.
    ///
    /// # Errors
    /// It was killed, and is still there.
    pub(super) fn judge(&mut self, node: usize, down: Down, status: Option<ExitStatus>) -> anyhow::Result<bool> {
        let Node { place, .. } = &self.nodes[node];
        match (down, status) {
            (_, Some(status)) => {
                let was_taken = taken(down, status, self.program.ends_by_signal(), self.is_ready_by_log(node));
                if !was_taken {
                    self.note_end(node, status, down.otherwise());
                }
                Ok(was_taken)
            }
            (Down::Kill, None) => Err(anyhow!("{} is still there {END_MAX:?} after it was killed", place.name)),
            (Down::Stop, None) => {
                let end = end_of(&self.nodes[node].said());
                let line =
                    format!("{} has not stopped {STOP_MAX:?} after it was told to; its log ends:\n{end}", place.name);
                self.ended.push(line);
                Ok(false)
            }
        }
    }

    fn is_ready_by_log(&self, node: usize) -> bool {
        self.nodes[node].said().contains(self.program.ready_line())
    }

    /// SIGSTOP to these nodes; how many there were. They keep their connections and say nothing.
    ///
    /// # Errors
    /// One of them cannot be signalled.
    pub fn pause(&mut self, nodes: &BTreeSet<usize>) -> anyhow::Result<usize> {
        self.observe()?;
        let mut paused = 0;
        for &node in nodes {
            if let Some(process) = &mut self.nodes[node].process {
                process.signal(libc::SIGSTOP)?;
                paused += 1;
            }
        }
        Ok(paused)
    }

    /// SIGCONT to all nodes; nothing to those that run.
    ///
    /// # Errors
    /// One of them cannot be signalled.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.observe()?;
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.signal(libc::SIGCONT)?;
        }
        Ok(())
    }

    /// Ends the cluster: SIGTERM to all nodes, and SIGKILL to those that have not stopped in time. How each has taken it is
    /// judged: see [`Cluster::ended`].
    ///
    /// # Errors
    /// A node cannot be signalled, or the system does not say how it is. It is killed when the cluster is dropped.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        // A stopped process takes no notice.
        let resumed = self.resume();
        let all: BTreeSet<usize> = (0..self.nodes.len()).collect();
        let stopped = self.terminate(&all).await;
        resumed.and(stopped.map(|_| ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `wait` says of a process that ended with this code, and of one that a signal has ended.
    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn by(signal: i32) -> ExitStatus {
        ExitStatus::from_raw(signal)
    }

    #[test]
    fn who_does_not_stop_in_order_or_was_dead_before_was_not_taken_down() {
        // What was done, the end, whether the program ends by the signal, whether it had been ready, and whether that is
        // as it should be.
        let cases = [
            (Down::Kill, by(libc::SIGKILL), false, true, true),
            (Down::Kill, by(libc::SIGKILL), true, false, true),
            (Down::Kill, exit(70), false, true, false),
            (Down::Kill, exit(74), false, true, false),
            (Down::Kill, exit(0), false, true, false),
            (Down::Kill, by(libc::SIGABRT), true, true, false),
            (Down::Stop, exit(0), false, true, true),
            (Down::Stop, exit(0), true, true, true),
            (Down::Stop, exit(70), false, true, false),
            (Down::Stop, exit(74), false, true, false),
            (Down::Stop, exit(1), false, false, false),
            (Down::Stop, by(libc::SIGSEGV), true, true, false),
            (Down::Stop, by(libc::SIGKILL), false, true, false),
            (Down::Stop, by(libc::SIGTERM), false, true, false),
            (Down::Stop, by(libc::SIGTERM), false, false, true),
            (Down::Stop, by(libc::SIGTERM), true, true, true),
        ];
        for (down, status, ends_by_signal, ready, expected) in cases {
            let found = taken(down, status, ends_by_signal, ready);
            assert_eq!(found, expected, "{down:?}: {status}, ends by it: {ends_by_signal}, ready: {ready}");
        }
    }
}
