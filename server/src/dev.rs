//! `kvd dev`: several full nodes in one process, to try things out.
//!
//! The nodes differ from real ones in nothing but their process. Their data is kept between runs; ports may change
//! between runs, since nodes register their addresses anew.

use std::io::{self, Write};

use anyhow::Context;

use crate::config::{Config, Dev, RawConfig};
use crate::disk;
use crate::node::{Node, Ports};
use crate::writer::Fatal;

/// Starts the nodes.
///
/// # Errors
/// A directory cannot be opened, or a port is in use.
pub async fn start(dev: &Dev, fatal: Fatal) -> anyhow::Result<Vec<Node>> {
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
