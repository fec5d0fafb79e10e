//! Asking Trefoil through its client library: requests and replies of workloads in the library's words.
//!
//! The context of each reply is carried to the next stale read: it is then as far as all that was shown before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trefoil_client::{Client, Compare, Consistency, Context, Error, KeyRange, KeyValue, Op, OpReply, Revision, Txn};

use super::{Change, Changed, Guard, Holds, Pair, Reading};
use crate::outcome::{Access, Failure, of_trefoil};

/// Asks a cluster of Trefoil. Clones share what they were shown.
#[derive(Clone, Debug)]
pub struct TrefoilClient {
    library: Client,
    // The worker's task and its clones'; held for a moment only.
    shown: Arc<Mutex<Context>>,
}

impl From<Client> for TrefoilClient {
    fn from(library: Client) -> TrefoilClient {
        TrefoilClient { library, shown: Arc::default() }
    }
}

impl TrefoilClient {
    pub fn library(&self) -> &Client {
        &self.library
    }

    pub(super) async fn get(&self, key: String, timeout: Duration) -> Result<Reading, Failure> {
        let reply = self.library.get(key).timeout(timeout).send().await.map_err(reading)?;
        let reading = Reading { pairs: vec![reply.pair().map(pair)], at: reply.header.revision.0 };
        self.carry(reply.context);
        Ok(reading)
    }

    pub(super) async fn get_stale(&self, key: String, timeout: Duration) -> Result<Reading, Failure> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let read = self.library.get(key).consistency(Consistency::Stale).context(&shown);
        let reply = read.timeout(timeout).send().await.map_err(reading)?;
        let reading = Reading { pairs: vec![reply.pair().map(pair)], at: reply.header.revision.0 };
        self.carry(reply.context);
        Ok(reading)
    }

    pub(super) async fn get_all(&self, keys: Vec<String>, timeout: Duration) -> Result<Reading, Failure> {
        let txn = keys.into_iter().fold(Txn::new(), |txn, key| txn.then(Op::get(key)));
        let reply = self.library.txn(txn).timeout(timeout).send().await.map_err(reading)?;
        self.carry(reply.context);
        Ok(Reading { pairs: reply.replies.iter().map(found).collect(), at: reply.header.revision.0 })
    }

    pub(super) async fn all_at(&self, revision: u64, timeout: Duration) -> Result<Vec<KeyValue>, Failure> {
        // A node without a replica answers no scan.
        let scan = self.library.scan(KeyRange::all()).revision(Revision(revision)).consistency(Consistency::Stale);
        Ok(scan.timeout(timeout).collect().await.map_err(reading)?.pairs)
    }

    pub(super) async fn put(&self, key: String, text: String, timeout: Duration) -> Result<u64, Failure> {
        let reply = self.library.put(key, text).timeout(timeout).send().await.map_err(writing)?;
        self.carry(reply.context);
        Ok(reply.header.revision.0)
    }

    pub(super) async fn change(&self, change: Change, timeout: Duration) -> Result<Changed, Failure> {
        let reply = self.library.txn(txn(change)).timeout(timeout).send().await.map_err(writing)?;
        self.carry(reply.context);
        Ok(Changed { done: reply.succeeded, revision: reply.header.revision.0 })
    }

    /// What the newest reply has shown: it was as far as all before it.
    fn carry(&self, context: Context) {
        if !context.is_empty() {
            *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = context;
        }
    }
}

fn reading(error: Error) -> Failure {
    of_trefoil(&error, Access::Read)
}

fn writing(error: Error) -> Failure {
    of_trefoil(&error, Access::Write)
}

fn txn(Change { guards, puts }: Change) -> Txn {
    let guarded = guards.into_iter().fold(Txn::new(), |txn, guard| txn.when(compare(guard)));
    puts.into_iter().fold(guarded, |txn, (key, text)| txn.then(Op::put(key, text)))
}

fn compare(Guard { key, holds }: Guard) -> Compare {
    match holds {
        Holds::Absent => Compare::absent(key),
        Holds::Revision(revision) => Compare::unchanged_since(key, Revision(revision)),
        Holds::Text(text) => Compare::value(key, text),
    }
}

fn found(reply: &OpReply) -> Option<Pair> {
    match reply {
        OpReply::Range { pairs, .. } => pairs.first().map(pair),
        OpReply::Put { .. } | OpReply::Delete { .. } | OpReply::Txn { .. } => None,
    }
}

fn pair(found: &KeyValue) -> Pair {
    let text = String::from_utf8_lossy(&found.value).into_owned();
    Pair { text, revision: found.mod_revision.0, version: found.version }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_change_is_a_transaction() {
        let guard = |key: &str, holds| Guard { key: key.into(), holds };
        let guards =
            vec![guard("a", Holds::Absent), guard("b", Holds::Revision(7)), guard("c", Holds::Text("1 2".into()))];
        let change = Change { guards, puts: vec![("a".into(), "x".into()), ("b".into(), "y".into())] };
        let expected = Txn::new()
            .when(Compare::absent("a"))
            .when(Compare::unchanged_since("b", Revision(7)))
            .when(Compare::value("c", "1 2"))
            .then(Op::put("a", "x"))
            .then(Op::put("b", "y"));
        assert_eq!(txn(change), expected);
    }

    #[test]
    fn what_is_found_is_a_pair() {
        let (create_revision, mod_revision) = (Revision(3), Revision(9));
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"4 \xff"));
        let held = KeyValue { key, value, create_revision, mod_revision, version: 2, lease: 0 };
        let expected = Pair { text: "4 \u{fffd}".into(), revision: 9, version: 2 };
        let reply = OpReply::Range { pairs: vec![held], more: false, count: None };
        assert_eq!(found(&reply), Some(expected));
        assert_eq!(found(&OpReply::Range { pairs: Vec::new(), more: false, count: None }), None);
        assert_eq!(found(&OpReply::Put { previous: None }), None);
    }
}
