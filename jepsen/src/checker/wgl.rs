//! Linearizability by search.
//!
//! Is there an order of all operations, each at one moment between its invocation and its end, in which a single copy
//! would have given the same replies? [`search`] takes one operation after the other into such an order, and goes back
//! when none of those that may come next fits (Wing and Gong). A set of operations and the state they led to are looked
//! at once, however often an order comes by them (Lowe). `register` is the model of registers, which are searched one by
//! one: a history is linearizable if each register's part of it is. `line` is what the search walks along.
//!
//! Invariants:
//!
//! * Intervals are closed: an operation comes before another only if it ended at an earlier time than the other began.
//! * What failed is left out. What ended as `Info` takes effect at any time after its invocation, or never.
//! * A search ends within its budget of steps, and so do all searches of one history ([`Budget`]): this bounds time and
//!   memory. If it is too small, nothing is known: never `true`.
//!
//! Left out: revisions, which `checker/revision.rs` judges; they also order the operations of different registers.

mod line;
#[cfg(test)]
pub(in crate::checker) mod oracle;
pub(in crate::checker) mod register;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::hash::Hash;
use std::mem;

use line::{Entry, Line, Numbers};
pub use register::registers;

use crate::history::{Nanos, Operation, Outcome};

/// Of an order that leads nowhere, its last operations are shown.
const SHOWN_MAX: usize = 8;

/// Steps of the search for one register: at most a second, and 400 MB.
pub const STEPS_MAX: u64 = 20_000_000;

/// Steps of all searches of one history together: half a minute. Beyond them each search has still what is enough where
/// there is little to choose: eleven for each operation.
const STEPS_ALL: u64 = 800_000_000;
const STEPS_SURE: u64 = 20_000;

/// What a place that is remembered costs, in steps: it costs memory, about 200 bytes, and 8 more for each word of its
/// sets.
const REMEMBERED_STEPS: u64 = 10;
const WORDS_A_STEP: usize = 2;

/// What a single copy does.
pub trait Model {
    type State: Clone + Eq + Hash;
    type Call;
    type Reply;

    fn initial(&self) -> Self::State;

    /// The state after `call` in `state`; `None` if it cannot have had this `reply` there. Without a reply its outcome is
    /// unknown: then it is the state after it took effect, or `None` if it could not.
    fn step(&self, state: &Self::State, call: &Self::Call, reply: Option<&Self::Reply>) -> Option<Self::State>;

    /// Whether a call with this reply leaves every state as it was. Such a call is taken as soon as it fits.
    fn only_looks(&self, _call: &Self::Call, _reply: &Self::Reply) -> bool {
        false
    }

    /// Whether no reply of the history tells one of these two calls of unknown outcome from the other. This must be an
    /// equivalence. The one that was invoked first is taken first.
    fn alike(&self, _one: &Self::Call, _other: &Self::Call) -> bool {
        false
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<S> {
    Linearizable,
    NotLinearizable(DeadEnd<S>),
    /// It had so many.
    OutOfSteps(u64),
}

/// An order that holds as many answered operations as any, and of those as few of unknown outcome as needed. The numbers
/// are places in the list of operations that was searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadEnd<S> {
    /// How many operations of the order are not in `last`.
    pub before: usize,
    pub last: Vec<usize>,
    /// After all of them.
    pub state: S,
    /// One of these would have to be next, and none fits.
    pub refused: Vec<usize>,
}

/// Searches an order of `operations`, in about `steps_max` steps: looking at an operation is one, taking it ten.
pub fn search<M: Model>(model: &M, operations: &[Operation<M::Call, M::Reply>], steps_max: u64) -> Found<M::State> {
    Budget { each: steps_max, left: steps_max }.search(model, operations)
}

/// Steps for the searches of one history, part by part.
pub struct Budget {
    each: u64,
    left: u64,
}

impl Budget {
    /// At most `each` for one search.
    pub fn new(each: u64) -> Budget {
        Budget { each, left: STEPS_ALL }
    }

    /// Searches an order of one part: see [`search`].
    pub fn search<M: Model>(&mut self, model: &M, operations: &[Operation<M::Call, M::Reply>]) -> Found<M::State> {
        let steps_max = self.each.min(self.left.max(STEPS_SURE));
        let mut search = Search::new(model, operations, steps_max);
        let found = search.run(steps_max);
        self.left = self.left.saturating_sub(steps_max - search.steps_left);
        found
    }
}

struct Search<'a, M: Model> {
    model: &'a M,
    operations: &'a [Operation<M::Call, M::Reply>],
    /// Places of what was answered, in the order of invocations; the line has their numbers.
    known: Vec<usize>,
    known_taken: Numbers,
    /// How many of the known are not taken.
    open: usize,
    line: Line,
    /// Places of what ended as `Info`, in the order of invocations.
    unknown: Vec<usize>,
    unknown_taken: Numbers,
    classes: Vec<Class>,
    steps_left: u64,
    state: M::State,
    path: Vec<Taken<M::State>>,
    seen: HashSet<Seen<M::State>>,
    longest: Option<DeadEnd<M::State>>,
    /// Of the longest: how many are open, and how long its path is.
    longest_rank: (usize, usize),
}

/// Numbers of the unknown that are alike. They are taken in the order of their invocations.
struct Class {
    numbers: Vec<usize>,
    taken: usize,
}

/// Where to look on.
#[derive(Clone, Copy)]
enum Next {
    Entry(usize),
    /// This class of the unknown, where the first end in the line is at `until`: what began by then may be next.
    Class {
        class: usize,
        until: Nanos,
    },
}

#[derive(Clone, Copy)]
enum Choice {
    Known { number: usize },
    Unknown { class: usize, number: usize, until: Nanos },
}

/// A step of the path.
struct Taken<S> {
    choice: Choice,
    before: S,
    /// Nothing else need be tried in its place.
    only_looks: bool,
}

#[derive(PartialEq, Eq, Hash)]
struct Seen<S> {
    known: (usize, Vec<u64>),
    unknown: (usize, Vec<u64>),
    state: S,
}

fn reply<C, R>(operation: &Operation<C, R>) -> Option<&R> {
    match &operation.outcome {
        Outcome::Ok(reply) => Some(reply),
        Outcome::Fail(_) | Outcome::Info(_) => None,
    }
}

fn classes<M: Model>(model: &M, operations: &[Operation<M::Call, M::Reply>], unknown: &[usize]) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for (number, &place) in unknown.iter().enumerate() {
        let call = &operations[place].call;
        let own = classes.iter().position(|class| model.alike(&operations[unknown[class.numbers[0]]].call, call));
        match own {
            Some(own) => classes[own].numbers.push(number),
            None => classes.push(Class { numbers: vec![number], taken: 0 }),
        }
    }
    classes
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, operations: &'a [Operation<M::Call, M::Reply>], steps_max: u64) -> Search<'a, M> {
        let mut places: Vec<usize> = (0..operations.len()).collect();
        places.sort_by_key(|&place| operations[place].invoked);
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for place in places {
            match &operations[place].outcome {
                Outcome::Ok(_) => known.push(place),
                Outcome::Info(_) => unknown.push(place),
                Outcome::Fail(_) => {}
            }
        }
        let line = Line::new(known.iter().map(|&place| {
            let operation = &operations[place];
            (operation.invoked, operation.completed.expect("what was answered has ended"))
        }));
        Search {
            model,
            operations,
            open: known.len(),
            known,
            known_taken: Numbers::default(),
            line,
            classes: classes(model, operations, &unknown),
            unknown,
            unknown_taken: Numbers::default(),
            steps_left: steps_max,
            state: model.initial(),
            path: Vec::new(),
            seen: HashSet::new(),
            longest: None,
            longest_rank: (usize::MAX, usize::MAX),
        }
    }

    fn run(&mut self, steps_max: u64) -> Found<M::State> {
        let mut next = Next::Entry(self.line.first());
        while self.open > 0 {
            if self.steps_left == 0 {
                return Found::OutOfSteps(steps_max);
            }
            self.steps_left -= 1;
            match self.look(next) {
                Some(onwards) => next = onwards,
                None => {
                    return Found::NotLinearizable(self.longest.take().expect("each way back begins at a dead end"));
                }
            }
        }
        Found::Linearizable
    }

    /// Where to look after this; `None` when all has been looked at.
    fn look(&mut self, next: Next) -> Option<Next> {
        match next {
            Next::Entry(entry) => match self.line.entry(entry) {
                Entry::Begin(number) => self.look_at_known(entry, number),
                Entry::End(until) => Some(Next::Class { class: 0, until }),
            },
            Next::Class { class, until } => self.look_at_class(class, until),
        }
    }

    fn look_at_known(&mut self, entry: usize, number: usize) -> Option<Next> {
        let operation = &self.operations[self.known[number]];
        let onwards = Next::Entry(self.line.after(entry));
        let Some(state) = self.model.step(&self.state, &operation.call, reply(operation)) else {
            return Some(onwards);
        };
        let only_looks = reply(operation).is_some_and(|reply| self.model.only_looks(&operation.call, reply));
        assert!(!only_looks || state == self.state, "a call that only looks has changed the state");
        if self.take(Choice::Known { number }, state, only_looks) {
            Some(Next::Entry(self.line.first()))
        } else if only_looks {
            self.back()
        } else {
            Some(onwards)
        }
    }

    fn look_at_class(&mut self, class: usize, until: Nanos) -> Option<Next> {
        let Some(Class { numbers, taken }) = self.classes.get(class) else {
            self.note_dead_end();
            return self.back();
        };
        if let Some(&number) = numbers.get(*taken)
            && let Some(state) = self.after_unknown(number, until)
            && self.take(Choice::Unknown { class, number, until }, state, false)
        {
            return Some(Next::Entry(self.line.first()));
        }
        Some(Next::Class { class: class + 1, until })
    }

    /// The state after one of the unknown, if it began by then and changes anything: without that it need not be taken.
    fn after_unknown(&self, number: usize, until: Nanos) -> Option<M::State> {
        let operation = &self.operations[self.unknown[number]];
        let state = self.model.step(&self.state, &operation.call, None)?;
        (operation.invoked <= until && state != self.state).then_some(state)
    }

    /// Whether it was taken: not where this set and this state have been looked at.
    fn take(&mut self, choice: Choice, state: M::State, only_looks: bool) -> bool {
        self.mark(choice);
        let seen = Seen { known: self.known_taken.key(), unknown: self.unknown_taken.key(), state: state.clone() };
        let words = seen.known.1.len() + seen.unknown.1.len();
        if !self.seen.insert(seen) {
            self.unmark(choice);
            return false;
        }
        let steps = REMEMBERED_STEPS - 1 + (words / WORDS_A_STEP) as u64;
        self.steps_left = self.steps_left.saturating_sub(steps);
        let before = mem::replace(&mut self.state, state);
        self.path.push(Taken { choice, before, only_looks });
        true
    }

    fn mark(&mut self, choice: Choice) {
        match choice {
            Choice::Known { number } => {
                self.line.take(number);
                self.known_taken.insert(number);
                self.open -= 1;
            }
            Choice::Unknown { class, number, .. } => {
                self.classes[class].taken += 1;
                self.unknown_taken.insert(number);
            }
        }
    }

    fn unmark(&mut self, choice: Choice) {
        match choice {
            Choice::Known { number } => {
                self.line.put_back(number);
                self.known_taken.remove(number);
                self.open += 1;
            }
            Choice::Unknown { class, number, .. } => {
                self.classes[class].taken -= 1;
                self.unknown_taken.remove(number);
            }
        }
    }

    /// Takes back the last choice in whose place another may be tried.
    fn back(&mut self) -> Option<Next> {
        loop {
            let Taken { choice, before, only_looks } = self.path.pop()?;
            self.unmark(choice);
            self.state = before;
            if !only_looks {
                return Some(match choice {
                    Choice::Known { number } => Next::Entry(self.line.after(self.line.begin(number))),
                    Choice::Unknown { class, until, .. } => Next::Class { class: class + 1, until },
                });
            }
        }
    }

    fn note_dead_end(&mut self) {
        let rank = (self.open, self.path.len());
        if self.longest_rank <= rank {
            return;
        }
        let before = self.path.len().saturating_sub(SHOWN_MAX);
        let last = self.path[before..].iter().map(|taken| match taken.choice {
            Choice::Known { number } => self.known[number],
            Choice::Unknown { number, .. } => self.unknown[number],
        });
        let last: Vec<usize> = last.collect();
        let refused = self.line.beginnings().map(|number| self.known[number]).collect();
        self.longest = Some(DeadEnd { before, last, state: self.state.clone(), refused });
        self.longest_rank = rank;
    }
}
