//! A cluster: nodes on machines of their own with disks of their own, and one more machine for the clients.
//!
//! A node is the server as it is, started over the memory engine. This file starts, kills and unplugs nodes and lets
//! time pass; when is `faults.rs`, and whether all is well is `invariants.rs`.
//!
//! Invariants:
//!
//! * All machines are at the same true time between steps.
//! * A node that ends by itself, or refuses to start, is noted as broken: no fault here gives it a reason to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trefoil_jepsen::generator::Dice;
use trefoil_server::config::{Config, RawConfig};
use trefoil_server::node::{Node, Ports};
use trefoil_server::writer::Fatal;

use crate::disk::{Disk, Lost};
use crate::faults::{Directory, Down, Kind};
use crate::machine::{Machine, TRUE_RATE_PPM};
use crate::network::{HostId, Network, Weather};
use crate::parameters::{LimitParameters, Parameters, Part, Unsynced, dice};
use crate::probes::{Probes, Rare};
use crate::system;
use crate::trace::Trace;

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// One disk in so many steps remembers how it is, for a later loss of power.
const REMEMBERED_ONE_IN: u64 = 300;

/// See the file's head.
pub struct Cluster {
    pub network: Network,
    nodes: Vec<SimulatedNode>,
    /// Where the clients run; always up, and its clock is true.
    pub clients: Machine,
    now_ms: u64,
    /// What losses of power leave.
    unsynced: Unsynced,
    dice: Dice,
    trace: Trace,
    /// What nodes said when they ended by themselves.
    ended: Arc<Mutex<Vec<String>>>,
    broken: Vec<String>,
    /// What machines and disks came to.
    probes: Probes,
}

struct SimulatedNode {
    config: Config,
    machine: Machine,
    disk: Disk,
    /// As the disk was at the end of the node's first life, when a run wants it.
    old_copy: Option<Disk>,
    keeps_old_copy: bool,
    /// Its directory was replaced by one that the others know to be another.
    outcast: bool,
    /// Kept while the process runs.
    node: Option<Node>,
    unpowered: bool,
    starts: u64,
}

impl Cluster {
    /// A cluster of which no node runs yet. `forgetful`: its disks are (`disk.rs`).
    pub fn new(parameters: &Parameters, forgetful: bool, trace: Trace) -> Cluster {
        let mut dice_of_nodes = dice(parameters.seed, Part::Nodes);
        let clients = HostId(parameters.nodes);
        let weather = |(from, to): (HostId, HostId)| {
            let further = parameters.far.filter(|(far, _)| [from, to].contains(&HostId(*far))).map_or(0, |(_, ms)| ms);
            let Weather { latency_min_ms, latency_max_ms, lost_permille } = parameters.weather;
            Weather {
                latency_min_ms: latency_min_ms + further,
                latency_max_ms: latency_max_ms + further,
                lost_permille,
            }
        };
        let network = Network::new(parameters.nodes + 1, weather, dice(parameters.seed, Part::Network));
        let nodes = (0..parameters.nodes)
            .map(|place| SimulatedNode::new(place, parameters, forgetful, &network, dice_of_nodes.split()))
            .collect();
        let mut clients = Machine::new(clients, network.clone(), TRUE_RATE_PPM, 0, dice_of_nodes.split());
        clients.boot(0);
        Cluster {
            network,
            nodes,
            clients,
            now_ms: 0,
            unsynced: parameters.unsynced,
            dice: dice_of_nodes,
            trace,
            ended: Arc::default(),
            broken: Vec::new(),
            probes: Probes::default(),
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// How many nodes there are.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Where clients reach the nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.config.listen_client.clone()).collect()
    }

    /// Whether a node's process runs.
    pub fn runs(&self, node: usize) -> bool {
        self.nodes[node].node.is_some()
    }

    /// How a node is not running; `None` when it runs.
    pub fn down(&self, node: usize) -> Option<Down> {
        match (self.runs(node), self.nodes[node].unpowered) {
            (true, _) => None,
            (false, false) => Some(Down::Killed),
            (false, true) => Some(Down::Unpowered),
        }
    }

    /// A node's disk, and how often the node was started.
    pub fn disk(&self, node: usize) -> (&Disk, u64) {
        (&self.nodes[node].disk, self.nodes[node].starts)
    }

    /// What happened that must not: nodes that ended or did not start.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// The rare states that machines and disks came to.
    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// Starts a node that is down.
    pub fn start(&mut self, node: usize) {
        let fatal = self.fatal(node);
        let this = &mut self.nodes[node];
        assert!(this.node.is_none(), "n{} is running", node + 1);
        self.network.give_power(HostId(node));
        this.unpowered = false;
        this.old_copy = this.old_copy.take().or_else(|| this.disk_left_by_first_life());
        this.starts += 1;
        self.trace.line(self.now_ms, format_args!("n{} start {}", node + 1, this.starts));
        this.machine.boot(self.now_ms);
        match this.machine.run(start(this.config.clone(), &this.disk, fatal)) {
            Ok(started) => this.node = Some(started),
            Err(why) => {
                this.machine.halt();
                self.broken.push(format!("n{} does not start: {why}", node + 1));
            }
        }
    }

    /// Ends a node's process; what it wrote is kept by its machine.
    pub fn kill(&mut self, node: usize) {
        self.trace.line(self.now_ms, format_args!("n{} killed", node + 1));
        self.end(node);
    }

    /// Takes power from a node's machine.
    pub fn cut_power(&mut self, node: usize) {
        self.trace.line(self.now_ms, format_args!("n{} loses power", node + 1));
        self.network.cut_power(HostId(node));
        self.end(node);
        let this = &mut self.nodes[node];
        this.unpowered = true;
        let Lost { batches, torn_mark } = this.disk.lose_power(self.unsynced, &mut self.dice);
        self.probes.count(Rare::UnsyncedLost, u64::from(batches > 0));
        self.probes.count(Rare::TornMark, u64::from(torn_mark));
    }

    /// Whether a node's directory can be replaced. Of one node it can, so that the others have a majority.
    pub fn may_replace(&self, node: usize, by: Directory) -> bool {
        let there = match by {
            Directory::Empty => true,
            Directory::OldCopy => self.nodes[node].old_copy.is_some(),
        };
        there && self.outcasts().is_empty()
    }

    /// Ends a node's process and puts another directory in the place of its own, for good.
    pub fn replace_directory(&mut self, node: usize, by: Directory) {
        self.trace.line(self.now_ms, format_args!("n{} has another directory: {by:?}", node + 1));
        self.end(node);
        let this = &mut self.nodes[node];
        this.disk = match by {
            Directory::Empty => this.disk.emptied(),
            Directory::OldCopy => this.old_copy.take().expect("whoever replaces has asked whether there is one"),
        };
        this.outcast = true;
    }

    /// The nodes whose directories were replaced: they must stay out.
    pub fn outcasts(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].outcast).collect()
    }

    /// Stops a node's process where it stands, or lets it go on.
    pub fn stand_still(&mut self, node: usize, still: bool) {
        self.nodes[node].machine.stand_still(still);
    }

    /// Lets each sync of a node's disk take so much longer.
    pub fn slow_disk(&mut self, node: usize, by_ms: u64) {
        self.nodes[node].disk.slow_down(Duration::from_millis(by_ms));
    }

    /// Moves a node's wall clock.
    pub fn move_wall_clock(&mut self, node: usize, by_ms: i64) {
        self.nodes[node].machine.move_wall_clock(by_ms);
    }

    /// Lets a millisecond pass.
    pub fn step(&mut self) {
        self.now_ms += 1;
        system::show_ms(self.now_ms);
        self.network.advance(self.now_ms);
        self.nodes.iter_mut().for_each(|node| node.machine.tick());
        self.clients.tick();
        if self.dice.below(REMEMBERED_ONE_IN) == 0 {
            let place = self.dice.below(self.nodes.len() as u64) as usize;
            self.nodes[place].disk.remember();
        }
        self.broken.append(&mut self.ended.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn end(&mut self, node: usize) {
        let ran = self.runs(node);
        self.nodes[node].end();
        let none_runs = (0..self.size()).all(|node| !self.runs(node));
        self.probes.count(Rare::WholeClusterDown, u64::from(ran && none_runs));
    }

    fn fatal(&self, node: usize) -> Fatal {
        let ended = self.ended.clone();
        Arc::new(move |why: String| {
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.push(format!("n{} ended by itself: {why}", node + 1));
        })
    }
}

async fn start(config: Config, disk: &Disk, fatal: Fatal) -> Result<Node, String> {
    let ports = Ports::listen(&config).await.map_err(|error| format!("{error:#}"))?;
    let disk = disk.open()?;
    Node::start(config, ports, disk, fatal).await.map_err(|error| format!("{error:#}"))
}

impl SimulatedNode {
    fn new(place: usize, parameters: &Parameters, forgetful: bool, network: &Network, dice: Dice) -> SimulatedNode {
        let of_machine = &parameters.machines[place];
        let (rate_ppm, wall_offset_ms) = (of_machine.rate_ppm, of_machine.wall_offset_ms);
        SimulatedNode {
            config: config(place, parameters),
            machine: Machine::new(HostId(place), network.clone(), rate_ppm, wall_offset_ms, dice),
            disk: Disk::new(of_machine.sync, forgetful),
            old_copy: None,
            keeps_old_copy: parameters.faults.kinds.contains(&Kind::OldCopy),
            outcast: false,
            node: None,
            unpowered: false,
            starts: 0,
        }
    }

    fn disk_left_by_first_life(&self) -> Option<Disk> {
        (self.keeps_old_copy && self.starts == 1).then(|| self.disk.copy())
    }

    /// Ends the process where it stands. What the node itself holds is dropped first, in its runtime, in which no task
    /// runs any more then.
    fn end(&mut self) {
        if let Some(node) = self.node.take() {
            self.machine.run(async move { drop(node) });
        }
        self.machine.halt();
    }
}

impl Drop for SimulatedNode {
    fn drop(&mut self) {
        self.end();
    }
}

fn config(place: usize, parameters: &Parameters) -> Config {
    let peer = |place: usize| format!("{}:{PEER_PORT}", HostId(place).ip());
    let list: Vec<String> = (0..parameters.nodes).map(|other| format!("n{}={}", other + 1, peer(other))).collect();
    Config::check(RawConfig {
        name: Some(format!("n{}", place + 1)),
        data_dir: Some("/nonexistent/simulated".into()),
        listen_client: Some(format!("{}:{CLIENT_PORT}", HostId(place).ip())),
        listen_peer: Some(peer(place)),
        initial_cluster: Some(list.join(",")),
        log_entries_kept: Some(parameters.log_entries_kept),
        verify_interval_s: Some(parameters.verify_interval_s),
        ..parameters.limits.as_ref().map(limited).unwrap_or_default()
    })
    .expect("a sound configuration")
}

fn limited(limits: &LimitParameters) -> RawConfig {
    RawConfig {
        message_bytes_max: Some(limits.message_bytes_max),
        key_bytes_max: Some(limits.key_bytes_max),
        txn_ops_max: Some(limits.txn_ops_max),
        streams_max: Some(limits.streams_max),
        log_bytes_kept: Some(limits.log_bytes_kept),
        bulk_bytes_per_second: Some(limits.bulk_bytes_per_second),
        ..RawConfig::default()
    }
}
