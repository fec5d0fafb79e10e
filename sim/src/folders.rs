//! Folders: each is changed by its owner alone, who reads it back with its context through whichever replica answers.
//!
//! An owner puts and deletes keys of its folder, and deletes ranges of them. In between it scans the folder, in either
//! direction: mostly with stale reads that carry the context of the last answer, which the client library spreads over
//! the replicas, and now and then linearizably. Nobody else writes there, so the owner knows what it must see. A change of
//! unknown outcome may be done at any later time: the owner leaves the folder to itself and goes on in a fresh one.
//!
//! What must hold:
//!
//! * A scan shows the folder as its owner has left it, and a delete says how many of its keys it has removed.
//! * The revision that an owner looks at never goes back, whichever replica answers.
//!
//! Left out: what is in a folder that was left. At the end all replicas are compared, with all that they hold
//! (`liveness.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_client::{Client, Consistency, Context, Error, Header, KeyRange, KeyValue, NodeId, Outcome};
use trefoil_jepsen::generator::Dice;
use trefoil_world::{clock, task};

use crate::clients::connect;
use crate::parameters::FolderParameters;
use crate::watcher::{Judged, Violations, Watcher};

/// Keys of a folder, and what ends a range of them: single digits, so that they are in the order of their numbers.
const KEYS: u64 = 6;
/// One request in so many is a change, one scan in so many is linearizable.
const CHANGE_ONE_IN: u64 = 3;
const LINEARIZABLE_ONE_IN: u64 = 5;
const CALL_TIMEOUT: Duration = Duration::from_millis(1_000);

/// See the file's head.
pub type Folders = Watcher<Seen>;

impl Folders {
    /// Starts the owners. Runs on the clients' machine, at its beginning.
    pub fn start(parameters: &FolderParameters, endpoints: &[String], mut dice: Dice) -> Folders {
        let folders = Folders::default();
        for number in 0..parameters.owners {
            let pause_max_ms = parameters.pause_ms;
            task::spawn(own(number as u64, endpoints.to_vec(), folders.clone(), pause_max_ms, dice.split()));
        }
        folders
    }

    /// How often a scan with a context was answered by another node than the one the context came from.
    pub fn elsewhere(&self) -> u64 {
        self.seen().elsewhere
    }
}

/// What was answered.
#[derive(Debug, Default)]
pub struct Seen {
    changes: u64,
    /// Stale scans whose context said something.
    with_context: u64,
    elsewhere: u64,
    /// The highest revision that each owner was shown.
    highest: BTreeMap<u64, u64>,
    violations: Violations,
}

impl Judged for Seen {
    const CHECKER: &'static str = "folders";

    fn violations(&self) -> &Violations {
        &self.violations
    }

    fn lacks(&self) -> Option<String> {
        let Seen { changes, with_context, .. } = self;
        let enough = *changes > 0 && *with_context > 0;
        (!enough).then(|| format!("answered: {changes} changes and {with_context} scans with a context"))
    }
}

impl Seen {
    /// An answer has shown this owner this revision.
    fn show(&mut self, owner: u64, revision: u64) {
        let highest = self.highest.entry(owner).or_insert(revision);
        let before = *highest;
        *highest = before.max(revision);
        if revision < before {
            self.violations.add(format!("owner {owner} was shown revision {revision} after revision {before}"));
        }
    }
}

/// A change of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Put { key: String, value: String },
    Delete { key: String },
    DeleteRange { from: String, before: String },
}

/// What an owner knows of its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Folder {
    owner: u64,
    /// Which of the owner's folders it is.
    number: u64,
    /// Values that were chosen so far, in all of the owner's folders.
    values: u64,
    holds: BTreeMap<String, String>,
}

impl Folder {
    fn first(owner: u64) -> Folder {
        Folder { owner, number: 0, values: 0, holds: BTreeMap::new() }
    }

    /// A fresh one.
    fn next(&self) -> Folder {
        Folder { number: self.number + 1, holds: BTreeMap::new(), ..*self }
    }

    fn prefix(&self) -> String {
        format!("folder/{}/{}/", self.owner, self.number)
    }

    fn key(&self, place: u64) -> String {
        format!("{}{place}", self.prefix())
    }

    fn choose(&mut self, dice: &mut Dice) -> Change {
        let place = dice.below(KEYS);
        match dice.below(4) {
            0 => Change::Delete { key: self.key(place) },
            1 => Change::DeleteRange {
                from: self.key(place),
                before: self.key((place + 1 + dice.below(KEYS)).min(KEYS)),
            },
            _ => {
                self.values += 1;
                Change::Put { key: self.key(place), value: self.values.to_string() }
            }
        }
    }

    /// The change was done. Gives how many keys it has removed.
    fn apply(&mut self, change: Change) -> u64 {
        let before = self.holds.len();
        match change {
            Change::Put { key, value } => {
                self.holds.insert(key, value);
                return 0;
            }
            Change::Delete { key } => drop(self.holds.remove(&key)),
            Change::DeleteRange { from, before } => self.holds.retain(|key, _| *key < from || *key >= before),
        }
        (before - self.holds.len()) as u64
    }

    /// What is wrong with what a scan has shown, if anything is.
    fn differs(&self, shown: &[(String, String)]) -> Option<String> {
        let same = self.holds.iter().eq(shown.iter().map(|pair| (&pair.0, &pair.1)));
        (!same).then(|| format!("{} holds {:?}, and {shown:?} was shown", self.prefix(), self.holds))
    }
}

/// An owner with its client.
struct Owner {
    client: Client,
    folder: Folder,
    /// Of the last answer, and which node gave it.
    context: Context,
    answered: NodeId,
    dice: Dice,
    folders: Folders,
}

/// What is kept of an answer.
struct Answer {
    header: Header,
    context: Context,
    removed: u64,
}

async fn own(number: u64, endpoints: Vec<String>, folders: Folders, pause_max_ms: u64, dice: Dice) {
    // What becomes of one attempt is what is told.
    let builder = Client::builder(endpoints).retries(false).timeout(CALL_TIMEOUT);
    let Some(client) = connect(builder, || folders.is_stopped()).await else { return };
    let (folder, context, answered) = (Folder::first(number), Context::default(), NodeId::default());
    let mut owner = Owner { client, folder, context, answered, dice, folders };
    while !owner.folders.is_stopped() {
        match owner.dice.below(CHANGE_ONE_IN) {
            0 => owner.change().await,
            _ => owner.look().await,
        }
        clock::sleep(Duration::from_millis(1 + owner.dice.below(pause_max_ms))).await;
    }
}

impl Owner {
    async fn change(&mut self) {
        let change = self.folder.choose(&mut self.dice);
        match self.carry_out(&change).await {
            Ok(answer) => {
                let (told, removed) = (format!("{change:?}"), self.folder.apply(change));
                let mut seen = self.folders.seen();
                seen.changes += 1;
                seen.show(self.folder.owner, answer.header.revision.0);
                if removed != answer.removed {
                    seen.violations.add(format!("{told} removed {removed} keys, and {} was answered", answer.removed));
                }
                drop(seen);
                (self.context, self.answered) = (answer.context, answer.header.node);
            }
            Err(error) => match error.outcome() {
                Outcome::NotDone | Outcome::Refused => {}
                Outcome::Unknown => self.folder = self.folder.next(),
            },
        }
    }

    async fn carry_out(&self, change: &Change) -> Result<Answer, Error> {
        let (header, context, removed) = match change {
            Change::Put { key, value } => {
                let reply = self.client.put(key.clone(), value.clone()).timeout(CALL_TIMEOUT).send().await?;
                (reply.header, reply.context, 0)
            }
            Change::Delete { key } => {
                let reply = self.client.delete(key.clone()).timeout(CALL_TIMEOUT).send().await?;
                (reply.header, reply.context, reply.deleted)
            }
            Change::DeleteRange { from, before } => {
                let range = KeyRange::between(from.clone(), before.clone());
                let reply = self.client.delete_range(range).timeout(CALL_TIMEOUT).send().await?;
                (reply.header, reply.context, reply.deleted)
            }
        };
        Ok(Answer { header, context, removed })
    }

    /// Scans the folder. A scan that fails shows nothing.
    async fn look(&mut self) {
        let consistency = match self.dice.below(LINEARIZABLE_ONE_IN) {
            0 => Consistency::Linearizable,
            _ => Consistency::Stale,
        };
        let (reverse, scan) = (self.dice.flag(), self.client.scan(KeyRange::prefix(self.folder.prefix())));
        let scan = scan.consistency(consistency).context(&self.context).timeout(CALL_TIMEOUT);
        let scan = if reverse { scan.reverse() } else { scan };
        let Ok(reply) = scan.collect().await else { return };
        let mut shown: Vec<(String, String)> = reply.pairs.iter().map(text).collect();
        if reverse {
            shown.reverse();
        }
        let with_context = consistency == Consistency::Stale && !self.context.is_empty();
        let mut seen = self.folders.seen();
        seen.with_context += u64::from(with_context);
        seen.elsewhere += u64::from(with_context && reply.header.node != self.answered);
        seen.show(self.folder.owner, reply.header.revision.0);
        if let Some(why) = self.folder.differs(&shown) {
            seen.violations.add(format!("{} at revision {}: {why}", reply.header.node, reply.header.revision.0));
        }
        drop(seen);
        (self.context, self.answered) = (reply.context, reply.header.node);
    }
}

fn text(pair: &KeyValue) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&pair.key), text(&pair.value))
}

#[cfg(test)]
mod tests {
    use trefoil_jepsen::checker::Valid;

    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn put(folder: &mut Folder, place: u64, value: &str) {
        let change = Change::Put { key: folder.key(place), value: value.into() };
        assert_eq!(folder.apply(change), 0);
    }

    #[test]
    fn an_owner_knows_what_its_folder_holds() {
        let mut folder = Folder::first(3);
        for (place, value) in [(0, "1"), (2, "2"), (4, "3"), (2, "4"), (5, "5")] {
            put(&mut folder, place, value);
        }
        assert_eq!(folder.apply(Change::Delete { key: folder.key(5) }), 1);
        assert_eq!(folder.apply(Change::Delete { key: folder.key(5) }), 0);
        let range = Change::DeleteRange { from: folder.key(2), before: folder.key(4) };
        assert_eq!((folder.apply(range.clone()), folder.apply(range)), (1, 0));
        let whole = [("folder/3/0/0", "1"), ("folder/3/0/4", "3")];
        assert_eq!(folder.differs(&pairs(&whole)), None);
        for wrong in [&whole[..1], &[], &[whole[1], whole[0]], &[whole[0], ("folder/3/0/4", "2")]] {
            assert!(folder.differs(&pairs(wrong)).is_some(), "{wrong:?}");
        }
        assert_eq!(folder.next().differs(&[]), None, "a fresh one is empty");
    }

    #[test]
    fn each_change_is_chosen_and_values_are_used_once() {
        let (mut folder, mut dice) = (Folder::first(0), Dice::new(1));
        let chosen: Vec<Change> = (0..200).map(|_| folder.choose(&mut dice)).collect();
        let values = chosen.iter().filter_map(|change| match change {
            Change::Put { value, .. } => Some(value.clone()),
            Change::Delete { .. } | Change::DeleteRange { .. } => None,
        });
        assert!(values.eq((1..=folder.values).map(|value| value.to_string())));
        assert!(chosen.iter().any(|change| matches!(change, Change::Delete { .. })));
        let range = |change: &Change| matches!(change, Change::DeleteRange { from, before } if from < before);
        assert!(chosen.iter().any(range));
        assert!(chosen.iter().all(|change| range(change) || !matches!(change, Change::DeleteRange { .. })));
    }

    /// Owners and the revisions they were shown, whether a context was asked with, the verdict.
    type Case = (&'static [(u64, u64)], bool, Valid);

    #[test]
    fn what_was_seen_is_judged() {
        let cases: [Case; 5] = [
            (&[(0, 3), (0, 3), (0, 5)], true, Valid::True),
            (&[(0, 5), (1, 3), (0, 5), (1, 4)], true, Valid::True),
            (&[(0, 3), (0, 5), (0, 4)], true, Valid::False),
            (&[(0, 3), (0, 4)], false, Valid::Unknown),
            (&[], false, Valid::Unknown),
        ];
        for (shown, with_context, expected) in cases {
            let folders = Folders::default();
            for (owner, revision) in shown {
                folders.seen().show(*owner, *revision);
            }
            folders.seen().changes = 1;
            folders.seen().with_context = u64::from(with_context);
            assert_eq!(folders.verdict().valid, expected, "{shown:?}");
        }
    }
}
