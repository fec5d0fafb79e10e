//! Asking: workers ask what a workload chooses of a store, and record what came of it.
//!
//! A [`Worker`] is one process at a time; when the outcome of a call is unknown, it goes on as a new one. All workers of a
//! run share an [`Asking`]: the workload with its choices, and the [`Book`] in which the history is made. Where the
//! workload has watchers, they are workers too, who choose otherwise ([`seats`]). The harness and the simulation ask
//! alike: time is that of the runtime in which a worker runs.
//!
//! Invariants:
//!
//! * An invocation is recorded before anything is sent, a completion after the answer is known.
//! * No two events have the same time, so that what came first in the history came first in time.
//!
//! Left out: how a worker gets its client, and when a run ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trefoil_world::clock;

use crate::client::Client;
use crate::generator::Dice;
use crate::history::{Event, Nanos, Outcome, Process, What};
use crate::outcome;
use crate::workload::{Choose, Workload};

/// Is told of each event as it is recorded, in their order.
type Told<C, R> = Arc<dyn Fn(&Event<C, R>) + Send + Sync>;

/// The history being made. Clones write into the same one.
pub struct Book<C, R> {
    // Workers and nemesis write into it; held for a push only.
    events: Arc<Mutex<Vec<Event<C, R>>>>,
    told: Told<C, R>,
}

impl<C, R> Clone for Book<C, R> {
    fn clone(&self) -> Book<C, R> {
        Book { events: self.events.clone(), told: self.told.clone() }
    }
}

impl<C: Clone, R: Clone> Book<C, R> {
    /// An empty one; `told` sees each event as it is recorded.
    pub fn new(told: impl Fn(&Event<C, R>) + Send + Sync + 'static) -> Book<C, R> {
        Book { events: Arc::default(), told: Arc::new(told) }
    }

    /// Records what happened so long after the beginning, or as soon after the last event as can be told.
    pub fn record(&self, at: Duration, what: What<C, R>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = events.last().map_or(0, |last| last.time.0 + 1);
        let event = Event { time: Nanos(earliest.max(at.as_nanos() as u64)), what };
        (self.told)(&event);
        events.push(event);
    }

    /// What was recorded so far.
    pub fn events(&self) -> Vec<Event<C, R>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the workers share: the workload with its choices.
pub type Choices<W> = Arc<Mutex<(W, Dice)>>;

/// What it takes to ask and to record. Clones ask for the same run.
pub struct Asking<W: Workload> {
    pub book: Book<W::Call, W::Reply>,
    pub choices: Choices<W>,
    /// The beginning of the run on the clients' clock.
    pub began: clock::Instant,
}

impl<W: Workload> Clone for Asking<W> {
    fn clone(&self) -> Asking<W> {
        Asking { book: self.book.clone(), choices: self.choices.clone(), began: self.began }
    }
}

impl<W: Workload> Asking<W> {
    /// For a run that begins now; `dice` are those of the workload.
    pub fn new(workload: W, dice: Dice, book: Book<W::Call, W::Reply>) -> Asking<W> {
        Asking { book, choices: Arc::new(Mutex::new((workload, dice))), began: clock::now() }
    }

    /// Records what happens now.
    pub fn record(&self, what: What<W::Call, W::Reply>) {
        self.book.record(self.began.elapsed(), what);
    }

    /// Asks once, and records both the call and what came of it.
    pub async fn ask(&self, client: &Client, process: Process, call: &W::Call, timeout: Duration) -> Asked {
        self.record(What::Invoke { process, call: call.clone() });
        let result = W::carry_out(client, call, timeout).await;
        let (what, asked) = match outcome::of(result, W::access(call)) {
            Outcome::Ok(reply) => {
                self.choices.lock().unwrap_or_else(PoisonError::into_inner).0.observe(call, &reply);
                (What::Ok { process, reply }, Asked::Answered)
            }
            Outcome::Fail(why) => (What::Fail { process, why }, Asked::NotDone),
            Outcome::Info(why) => (What::Info { process, why }, Asked::Unknown),
        };
        self.record(what);
        asked
    }

    /// What is asked when all faults are healed.
    pub fn last_calls(&self) -> Vec<W::Call> {
        self.choices.lock().unwrap_or_else(PoisonError::into_inner).0.last_calls()
    }

    fn choose(&self, choose: Choose<W>) -> W::Call {
        let mut choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        let (workload, dice) = &mut *choices;
        choose(workload, dice)
    }
}

/// What became of a question, as far as whoever asks again must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Answered,
    NotDone,
    /// The process that asked asks nothing more.
    Unknown,
}

/// The place of a worker in a run.
pub struct Seat<W: Workload> {
    /// By which node it comes to the cluster.
    pub node: usize,
    pub choose: Choose<W>,
    /// Whether it is beside the load.
    pub watches: bool,
}

/// Places of so many workers, one after the other by the next node; then one of a watcher at each node, if the workload has
/// any. All of them number their processes side by side.
pub fn seats<W: Workload>(workers: usize, nodes: usize) -> Vec<Seat<W>> {
    let load = (0..workers).map(|number| Seat { node: number % nodes, choose: W::next, watches: false });
    let mut seats: Vec<Seat<W>> = load.collect();
    if let Some(choose) = W::WATCH {
        seats.extend((0..nodes).map(|node| Seat { node, choose, watches: true }));
    }
    seats
}

/// One process at a time, asking through one client.
pub struct Worker<W: Workload> {
    asking: Asking<W>,
    client: Client,
    process: Process,
    /// How far the next process number is.
    apart: u64,
    call_timeout: Duration,
}

impl<W: Workload> Worker<W> {
    /// One that begins as the process `first`. `apart`: how many workers number their processes side by side.
    pub fn new(
        asking: Asking<W>,
        client: impl Into<Client>,
        first: Process,
        apart: u64,
        call_timeout: Duration,
    ) -> Worker<W> {
        Worker { asking, client: client.into(), process: first, apart, call_timeout }
    }

    /// Asks one thing after another, each followed by a pause, while it is to go on.
    pub async fn work(mut self, choose: Choose<W>, goes_on: impl Fn() -> bool, mut pause: impl FnMut() -> Duration) {
        while goes_on() {
            let call = self.asking.choose(choose);
            self.ask(&call).await;
            clock::sleep(pause()).await;
        }
    }

    /// Asks until each of these is answered, with a pause between two attempts.
    ///
    /// # Errors
    /// The call that had no answer by then.
    pub async fn insist(&mut self, calls: Vec<W::Call>, until: clock::Instant, pause: Duration) -> Result<(), W::Call> {
        for call in calls {
            while self.ask(&call).await != Asked::Answered {
                if clock::now() >= until {
                    return Err(call);
                }
                clock::sleep(pause).await;
            }
        }
        Ok(())
    }

    async fn ask(&mut self, call: &W::Call) -> Asked {
        let asked = self.asking.ask(&self.client, self.process, call, self.call_timeout).await;
        match asked {
            Asked::Answered | Asked::NotDone => {}
            Asked::Unknown => self.process.0 += self.apart,
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::bank::{Call, Transfers};
    use crate::workload::register::Registers;

    #[test]
    fn those_who_watch_are_at_each_node_beside_the_load() {
        let of_bank = seats::<Transfers>(4, 3);
        let places: Vec<(usize, bool)> = of_bank.iter().map(|seat| (seat.node, seat.watches)).collect();
        assert_eq!(places, [(0, false), (1, false), (2, false), (0, false), (0, true), (1, true), (2, true)]);
        let (mut bank, mut dice) = (Transfers::default(), Dice::new(7));
        for seat in of_bank {
            let only_reads = (0..50).all(|_| (seat.choose)(&mut bank, &mut dice) == Call::Read);
            assert_eq!(only_reads, seat.watches, "node {}", seat.node);
        }
        assert_eq!(seats::<Registers>(4, 3).len(), 4, "nobody watches them");
    }

    #[test]
    fn a_book_tells_events_apart_and_in_order() {
        let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
        let told = seen.clone();
        let book: Book<u64, u64> = Book::new(move |event| told.lock().expect("unharmed").push(event.time.0));
        for at in [5, 5, 3, 9] {
            let what = What::Info { process: Process(0), why: "timeout".into() };
            book.clone().record(Duration::from_nanos(at), what);
        }
        let times: Vec<u64> = book.events().iter().map(|event| event.time.0).collect();
        assert_eq!(times, [5, 6, 7, 9]);
        assert_eq!(*seen.lock().expect("unharmed"), times);
    }
}
