//! The server processes that are measured: where they listen, when they are ready, what CPU time they took.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use trefoil_client::Client;
use trefoil_world::clock;

const READY_PATIENCE: Duration = Duration::from_secs(30);

/// A server process, killed when dropped.
pub struct Process(Child);

impl Process {
    /// Starts it, silenced.
    pub fn start(command: &mut Command) -> anyhow::Result<Process> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Process(child))
    }

    /// User and system time since it started.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("malformed stat")?.1.split_whitespace().collect();
        let ticks: u64 =
            fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
        // SAFETY: sysconf reads no memory of ours.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
        Ok(Duration::from_millis(ticks * 1000 / per_second))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has ended already needs no killing.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until the server at `endpoint` says that it is ready.
pub async fn wait_ready(endpoint: &str) -> anyhow::Result<()> {
    let until = clock::now() + READY_PATIENCE;
    while !ready(endpoint).await {
        if clock::now() > until {
            bail!("{endpoint} is not ready after {READY_PATIENCE:?}");
        }
        clock::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn ready(endpoint: &str) -> bool {
    let Ok(client) = Client::connect([endpoint]).await else { return false };
    match client.status_at(endpoint) {
        Ok(status) => status.await.is_ok_and(|status| status.ready),
        Err(_) => false,
    }
}

/// Ports of loopback that nobody listens at.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    #[expect(clippy::disallowed_methods, reason = "only to find free ports; nothing is served")]
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<Result<_, _>>()?)
}
