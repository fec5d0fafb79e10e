//! Three real `kvd` processes on loopback, in a temporary folder, killed when dropped.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use trefoil_client::Client;
use trefoil_world::clock;

const READY_PATIENCE: Duration = Duration::from_secs(30);

/// See the file's head.
pub struct Cluster {
    pub endpoints: Vec<String>,
    processes: Vec<Child>,
    _folder: TempDir,
}

impl Cluster {
    /// Starts the nodes and waits until all are ready.
    pub async fn start(kvd: &Path) -> anyhow::Result<Cluster> {
        let folder = tempfile::tempdir()?;
        let ports = free_ports(6)?;
        let address = |port: u16| format!("127.0.0.1:{port}");
        let names: Vec<String> = (1..=3).map(|n| format!("n{n}")).collect();
        let list: Vec<String> = names.iter().zip(&ports[3..]).map(|(n, p)| format!("{n}={}", address(*p))).collect();
        let mut cluster = Cluster { endpoints: Vec::new(), processes: Vec::new(), _folder: folder };
        for (place, name) in names.iter().enumerate() {
            let process = Command::new(kvd)
                .args(["--name", name, "--initial-cluster", &list.join(","), "--log-level", "error"])
                .arg("--data-dir")
                .arg(cluster._folder.path().join(name))
                .args(["--listen-client", &address(ports[place]), "--listen-peer", &address(ports[place + 3])])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot start {}", kvd.display()))?;
            cluster.processes.push(process);
            cluster.endpoints.push(address(ports[place]));
        }
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    async fn wait_ready(&self) -> anyhow::Result<()> {
        let until = clock::now() + READY_PATIENCE;
        for endpoint in &self.endpoints {
            while !ready(endpoint).await {
                if clock::now() > until {
                    bail!("{endpoint} is not ready after {READY_PATIENCE:?}");
                }
                clock::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// User and system time of all nodes since they started.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.processes.iter().map(|process| cpu_of(process.id())).sum()
    }
}

async fn ready(endpoint: &str) -> bool {
    let Ok(client) = Client::connect([endpoint]).await else { return false };
    match client.status_at(endpoint) {
        Ok(status) => status.await.is_ok_and(|status| status.ready),
        Err(_) => false,
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // A process that has ended already needs no killing.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    #[expect(clippy::disallowed_methods, reason = "only to find free ports; nothing is served")]
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<Result<_, _>>()?)
}

fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("malformed stat")?.1.split_whitespace().collect();
    let ticks: u64 =
        fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
    // SAFETY: sysconf reads no memory of ours.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}
