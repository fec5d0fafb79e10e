//! Compaction: a client that gives up history while others work, and reads what is left of it.
//!
//! It puts and deletes a key of its own, remembers at which revision, and reads the key as it was then: mostly with stale
//! reads that carry the context of its last change, now and then linearizably. In between it has all history compacted up
//! to one of its older changes, a bit behind the newest. Nobody else writes that key or compacts, so it knows what
//! it must see. A change of unknown outcome may be done at any later time: the client goes on with a fresh key.
//!
//! What must hold:
//!
//! * A read of the past shows the key as it was, or is refused as compacted. Never is its revision one that is still to come:
//!   it was answered, and the read has a context that is at least as new.
//! * It is refused only below a revision up to which a compaction was begun, whether or not that was answered.
//! * It is refused below a compaction that was answered, if it is linearizable, or has the context of a put that was begun
//!   after that answer: whichever replica has that put has applied the compaction before.
//!
//! It is the same in the simulation and against processes. Left out: reads of the present, which workloads have, and what is
//! left of the rows, which each replica removes in its own time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use trefoil_client::{Client, Consistency, Context, Error, Kind, Revision};
use trefoil_world::{clock, task};

use crate::checker::Verdict;
use crate::generator::Dice;
use crate::outcome::{Access, Certainty, of_trefoil};

const CHECKER: &str = "compaction";
/// Of so many requests two are reads, one is a compaction, and the others are changes.
const ONE_IN: u64 = 6;
/// One change in so many is a delete, one read in so many is linearizable.
const DELETE_ONE_IN: u64 = 4;
const LINEARIZABLE_ONE_IN: u64 = 3;
/// Changes that are remembered.
const REMEMBERED_MAX: usize = 32;
/// A compaction leaves at least so many of them.
const LEFT_MIN: usize = 4;
const CALL_TIMEOUT: Duration = Duration::from_millis(1_000);
const CONNECT_AGAIN: Duration = Duration::from_millis(50);
/// Violations that are told.
const TOLD_MAX: usize = 10;

/// See the file's head. Clones share what was seen.
#[derive(Clone)]
pub struct Compaction {
    seen: Arc<Mutex<Seen>>,
    stopped: Arc<AtomicBool>,
}

impl Compaction {
    /// Starts the client, which pauses for 1 to `pause_max_ms` between two requests. In the simulation it is started on the
    /// clients' machine. Its task ends soon after it was stopped, and fails when it panics.
    pub fn start(pause_max_ms: u64, endpoints: &[String], dice: Dice) -> (Compaction, JoinHandle<()>) {
        let compaction = Compaction { seen: Arc::default(), stopped: Arc::default() };
        let task = task::spawn(work(endpoints.to_vec(), compaction.clone(), pause_max_ms, dice));
        (compaction, task)
    }

    /// Nothing more is asked than what was begun.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// What was found; unknown when too little was answered.
    pub fn verdict(&self) -> Verdict {
        let seen = self.seen();
        match (seen.violations.is_empty(), seen.compactions > 0 && seen.shown > 0 && seen.refused > 0) {
            (false, _) => Verdict::invalid(CHECKER, seen.violations.clone()),
            (true, true) => Verdict::valid(CHECKER),
            (true, false) => {
                let Seen { compactions, shown, refused, .. } = *seen;
                let why = format!("{compactions} compactions, {shown} reads of the past and {refused} refused ones");
                Verdict::unknown(CHECKER, why)
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was answered.
#[derive(Debug, Default)]
struct Seen {
    compactions: u64,
    /// Reads of the past that have shown something.
    shown: u64,
    /// Reads of the past that were refused as compacted.
    refused: u64,
    violations: Vec<String>,
}

impl Seen {
    fn violated(&mut self, what: String) {
        if self.violations.len() < TOLD_MAX {
            self.violations.push(what);
        }
    }
}

/// A change that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    key: String,
    revision: u64,
    /// What the key holds from then on.
    value: Option<String>,
}

/// A read of the past, and what it must show.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    key: String,
    revision: u64,
    value: Option<String>,
    /// Below this revision it must be refused.
    refused_below: u64,
}

/// What a read of the past came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    Value(Option<String>),
    Compacted,
    /// Refused: its revision is still to come.
    Future,
}

/// What is known of the past.
#[derive(Debug, Default)]
struct Past {
    /// The newest last.
    changes: VecDeque<Change>,
    /// Of the key that is changed now.
    number: u64,
    /// Values that were chosen so far.
    values: u64,
    /// The highest revision up to which a compaction was begun, and was answered.
    begun: u64,
    done: u64,
    /// What was answered when the put was begun whose context is known.
    done_in_context: u64,
}

impl Past {
    fn key(&self) -> String {
        format!("compaction/{}", self.number)
    }

    /// A change was done.
    fn add(&mut self, change: Change) {
        self.changes.push_back(change);
        if self.changes.len() > REMEMBERED_MAX {
            self.changes.pop_front();
        }
    }

    /// A change was not answered as asked. One that may be done at any later time leaves its key to itself.
    fn fail(&mut self, certainty: Certainty) {
        match certainty {
            Certainty::NotDone => {}
            Certainty::Unknown => self.number += 1,
        }
    }

    /// Up to where history is to be compacted; `None` when too little of it is known.
    fn choose_floor(&self, dice: &mut Dice) -> Option<u64> {
        let older = self.changes.len().checked_sub(LEFT_MIN).filter(|older| *older > 0)?;
        let place = dice.below(older as u64) as usize;
        self.changes.get(place).map(|change| change.revision)
    }

    /// A read of the key as a change has left it: at the change's revision, or at the last one before the next change. `None`
    /// when no change is known, or the one that was drawn found a store without any: there is no asking for revision 0.
    fn choose_look(&self, linearizable: bool, dice: &mut Dice) -> Option<Look> {
        let places = Some(self.changes.len() as u64).filter(|changes| *changes > 0)?;
        let (place, late) = (dice.below(places) as usize, dice.flag());
        let Change { key, revision, value } = self.changes.get(place)?.clone();
        let next = self.changes.get(place + 1).filter(|next| late && next.key == key);
        // A delete that finds nothing has the revision of what was before it.
        let revision = next.map_or(revision, |next| revision.max(next.revision.saturating_sub(1)));
        let refused_below = if linearizable { self.done } else { self.done_in_context };
        (revision > 0).then_some(Look { key, revision, value, refused_below })
    }

    /// What is wrong with what was shown, if anything is.
    fn differs(&self, look: &Look, shown: &Shown) -> Option<String> {
        let Look { key, revision, value, refused_below } = look;
        match shown {
            Shown::Compacted if *revision < self.begun => None,
            Shown::Compacted => {
                let begun = self.begun;
                Some(format!(
                    "{key} at revision {revision} was refused, and history is compacted up to {begun} at most"
                ))
            }
            Shown::Value(found) if found != value => {
                Some(format!("{key} at revision {revision} was {value:?}, and {found:?} was shown"))
            }
            Shown::Value(_) if revision < refused_below => {
                Some(format!("{key} at revision {revision} was shown, and history is compacted up to {refused_below}"))
            }
            Shown::Value(_) => None,
            Shown::Future => {
                Some(format!("{key} at revision {revision} was refused: it is to come, and it was answered before"))
            }
        }
    }
}

/// The client with what it knows.
struct Compactor {
    client: Client,
    past: Past,
    /// Of the last change.
    context: Context,
    dice: Dice,
    compaction: Compaction,
}

async fn work(endpoints: Vec<String>, compaction: Compaction, pause_max_ms: u64, dice: Dice) {
    let Some(client) = connect(&endpoints, &compaction).await else { return };
    let mut compactor = Compactor { client, past: Past::default(), context: Context::default(), dice, compaction };
    while !compactor.compaction.is_stopped() {
        match compactor.dice.below(ONE_IN) {
            0 => compactor.compact().await,
            1 | 2 => compactor.look().await,
            _ => compactor.change().await,
        }
        clock::sleep(Duration::from_millis(1 + compactor.dice.below(pause_max_ms))).await;
    }
}

async fn connect(endpoints: &[String], compaction: &Compaction) -> Option<Client> {
    while !compaction.is_stopped() {
        // What becomes of one attempt is what is told: nothing is repeated.
        let builder = Client::builder(endpoints.to_vec()).retries(false);
        if let Ok(client) = builder.timeout(CALL_TIMEOUT).connect().await {
            return Some(client);
        }
        clock::sleep(CONNECT_AGAIN).await;
    }
    None
}

impl Compactor {
    async fn change(&mut self) {
        let (key, known) = (self.past.key(), self.past.done);
        self.past.values += 1;
        let value = (self.dice.below(DELETE_ONE_IN) > 0).then(|| self.past.values.to_string());
        match self.carry_out(&key, value.as_ref()).await {
            Ok((revision, context)) => {
                self.context = context;
                // A delete that finds nothing has no revision of its own, and says nothing of what was done before it.
                if value.is_some() {
                    self.past.done_in_context = known;
                }
                self.past.add(Change { key, revision: revision.0, value });
            }
            Err(error) => self.past.fail(of_trefoil(&error, Access::Write).certainty),
        }
    }

    async fn carry_out(&self, key: &str, value: Option<&String>) -> Result<(Revision, Context), Error> {
        match value {
            Some(value) => {
                let put = self.client.put(key.to_owned(), value.clone()).timeout(CALL_TIMEOUT).send().await?;
                Ok((put.header.revision, put.context))
            }
            None => {
                let deleted = self.client.delete(key.to_owned()).timeout(CALL_TIMEOUT).send().await?;
                Ok((deleted.header.revision, deleted.context))
            }
        }
    }

    async fn compact(&mut self) {
        let Some(floor) = self.past.choose_floor(&mut self.dice) else { return };
        self.past.begun = self.past.begun.max(floor);
        match self.client.compact(Revision(floor)).timeout(CALL_TIMEOUT).send().await {
            Ok(_) => {
                self.past.done = self.past.done.max(floor);
                self.compaction.seen().compactions += 1;
            }
            // It was done before, or one that goes further.
            Err(error) if error.kind() == Kind::Compacted => self.past.done = self.past.done.max(floor),
            Err(error) if error.kind() == Kind::FutureRevision => {
                self.compaction
                    .seen()
                    .violated(format!("revision {floor} was answered, and now it is to come: {error}"));
            }
            Err(_) => {}
        }
    }

    /// Reads the past. A read that fails otherwise than by its revision shows nothing.
    async fn look(&mut self) {
        let linearizable = self.dice.below(LINEARIZABLE_ONE_IN) == 0;
        let consistency = if linearizable { Consistency::Linearizable } else { Consistency::Stale };
        let Some(look) = self.past.choose_look(linearizable, &mut self.dice) else { return };
        let get = self.client.get(look.key.clone()).revision(Revision(look.revision)).consistency(consistency);
        let shown = match get.context(&self.context).timeout(CALL_TIMEOUT).send().await {
            Ok(reply) => Shown::Value(reply.pair().map(|pair| String::from_utf8_lossy(&pair.value).into_owned())),
            Err(error) if error.kind() == Kind::Compacted => Shown::Compacted,
            Err(error) if error.kind() == Kind::FutureRevision => Shown::Future,
            Err(_) => return,
        };
        let mut seen = self.compaction.seen();
        match shown {
            Shown::Value(_) => seen.shown += 1,
            Shown::Compacted => seen.refused += 1,
            Shown::Future => {}
        }
        if let Some(why) = self.past.differs(&look, &shown) {
            seen.violated(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Valid;

    /// Changes at the revisions 10, 20, … 80: the third and the seventh are deletes; the last two are of another key.
    fn past() -> Past {
        let mut past = Past::default();
        for place in 1..=8_u64 {
            past.number = u64::from(place > 6);
            let value = (place % 4 != 3).then(|| place.to_string());
            past.add(Change { key: past.key(), revision: place * 10, value });
        }
        past
    }

    #[test]
    fn a_floor_is_behind_the_newest_changes() {
        let (past, mut dice) = (past(), Dice::new(1));
        let floors: Vec<u64> = (0..100).filter_map(|_| past.choose_floor(&mut dice)).collect();
        assert!(floors.len() == 100 && [10, 20, 30, 40].iter().all(|floor| floors.contains(floor)));
        assert!(floors.iter().all(|floor| *floor <= 40));
        assert_eq!(Past::default().choose_floor(&mut dice), None);
        assert_eq!(Past::default().choose_look(true, &mut dice), None);
    }

    #[test]
    fn a_look_knows_what_was_there() {
        let past = Past { begun: 40, done: 30, done_in_context: 20, ..past() };
        let mut dice = Dice::new(1);
        let looks: Vec<Look> = (0..400).filter_map(|at| past.choose_look(at % 2 == 0, &mut dice)).collect();
        for (key, revision, value) in [
            ("compaction/0", 20, Some("2")),
            ("compaction/0", 29, Some("2")),
            ("compaction/0", 30, None),
            ("compaction/0", 39, None),
            ("compaction/0", 60, Some("6")),
            ("compaction/1", 70, None),
            ("compaction/1", 80, Some("8")),
        ] {
            let found = looks.iter().find(|look| look.key == key && look.revision == revision).expect("it comes");
            assert_eq!(found.value.as_deref(), value, "{found:?}");
        }
        assert!(looks.iter().all(|look| ![69, 79].contains(&look.revision) || look.key == "compaction/1"));
        assert!([20, 30].iter().all(|floor| looks.iter().any(|look| look.refused_below == *floor)));
        let past = (0..100).fold(past, |mut past, place| {
            past.add(Change { key: past.key(), revision: 100 + place, value: None });
            past
        });
        assert_eq!(past.changes.len(), REMEMBERED_MAX);
    }

    #[test]
    fn deletes_in_an_empty_store_are_not_looked_at() {
        let nothing = || Change { key: "compaction/0".into(), revision: 0, value: None };
        let past = Past { changes: VecDeque::from([nothing(), nothing()]), ..Past::default() };
        let mut dice = Dice::new(1);
        assert!((0..100).all(|at| past.choose_look(at % 2 == 0, &mut dice).is_none()));
    }

    #[test]
    fn a_change_that_may_still_be_done_leaves_its_key_to_itself() {
        for (certainty, key) in [(Certainty::NotDone, "compaction/0"), (Certainty::Unknown, "compaction/1")] {
            let mut past = Past::default();
            past.fail(certainty);
            assert_eq!(past.key(), key, "{certainty:?}");
        }
    }

    #[test]
    fn what_a_read_of_the_past_may_not_show_is_found() {
        let past = Past { begun: 40, done: 30, ..past() };
        let value = |value: &str| Shown::Value(Some(value.to_owned()));
        let cases = [
            (40, value("4"), None),
            (30, value("4"), None),
            (29, value("4"), Some("compacted up to 30")),
            (40, value("5"), Some("was shown")),
            (40, Shown::Value(None), Some("was shown")),
            (39, Shown::Compacted, None),
            (29, Shown::Compacted, None),
            (40, Shown::Compacted, Some("was refused")),
            (40, Shown::Future, Some("it is to come")),
            (29, Shown::Future, Some("it is to come")),
        ];
        for (revision, shown, expected) in cases {
            let look = Look { key: "k".into(), revision, value: Some("4".into()), refused_below: 30 };
            let found = past.differs(&look, &shown);
            match expected {
                None => assert_eq!(found, None, "{look:?}: {shown:?}"),
                Some(words) => assert!(found.is_some_and(|why| why.contains(words)), "{look:?}: {shown:?}"),
            }
        }
    }

    #[test]
    fn a_run_in_which_nothing_was_refused_shows_too_little() {
        for (refused, violated, expected) in
            [(1, false, Valid::True), (0, false, Valid::Unknown), (0, true, Valid::False), (1, true, Valid::False)]
        {
            let compaction = Compaction { seen: Arc::default(), stopped: Arc::default() };
            *compaction.seen() = Seen { compactions: 1, shown: 1, refused, violations: Vec::new() };
            if violated {
                compaction.seen().violated("something".into());
            }
            assert_eq!(compaction.verdict().valid, expected);
        }
    }
}
