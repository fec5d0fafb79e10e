//! Cycles of a component: their classes, and the shortest of the worst class.
//!
//! A class says which edges a cycle may have: its shape, how many *rw* edges and how they lie; its order, whether
//! processes' order and real time count. Classes are tried from the worst to the least, each in the components of the
//! edges it may have. A search begins with an edge that every such cycle has and follows the shortest way back. What it
//! finds has all that its class needs, else a worse class had it. The name of a cycle is read from its edges all the same.
//!
//! Invariants:
//!
//! * A cycle passes a transaction once.
//! * A component has a cycle to show even when all searches reach their bound: then it may be neither the worst nor the
//!   shortest.
//!
//! Left out: of *G-nonadjacent*, a cycle all of whose shortest ways back cross themselves; it is told as *G2-item*.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::graph::{Edge, Graph, Kind, Node};

/// By how many *rw* edges a cycle has; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    /// *ww* only.
    G0,
    /// *ww* and *wr* only.
    G1c,
    /// One *rw*.
    GSingle,
    /// Several *rw*, no two of them next to each other.
    GNonadjacent,
    /// Several *rw*.
    G2Item,
}

/// Which order besides that of the lists a cycle needs; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// None: the history is not even serializable.
    Serial,
    /// That of a process' own transactions.
    Process,
    Realtime,
}

/// A kind of cycles; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    pub(super) order: Order,
    pub(super) shape: Shape,
}

const SHAPES: [Shape; 5] = [Shape::G0, Shape::G1c, Shape::GSingle, Shape::GNonadjacent, Shape::G2Item];
const ORDERS: [Order; 3] = [Order::Serial, Order::Process, Order::Realtime];

impl Class {
    /// Of all classes the one that may have every edge.
    const WIDEST: Class = Class { order: Order::Realtime, shape: Shape::G2Item };

    fn worst_first() -> impl Iterator<Item = Class> {
        ORDERS.into_iter().flat_map(|order| SHAPES.into_iter().map(move |shape| Class { order, shape }))
    }

    fn may_have(self, kind: Kind) -> bool {
        match kind {
            Kind::Ww => true,
            Kind::Wr => self.shape >= Shape::G1c,
            Kind::Rw => self.shape >= Shape::GSingle,
            Kind::Process => self.order >= Order::Process,
            Kind::Realtime => self.order >= Order::Realtime,
        }
    }
}

impl Shape {
    /// What each of these cycles has. The searches begin with it.
    fn mark(self) -> Kind {
        match self {
            Shape::G0 => Kind::Ww,
            Shape::G1c => Kind::Wr,
            Shape::GSingle | Shape::GNonadjacent | Shape::G2Item => Kind::Rw,
        }
    }

    /// Whether the way back may go on by such an edge; `closes`: the mark comes next after it.
    fn may_follow(self, after_rw: bool, kind: Kind, closes: bool) -> bool {
        match self {
            Shape::G0 | Shape::G1c | Shape::G2Item => true,
            Shape::GSingle => kind != Kind::Rw,
            Shape::GNonadjacent => kind != Kind::Rw || !(after_rw || closes),
        }
    }

    /// Whether it matters that a place was reached by such an edge.
    fn remembers(self, kind: Kind) -> bool {
        self == Shape::GNonadjacent && kind == Kind::Rw
    }
}

/// Edges each of which begins where the one before it ends, the first where the last ends.
#[derive(Debug)]
pub(super) struct Cycle(Vec<Edge>);

impl Cycle {
    /// Of a component's cycles the worst, of these the shortest. `steps_max`: edges followed for one class.
    pub(super) fn worst(graph: &Graph, component: &[Node], steps_max: u64) -> Cycle {
        let found = Class::worst_first().find_map(|class| shortest(graph, component, class, steps_max));
        found.unwrap_or_else(|| any(graph, component))
    }

    pub(super) fn edges(&self) -> &[Edge] {
        &self.0
    }

    pub(super) fn class(&self) -> Class {
        Class { order: self.order(), shape: self.shape() }
    }

    fn order(&self) -> Order {
        if self.has(Kind::Realtime) {
            Order::Realtime
        } else if self.has(Kind::Process) {
            Order::Process
        } else {
            Order::Serial
        }
    }

    fn shape(&self) -> Shape {
        let is_rw = |edge: &Edge| edge.kind() == Kind::Rw;
        let next = self.0.iter().cycle().skip(1);
        let adjacent = self.0.iter().zip(next).any(|(one, next)| is_rw(one) && is_rw(next));
        match self.0.iter().filter(|edge| edge.kind() == Kind::Rw).count() {
            0 if self.has(Kind::Wr) => Shape::G1c,
            0 => Shape::G0,
            1 => Shape::GSingle,
            _ if adjacent => Shape::G2Item,
            _ => Shape::GNonadjacent,
        }
    }

    fn has(&self, kind: Kind) -> bool {
        self.0.iter().any(|edge| edge.kind() == kind)
    }
}

fn shortest(graph: &Graph, component: &[Node], class: Class, steps_max: u64) -> Option<Cycle> {
    let region = graph.narrowed(component, |kind| class.may_have(kind)).on_cycles();
    let mut steps = steps_max;
    let mut best: Option<Cycle> = None;
    for first in region.edges().filter(|edge| edge.kind() == class.shape.mark()) {
        best = shorter(best, closed(&region, *first, class.shape, &mut steps));
        let shortest_there_is = best.as_ref().is_some_and(|cycle| cycle.0.len() == 2);
        if shortest_there_is || steps == 0 {
            break;
        }
    }
    best
}

fn shorter(one: Option<Cycle>, other: Option<Cycle>) -> Option<Cycle> {
    one.into_iter().chain(other).min_by_key(|cycle| cycle.0.len())
}

/// Some cycle, without a bound.
fn any(graph: &Graph, component: &[Node]) -> Cycle {
    let region = graph.narrowed(component, |kind| Class::WIDEST.may_have(kind));
    let first = region.edges().next().expect("the nodes of a component reach each other");
    let mut steps = u64::MAX;
    closed(&region, *first, Class::WIDEST.shape, &mut steps).expect("the nodes of a component reach each other")
}

/// How far a search has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    node: Node,
    after_rw: bool,
}

/// How each place was first reached; `None` where the search began.
type Ways = BTreeMap<Place, Option<(Place, Edge)>>;

/// `first` and the shortest way back to its start, breadth first. `None` when there is none, when the steps are used up,
/// or when that way crosses itself.
fn closed(graph: &Graph, first: Edge, shape: Shape, steps: &mut u64) -> Option<Cycle> {
    let start = Place { node: first.to, after_rw: shape.remembers(first.kind()) };
    let mut ways = Ways::from([(start, None)]);
    let mut queue = VecDeque::from([start]);
    while let Some(place) = queue.pop_front() {
        for edge in graph.leaving(place.node) {
            *steps = steps.checked_sub(1)?;
            let closes = edge.to == first.from;
            let may = shape.may_follow(place.after_rw, edge.kind(), closes);
            if may && closes {
                return along(&ways, first, place, *edge);
            }
            let next = Place { node: edge.to, after_rw: shape.remembers(edge.kind()) };
            if may && let Entry::Vacant(way) = ways.entry(next) {
                way.insert(Some((place, *edge)));
                queue.push_back(next);
            }
        }
    }
    None
}

fn along(ways: &Ways, first: Edge, end: Place, closing: Edge) -> Option<Cycle> {
    let mut edges = vec![closing];
    let mut place = end;
    while let Some((before, edge)) = ways[&place] {
        edges.push(edge);
        place = before;
    }
    edges.push(first);
    edges.reverse();
    let nodes: BTreeSet<Node> = edges.iter().map(|edge| edge.from).collect();
    (nodes.len() == edges.len()).then_some(Cycle(edges))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::list_append::graph::Why;
    use crate::generator::Dice;
    use crate::workload::append::List;

    const NODES: u64 = 5;

    /// Orders lead from lower to higher nodes: an order alone has no cycle.
    fn random_graph(dice: &mut Dice) -> Graph {
        let list = List(0);
        let mut graph = Graph::new(NODES as usize);
        for _ in 0..dice.below(12) {
            let (one, other) = (Node(dice.below(NODES) as usize), Node(dice.below(NODES) as usize));
            match dice.below(6) {
                0 => graph.add(one, other, Why::Ww { list, earlier: 1, later: 2 }),
                1 => graph.add(one, other, Why::Wr { list, value: 1 }),
                2 | 3 => graph.add(one, other, Why::Rw { list, last: None, without: 1 }),
                4 => graph.add(one.min(other), one.max(other), Why::Process),
                _ => graph.add(one.min(other), one.max(other), Why::Realtime),
            }
        }
        graph
    }

    /// All cycles which go on from a path and pass a node once.
    fn all(graph: &Graph, path: &mut Vec<Edge>, found: &mut Vec<Cycle>) {
        let (start, end) = (path[0].from, path[path.len() - 1].to);
        for edge in graph.leaving(end) {
            path.push(*edge);
            if edge.to == start {
                found.push(Cycle(path.clone()));
            } else if path.iter().all(|passed| passed.from != edge.to) {
                all(graph, path, found);
            }
            path.pop();
        }
    }

    fn worst_by_force(graph: &Graph, component: &[Node]) -> (Class, usize) {
        let inside = graph.narrowed(component, |_| true);
        let mut found = Vec::new();
        for first in inside.edges() {
            all(&inside, &mut vec![*first], &mut found);
        }
        let ranks = found.iter().map(|cycle| (cycle.class(), cycle.0.len()));
        ranks.min().expect("a component has a cycle")
    }

    fn components_of(seeds: u64) -> impl Iterator<Item = (u64, Graph, Vec<Node>)> {
        (0..seeds).flat_map(|seed| {
            let components = random_graph(&mut Dice::new(seed)).components();
            components.into_iter().map(move |component| (seed, random_graph(&mut Dice::new(seed)), component))
        })
    }

    #[test]
    fn the_worst_class_is_found_by_its_shortest_cycle() {
        let mut classes = BTreeSet::new();
        for (seed, graph, component) in components_of(20_000) {
            let cycle = Cycle::worst(&graph, &component, 1_000);
            assert_eq!((cycle.class(), cycle.0.len()), worst_by_force(&graph, &component), "seed {seed}");
            classes.insert(cycle.class());
        }
        assert_eq!(classes.len(), SHAPES.len() * ORDERS.len(), "only {classes:?}");
    }

    #[test]
    fn a_component_has_a_cycle_to_show_however_few_the_steps() {
        for (seed, graph, component) in components_of(500) {
            let edges = Cycle::worst(&graph, &component, 0).0;
            let next = edges.iter().cycle().skip(1);
            assert!(edges.iter().zip(next).all(|(one, next)| one.to == next.from), "seed {seed}");
        }
    }
}
