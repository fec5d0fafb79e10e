//! Changes guarded by what was read: read some keys in one transaction, then write in another one that holds only if none
//! of them has changed since.

use std::time::Duration;

use trefoil_client::{Client, Compare, Error, Op, OpReply, Revision, Txn};

/// Keys as they stood together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    /// In the order in which they were asked for.
    pub(crate) rows: Vec<Row>,
    /// The store's revision then.
    pub(crate) at: u64,
}

/// What stood at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    key: String,
    /// Empty when the key was not there.
    pub(crate) text: String,
    /// Its newest put, and how many there were.
    written: Option<(Revision, u64)>,
}

impl Row {
    /// Of its newest put; 0 when the key was not there.
    pub(crate) fn revision(&self) -> u64 {
        self.written.map_or(0, |(revision, _)| revision.0)
    }

    /// Puts since it was created; 0 when the key was not there.
    pub(crate) fn version(&self) -> u64 {
        self.written.map_or(0, |(_, version)| version)
    }

    /// The numbers in it, separated by blanks; a word that is none is shown as one nobody writes.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.text.split_ascii_whitespace().map(|word| word.parse().unwrap_or(u64::MAX)).collect()
    }

    fn unchanged(&self) -> Compare {
        match self.written {
            Some((revision, _)) => Compare::unchanged_since(self.key.clone(), revision),
            None => Compare::absent(self.key.clone()),
        }
    }
}

/// Reads `keys` at one revision.
pub(crate) async fn read(client: &Client, keys: Vec<String>, timeout: Duration) -> Result<Rows, Error> {
    let txn = keys.iter().fold(Txn::new(), |txn, key| txn.then(Op::get(key.clone())));
    let reply = client.txn(txn).timeout(timeout).send().await?;
    let rows = keys.into_iter().zip(reply.replies).map(|(key, reply)| row(key, reply)).collect();
    Ok(Rows { rows, at: reply.header.revision.0 })
}

fn row(key: String, reply: OpReply) -> Row {
    let pair = match reply {
        OpReply::Range { pairs, .. } => pairs.into_iter().next(),
        OpReply::Put { .. } | OpReply::Delete { .. } | OpReply::Txn { .. } => None,
    };
    let text = pair.as_ref().map(|pair| String::from_utf8_lossy(&pair.value).into_owned()).unwrap_or_default();
    Row { key, text, written: pair.map(|pair| (pair.mod_revision, pair.version)) }
}

/// Writes `puts` if none of `read` has changed, and gives the revision of that; `None` when one has.
pub(crate) async fn write(
    client: &Client,
    read: &[Row],
    puts: Vec<(String, String)>,
    timeout: Duration,
) -> Result<Option<u64>, Error> {
    let guarded = read.iter().fold(Txn::new(), |txn, row| txn.when(row.unchanged()));
    let txn = puts.into_iter().fold(guarded, |txn, (key, text)| txn.then(Op::put(key, text)));
    let reply = client.txn(txn).timeout(timeout).send().await?;
    Ok(reply.succeeded.then_some(reply.header.revision.0))
}

/// Numbers as [`Row::numbers`] reads them.
pub(crate) fn text_of(numbers: &[u64]) -> String {
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    words.join(" ")
}
