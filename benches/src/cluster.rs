//! Three real `kvd` processes on loopback, in a temporary folder, killed when dropped.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Process, free_ports, wait_ready};

/// See the file's head.
pub struct Cluster {
    pub endpoints: Vec<String>,
    processes: Vec<Process>,
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
            let process = Process::start(
                Command::new(kvd)
                    .args(["--name", name, "--initial-cluster", &list.join(","), "--log-level", "error"])
                    .arg("--data-dir")
                    .arg(cluster._folder.path().join(name))
                    .args(["--listen-client", &address(ports[place]), "--listen-peer", &address(ports[place + 3])]),
            )?;
            cluster.processes.push(process);
            cluster.endpoints.push(address(ports[place]));
        }
        for endpoint in &cluster.endpoints {
            wait_ready(endpoint).await?;
        }
        Ok(cluster)
    }

    /// User and system time of all nodes since they started.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }
}
