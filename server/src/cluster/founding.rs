//! Founding a cluster, from empty directories only, resumable after a crash at any point.
//!
//! Every new node knows its storage id and the list of `--initial-cluster`. The node whose name sorts first asks all
//! the others; when each has answered that it is new, with the same list, it writes the **founding record**: cluster
//! id, node ids by name, all storage ids. The others ask until somebody answers with a record; one that names their
//! own storage id makes them members, any other keeps them out.
//!
//! Invariants:
//!
//! * A record is durable on the node that wrote it before anybody else sees it.
//! * A directory adopts only a record that holds its own storage id, so a wiped node never founds or joins by itself.
//!
//! Left out: asking and writing, which are `forming.rs`'s.

use bytes::Bytes;
use trefoil_causality::ReplicaId;
use trefoil_placement::{Candidate, NodeId, choose};
use trefoil_store::codec::{Decoder, Malformed, put_bytes, put_u64};
use trefoil_world::planted::{self, Bug};

use crate::cluster::identity::{ClusterId, StorageId};

const FORMAT: u8 = 1;
/// Voters of `_meta`; the other nodes are learners.
pub const META_VOTERS_MAX: usize = 5;

/// What the founders agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundingRecord {
    pub cluster: ClusterId,
    /// By node id, from 1 on, in the order of their names.
    pub founders: Vec<Founder>,
}

/// One node of a founding record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    pub node: NodeId,
    pub name: String,
    pub storage: StorageId,
    pub peer_address: String,
    pub client_address: String,
    pub zone: String,
    pub weight: u32,
}

impl Founder {
    /// Its replica of `_meta`: the first replica ids go to the founders in order.
    pub fn meta_replica(&self) -> ReplicaId {
        ReplicaId(self.node.0)
    }
}

impl FoundingRecord {
    /// The record for nodes that all answered `new`; `answers` in any order, node ids not yet given.
    pub fn found(cluster: ClusterId, mut answers: Vec<Founder>) -> FoundingRecord {
        answers.sort_by(|a, b| a.name.cmp(&b.name));
        for (founder, id) in answers.iter_mut().zip(1..) {
            founder.node = NodeId(id);
        }
        FoundingRecord { cluster, founders: answers }
    }

    /// The founder whose directory this is.
    pub fn of_storage(&self, storage: StorageId) -> Option<&Founder> {
        self.founders.iter().find(|founder| founder.storage == storage)
    }

    /// What a planted bug makes of the record: this directory in the place of the one its name was founded with.
    fn with_directory(&self, me: &Founder) -> FoundingRecord {
        let mut record = self.clone();
        let named = record.founders.iter_mut().find(|founder| founder.name == me.name);
        named.expect("whoever asks founders is one by name").storage = me.storage;
        record
    }

    /// The name this directory was founded under, when it is not `name`: a node keeps its name for ever.
    pub fn misnamed(&self, storage: StorageId, name: &str) -> Option<&str> {
        self.of_storage(storage).map(|founder| founder.name.as_str()).filter(|founded| *founded != name)
    }

    /// The voters `_meta` starts with: at most [`META_VOTERS_MAX`], zones spread.
    pub fn meta_voters(&self) -> Vec<&Founder> {
        let candidates: Vec<Candidate> = self
            .founders
            .iter()
            .map(|founder| Candidate { node: founder.node, zone: founder.zone.clone(), weight: founder.weight })
            .collect();
        let chosen = choose(&candidates, META_VOTERS_MAX);
        self.founders.iter().filter(|founder| chosen.contains(&founder.node)).collect()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_bytes(&mut out, &self.cluster.0.to_be_bytes());
        put_u64(&mut out, self.founders.len() as u64);
        for founder in &self.founders {
            put_u64(&mut out, founder.node.0);
            put_bytes(&mut out, &founder.storage.0.to_be_bytes());
            for text in [&founder.name, &founder.peer_address, &founder.client_address, &founder.zone] {
                put_bytes(&mut out, text.as_bytes());
            }
            put_u64(&mut out, u64::from(founder.weight));
        }
        out
    }

    pub fn decode(bytes: Bytes) -> Result<FoundingRecord, Malformed> {
        let mut from = Decoder::new(bytes, "founding record");
        if from.u8()? != FORMAT {
            return Err(from.malformed());
        }
        let cluster = ClusterId(u128_field(&mut from)?);
        let founders = (0..from.count()?).map(|_| founder(&mut from)).collect::<Result<_, _>>()?;
        from.end()?;
        Ok(FoundingRecord { cluster, founders })
    }
}

fn founder(from: &mut Decoder) -> Result<Founder, Malformed> {
    Ok(Founder {
        node: NodeId(from.u64()?),
        storage: StorageId(u128_field(from)?),
        name: from.string()?,
        peer_address: from.string()?,
        client_address: from.string()?,
        zone: from.string()?,
        weight: from.u32()?,
    })
}

fn u128_field(from: &mut Decoder) -> Result<u128, Malformed> {
    let bytes = from.bytes()?.as_ref().try_into().map_err(|_| from.malformed())?;
    Ok(u128::from_be_bytes(bytes))
}

/// What one other node of the list answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No answer yet.
    Silent { name: String },
    /// It is new too, with the list it was given.
    New { founder: Founder, list: Vec<(String, String)> },
    /// It belongs to a cluster.
    Founded(FoundingRecord),
}

/// What a new node does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask again later; the text says what is missing.
    Wait(String),
    /// Write this record and become its member.
    Adopt(FoundingRecord),
    /// The others have a cluster without this directory.
    StayOut(String),
}

/// Decides what a new node does, from its own description, the list and the others' answers. `fresh` names the
/// cluster if this node founds it.
pub fn step(me: &Founder, list: &[(String, String)], answers: &[Answer], fresh: ClusterId) -> Step {
    let mut records = answers.iter().filter_map(|answer| match answer {
        Answer::Founded(record) => Some(record),
        Answer::Silent { .. } | Answer::New { .. } => None,
    });
    if let Some(record) = records.clone().find(|record| record.of_storage(me.storage).is_some()) {
        return Step::Adopt(record.clone());
    }
    if planted::is(Bug::StorageIdIgnored)
        && let Some(record) = records.clone().next()
    {
        return Step::Adopt(record.with_directory(me));
    }
    if let Some(record) = records.next() {
        return Step::StayOut(stay_out(me, record));
    }
    if let Some(why) = missing(list, answers) {
        return Step::Wait(why);
    }
    let mut founders: Vec<Founder> = answers
        .iter()
        .filter_map(|answer| match answer {
            Answer::New { founder, .. } => Some(founder.clone()),
            Answer::Silent { .. } | Answer::Founded(_) => None,
        })
        .collect();
    founders.push(me.clone());
    if let Some(why) = twins(&founders) {
        return Step::Wait(why);
    }
    match list.iter().map(|(name, _)| name).min() {
        Some(first) if *first == me.name => Step::Adopt(FoundingRecord::found(fresh, founders)),
        Some(first) => Step::Wait(format!("waiting for {first} to found the cluster")),
        None => Step::Adopt(FoundingRecord::found(fresh, founders)),
    }
}

fn stay_out(me: &Founder, record: &FoundingRecord) -> String {
    format!(
        "this directory is empty, but cluster {} exists and knows {} by another directory: it stays out and serves \
         nothing; put the old directory back, or run: kvctl node replace {} (storage id {})",
        record.cluster, me.name, me.name, me.storage
    )
}

/// Two names over one directory, or over copies of it, can be no two members.
fn twins(founders: &[Founder]) -> Option<String> {
    founders.iter().enumerate().find_map(|(place, one)| {
        let other = founders[..place].iter().find(|other| other.storage == one.storage)?;
        let (other, one) = (&other.name, &one.name);
        Some(format!("{other} and {one} have one storage id: one directory is a copy of the other; empty one of them"))
    })
}

fn missing(list: &[(String, String)], answers: &[Answer]) -> Option<String> {
    answers.iter().find_map(|answer| match answer {
        Answer::Silent { name } => Some(format!("waiting for {name} to answer")),
        Answer::New { founder, list: theirs } if theirs != list => {
            Some(format!("{} was started with another --initial-cluster", founder.name))
        }
        Answer::New { .. } | Answer::Founded(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founder(name: &str) -> Founder {
        let storage = StorageId(u128::from(name.as_bytes()[1]));
        let address = format!("{name}:1");
        Founder {
            node: NodeId(0),
            name: name.into(),
            storage,
            peer_address: address.clone(),
            client_address: address,
            zone: String::new(),
            weight: 1,
        }
    }

    fn list(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| (name.to_string(), format!("{name}:1"))).collect()
    }

    fn new(name: &str) -> Answer {
        Answer::New { founder: founder(name), list: list(&["n1", "n2"]) }
    }

    #[test]
    fn the_first_name_founds_when_all_are_new() {
        let fresh = ClusterId(7);
        let both = list(&["n1", "n2"]);
        let silent = Answer::Silent { name: "n2".into() };
        assert!(matches!(step(&founder("n1"), &both, &[silent], fresh), Step::Wait(_)));
        assert!(matches!(step(&founder("n2"), &both, &[new("n1")], fresh), Step::Wait(_)));
        let Step::Adopt(record) = step(&founder("n1"), &both, &[new("n2")], fresh) else { panic!("n1 founds") };
        assert_eq!(
            record.founders.iter().map(|f| (f.node.0, f.name.as_str())).collect::<Vec<_>>(),
            [(1, "n1"), (2, "n2")]
        );
        assert_eq!(FoundingRecord::decode(record.encode().into()), Ok(record.clone()));
        let adopted = step(&founder("n2"), &both, &[Answer::Founded(record.clone())], fresh);
        assert_eq!(adopted, Step::Adopt(record.clone()));
        let wiped = Founder { storage: StorageId(99), ..founder("n2") };
        assert!(matches!(step(&wiped, &both, &[Answer::Founded(record)], fresh), Step::StayOut(_)));
    }

    #[test]
    fn a_directory_keeps_its_name() {
        let record = FoundingRecord::found(ClusterId(7), vec![founder("n1"), founder("n2")]);
        let cases = [("n1", "n1", None), ("n1", "n2", Some("n1")), ("n2", "n9", Some("n2"))];
        for (of, name, expected) in cases {
            assert_eq!(record.misnamed(founder(of).storage, name), expected, "the directory of {of} as {name}");
        }
        assert_eq!(record.misnamed(StorageId(99), "n9"), None, "a directory the record does not know");
    }

    #[test]
    fn copies_of_one_directory_found_nothing() {
        let twin = Answer::New {
            founder: Founder { storage: founder("n1").storage, ..founder("n2") },
            list: list(&["n1", "n2"]),
        };
        let waits = step(&founder("n1"), &list(&["n1", "n2"]), &[twin], ClusterId(1));
        assert!(matches!(&waits, Step::Wait(why) if why.contains("n2 and n1")), "{waits:?}");
    }

    #[test]
    fn lists_must_agree() {
        let other = Answer::New { founder: founder("n2"), list: list(&["n2"]) };
        assert!(matches!(step(&founder("n1"), &list(&["n1", "n2"]), &[other], ClusterId(1)), Step::Wait(_)));
    }
}
