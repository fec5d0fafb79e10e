//! The graph of transactions: an edge says that one comes before another, and why. Its strongly connected components.
//!
//! Components are found as Tarjan did (1972), with a stack of our own in place of recursion.
//!
//! Invariants:
//!
//! * No edge leads from a transaction to itself.
//! * A component has more than one node, hence a cycle.

use crate::workload::append::List;

/// A transaction: its place in the history's list of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(pub(super) usize);

/// What an edge is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ww,
    Wr,
    Rw,
    Process,
    Realtime,
}

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// In the list, what the other one appended comes next after what this one appended.
    Ww { list: List, earlier: u64, later: u64 },
    /// This one appended the last value that was read; the other one's was never read.
    WwUnread { list: List, earlier: u64, later: u64 },
    /// The other one has read the list up to this one's value.
    Wr { list: List, value: u64 },
    /// This one has read the list up to `last`, without the other one's value.
    Rw { list: List, last: Option<u64>, without: u64 },
    /// The same process asked for this one, then for the other one.
    Process,
    /// This one had ended when the other one began.
    Realtime,
}

impl Why {
    pub(super) fn kind(self) -> Kind {
        match self {
            Why::Ww { .. } | Why::WwUnread { .. } => Kind::Ww,
            Why::Wr { .. } => Kind::Wr,
            Why::Rw { .. } => Kind::Rw,
            Why::Process => Kind::Process,
            Why::Realtime => Kind::Realtime,
        }
    }

    /// Whether it shows that one's append was seen in a read.
    pub(super) fn is_seen(self) -> bool {
        match self.kind() {
            Kind::Ww | Kind::Wr => true,
            Kind::Rw | Kind::Process | Kind::Realtime => false,
        }
    }
}

/// `from` comes before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: Node,
    pub(super) to: Node,
    pub(super) why: Why,
}

impl Edge {
    pub(super) fn kind(&self) -> Kind {
        self.why.kind()
    }
}

/// Edges, by the node they leave.
pub(super) struct Graph {
    out: Vec<Vec<Edge>>,
}

impl Graph {
    /// Without edges, of so many nodes.
    pub(super) fn new(nodes: usize) -> Graph {
        Graph { out: vec![Vec::new(); nodes] }
    }

    /// What a transaction proves about itself is no edge.
    pub(super) fn add(&mut self, from: Node, to: Node, why: Why) {
        if from != to {
            self.out[from.0].push(Edge { from, to, why });
        }
    }

    pub(super) fn edges(&self) -> impl Iterator<Item = &Edge> {
        self.out.iter().flatten()
    }

    pub(super) fn leaving(&self, node: Node) -> &[Edge] {
        &self.out[node.0]
    }

    /// With the edges among `nodes` that are `wanted`.
    pub(super) fn narrowed(&self, nodes: &[Node], wanted: impl Fn(Kind) -> bool) -> Graph {
        let mut inside = vec![false; self.out.len()];
        nodes.iter().for_each(|node| inside[node.0] = true);
        let mut narrow = Graph::new(self.out.len());
        for node in nodes {
            let edges = self.out[node.0].iter().filter(|edge| inside[edge.to.0] && wanted(edge.kind()));
            narrow.out[node.0] = edges.copied().collect();
        }
        narrow
    }

    /// With the edges within components: those that lie on cycles.
    pub(super) fn on_cycles(&self) -> Graph {
        let mut component_of = vec![None; self.out.len()];
        for (number, component) in self.components().iter().enumerate() {
            for node in component {
                component_of[node.0] = Some(number);
            }
        }
        let mut inside = Graph::new(self.out.len());
        for edge in self.edges() {
            let component = component_of[edge.from.0];
            if component.is_some() && component == component_of[edge.to.0] {
                inside.out[edge.from.0].push(*edge);
            }
        }
        inside
    }

    /// The largest sets of nodes each of which can be reached from each other one, without those of a single node. Nodes
    /// ascend, and so do the components' first ones.
    pub(super) fn components(&self) -> Vec<Vec<Node>> {
        let nodes = self.out.len();
        let mut walk = Walk {
            graph: self,
            met: vec![None; nodes],
            count: 0,
            low: vec![0; nodes],
            open: Vec::new(),
            is_open: vec![false; nodes],
            found: Vec::new(),
        };
        for node in (0..nodes).map(Node) {
            if walk.met[node.0].is_none() {
                walk.depth_first(node);
            }
        }
        walk.found.sort();
        walk.found
    }
}

/// Tarjan's search.
struct Walk<'a> {
    graph: &'a Graph,
    /// How many nodes had been met when a node was.
    met: Vec<Option<usize>>,
    count: usize,
    /// The first met among those open that a node is known to reach.
    low: Vec<usize>,
    /// Met, and not yet given to a component.
    open: Vec<Node>,
    is_open: Vec<bool>,
    found: Vec<Vec<Node>>,
}

impl Walk<'_> {
    fn depth_first(&mut self, root: Node) {
        let graph = self.graph;
        self.enter(root);
        // Each node with the number of its edges that were followed.
        let mut path = vec![(root, 0_usize)];
        while let Some((node, followed)) = path.last_mut() {
            let node = *node;
            match graph.leaving(node).get(*followed) {
                Some(edge) => {
                    *followed += 1;
                    if self.met[edge.to.0].is_none() {
                        self.enter(edge.to);
                        path.push((edge.to, 0));
                    } else if self.is_open[edge.to.0] {
                        self.low[node.0] = self.low[node.0].min(self.low[edge.to.0]);
                    }
                }
                None => {
                    path.pop();
                    self.leave(node, path.last().map(|(parent, _)| *parent));
                }
            }
        }
    }

    fn enter(&mut self, node: Node) {
        self.met[node.0] = Some(self.count);
        self.low[node.0] = self.count;
        self.count += 1;
        self.open.push(node);
        self.is_open[node.0] = true;
    }

    fn leave(&mut self, node: Node, parent: Option<Node>) {
        if self.met[node.0] == Some(self.low[node.0]) {
            self.close(node);
        }
        if let Some(parent) = parent {
            // A closed node's number is above its parent's.
            self.low[parent.0] = self.low[parent.0].min(self.low[node.0]);
        }
    }

    /// All that were met since `node` are its component.
    fn close(&mut self, node: Node) {
        let first = self.open.iter().rposition(|open| *open == node).expect("a node is open until it is closed");
        let mut component = self.open.split_off(first);
        for member in &component {
            self.is_open[member.0] = false;
        }
        if component.len() > 1 {
            component.sort();
            self.found.push(component);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Dice;

    const NODES: usize = 7;

    fn random_graph(dice: &mut Dice) -> Graph {
        let mut graph = Graph::new(NODES);
        for _ in 0..dice.below(14) {
            let mut end = || Node(dice.below(NODES as u64) as usize);
            graph.add(end(), end(), Why::Realtime);
        }
        graph
    }

    /// Which node can be reached from which (Warshall).
    fn reach(graph: &Graph) -> [[bool; NODES]; NODES] {
        let mut reach = [[false; NODES]; NODES];
        for edge in graph.edges() {
            reach[edge.from.0][edge.to.0] = true;
        }
        for by in 0..NODES {
            for from in 0..NODES {
                for to in 0..NODES {
                    reach[from][to] |= reach[from][by] && reach[by][to];
                }
            }
        }
        reach
    }

    #[test]
    fn a_component_is_all_that_reach_each_other() {
        let mut several = 0;
        for seed in 0..2000 {
            let graph = random_graph(&mut Dice::new(seed));
            let reach = reach(&graph);
            let mut expected: Vec<Vec<Node>> = (0..NODES)
                .map(|one| (0..NODES).filter(|other| reach[one][*other] && reach[*other][one]).map(Node).collect())
                .filter(|component: &Vec<Node>| !component.is_empty())
                .collect();
            expected.sort();
            expected.dedup();
            assert_eq!(graph.components(), expected, "seed {seed}");
            several += u64::from(expected.len() > 1);
        }
        assert!(several > 20, "only {several} graphs had more than one component");
    }
}
