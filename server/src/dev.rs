//! `kvd dev`: several full nodes in one process, to try things out.
//!
//! The nodes differ from real ones in nothing but their process. Their data is kept between runs; ports may change
//! between runs, since nodes register their addresses anew.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, ensure};

use crate::config::{Config, DEV_NODES_MAX, Dev, RawConfig};
use crate::disk;
use crate::node::{Node, Ports};
use crate::writer::Fatal;

/// Starts the nodes.
///
/// # Errors
/// A directory cannot be opened or is of another number of nodes, or a port is in use.
pub async fn start(dev: &Dev, fatal: Fatal) -> anyhow::Result<Vec<Node>> {
    expect_founders(&dev.data_dir, dev.nodes)?;
    let port = |node: u16| dev.base_port + (node - 1) * 100;
    let cluster: Vec<String> = (1..=dev.nodes).map(|n| format!("n{n}=127.0.0.1:{}", port(n) + 1)).collect();
    let mut nodes = Vec::new();
    for n in 1..=dev.nodes {
        let config = Config::check(RawConfig {
            name: Some(format!("n{n}")),
            data_dir: Some(dev.data_dir.join(format!("n{n}"))),
            listen_client: Some(format!("127.0.0.1:{}", port(n))),
            listen_peer: Some(format!("127.0.0.1:{}", port(n) + 1)),
            initial_cluster: Some(cluster.join(",")),
            ..RawConfig::default()
        })?;
        let ports = Ports::listen(&config).await.with_context(|| format!("n{n}"))?;
        let disk = disk::open(&config.data_dir, &config.name, false)?;
        nodes.push(Node::start(config, ports, disk, fatal.clone()).await.with_context(|| format!("n{n}"))?);
    }
    let endpoints: Vec<String> = nodes.iter().map(|node| node.client_address.to_string()).collect();
    // The nodes go on when nobody reads it.
    drop(io::stdout().write_all(greeting(dev, &endpoints.join(",")).as_bytes()));
    Ok(nodes)
}

/// A cluster keeps its nodes: with fewer it may never be ready, and others never become members.
fn expect_founders(dir: &Path, nodes: u16) -> anyhow::Result<()> {
    for n in 1..=DEV_NODES_MAX {
        if let Some(founders) = disk::founders(&dir.join(format!("n{n}")))? {
            let expected = founders == usize::from(nodes);
            let dir = dir.display();
            ensure!(expected, "{dir}: holds {founders} nodes, not {nodes}; start it with --nodes {founders}");
        }
    }
    Ok(())
}

fn greeting(dev: &Dev, endpoints: &str) -> String {
    format!(
        "{} nodes, data in {}\n\
         try, in another terminal:\n  \
           export KVCTL_ENDPOINTS={endpoints}\n  \
           kvctl put greeting hello\n  \
           kvctl get greeting\n  \
           kvctl cluster status\n\
         Ctrl-C stops all\n",
        dev.nodes,
        dev.data_dir.display(),
    )
}
