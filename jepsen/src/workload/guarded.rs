//! Changes guarded by what was read: read some keys together, then write in another request that is done only if none of
//! them has changed since.

use std::time::Duration;

use crate::client::{Change, Client, Guard, Holds, Pair};
use crate::outcome::Failure;

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
    pair: Option<Pair>,
}

impl Row {
    /// Empty when the key was not there.
    pub(crate) fn text(&self) -> &str {
        self.pair.as_ref().map_or("", |pair| &pair.text)
    }

    /// Of its newest put; 0 when the key was not there.
    pub(crate) fn revision(&self) -> u64 {
        self.pair.as_ref().map_or(0, |pair| pair.revision)
    }

    /// Puts since it was created; 0 when the key was not there.
    pub(crate) fn version(&self) -> u64 {
        self.pair.as_ref().map_or(0, |pair| pair.version)
    }

    /// The numbers in it, separated by blanks; a word that is none is shown as one nobody writes.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.text().split_ascii_whitespace().map(|word| word.parse().unwrap_or(u64::MAX)).collect()
    }

    fn unchanged(&self) -> Guard {
        let holds = self.pair.as_ref().map_or(Holds::Absent, |pair| Holds::Revision(pair.revision));
        Guard { key: self.key.clone(), holds }
    }
}

/// Reads `keys` at one revision.
pub(crate) async fn read(client: &Client, keys: Vec<String>, timeout: Duration) -> Result<Rows, Failure> {
    let reading = client.get_all(keys.clone(), timeout).await?;
    let rows = keys.into_iter().zip(reading.pairs).map(|(key, pair)| Row { key, pair }).collect();
    Ok(Rows { rows, at: reading.at })
}

/// Writes `puts` if none of `read` has changed, and gives the revision of that; `None` when one has.
pub(crate) async fn write(
    client: &Client,
    read: &[Row],
    puts: Vec<(String, String)>,
    timeout: Duration,
) -> Result<Option<u64>, Failure> {
    let guards = read.iter().map(Row::unchanged).collect();
    let changed = client.change(Change { guards, puts }, timeout).await?;
    Ok(changed.done.then_some(changed.revision))
}

/// Numbers as [`Row::numbers`] reads them.
pub(crate) fn text_of(numbers: &[u64]) -> String {
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_guarded_by_what_was_read() {
        let row = |pair| Row { key: "k".into(), pair };
        let absent = row(None);
        assert_eq!(absent.unchanged(), Guard { key: "k".into(), holds: Holds::Absent });
        assert_eq!((absent.text(), absent.revision(), absent.version(), absent.numbers()), ("", 0, 0, vec![]));
        let held = row(Some(Pair { text: "1 x 3".into(), revision: 9, version: 4 }));
        assert_eq!(held.unchanged(), Guard { key: "k".into(), holds: Holds::Revision(9) });
        assert_eq!((held.revision(), held.version(), held.numbers()), (9, 4, vec![1, u64::MAX, 3]));
        assert_eq!(row(Some(Pair { text: text_of(&[7, 8]), revision: 1, version: 1 })).numbers(), [7, 8]);
    }
}
