//! Changes guarded by what was read: read some keys in one transaction, then write in another one that holds only if none
//! of them has changed since.

use std::time::Duration;

use trefoil_client::{Client, Compare, Error, Op, OpReply, Revision, Txn};

/// What stood at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: String,
    /// Empty when the key was not there.
    pub(crate) text: String,
    revision: Option<Revision>,
}

impl Row {
    fn unchanged(&self) -> Compare {
        match self.revision {
            Some(revision) => Compare::unchanged_since(self.key.clone(), revision),
            None => Compare::absent(self.key.clone()),
        }
    }

    /// The numbers in it, separated by blanks; a word that is none is shown as one nobody writes.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.text.split_ascii_whitespace().map(|word| word.parse().unwrap_or(u64::MAX)).collect()
    }
}

/// Reads `keys` at one revision.
pub(crate) async fn read(client: &Client, keys: Vec<String>, timeout: Duration) -> Result<Vec<Row>, Error> {
    let txn = keys.iter().fold(Txn::new(), |txn, key| txn.then(Op::get(key.clone())));
    let reply = client.txn(txn).timeout(timeout).send().await?;
    Ok(keys.into_iter().zip(reply.replies).map(|(key, reply)| row(key, reply)).collect())
}

fn row(key: String, reply: OpReply) -> Row {
    let pair = match reply {
        OpReply::Range { pairs, .. } => pairs.into_iter().next(),
        OpReply::Put { .. } | OpReply::Delete { .. } | OpReply::Txn { .. } => None,
    };
    let text = pair.as_ref().map(|pair| String::from_utf8_lossy(&pair.value).into_owned()).unwrap_or_default();
    Row { key, text, revision: pair.map(|pair| pair.mod_revision) }
}

/// Writes `puts` if none of `read` has changed. Whether it did.
pub(crate) async fn write(
    client: &Client,
    read: &[Row],
    puts: Vec<(String, String)>,
    timeout: Duration,
) -> Result<bool, Error> {
    let guarded = read.iter().fold(Txn::new(), |txn, row| txn.when(row.unchanged()));
    let txn = puts.into_iter().fold(guarded, |txn, (key, text)| txn.then(Op::put(key, text)));
    Ok(client.txn(txn).timeout(timeout).send().await?.succeeded)
}

/// Numbers as [`Row::numbers`] reads them.
pub(crate) fn text_of(numbers: &[u64]) -> String {
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    words.join(" ")
}
