//! Words of the harness, said on lines to see what gets through, and when.
//!
//! A word goes the way that nodes' bytes go (`connection.rs`), over a connection both ends of which are here. It counts
//! as standing already: what holds its word back is the line, not that a connection cannot be opened. So each direction is
//! told apart, and nothing depends on the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use trefoil_world::clock;

use super::{Line, Proxies, connection};

/// Of a word: a drip of thousands of bytes a second takes its time over it.
const WORD_BYTES: usize = 512;
/// How long a word must not come on a line that is cut: on one that is not it takes some microseconds.
const SILENT: Duration = Duration::from_millis(200);
/// How long a word may take on any other line.
const WORD_MAX: Duration = Duration::from_secs(2);

impl Proxies {
    /// Says a word on every line: how long each took to get through; nothing when it did not. `cut`: the lines on which
    /// it should not.
    pub(crate) async fn words(&self, cut: &BTreeSet<Line>) -> BTreeMap<Line, Option<Duration>> {
        let lines = Line::all(self.0.targets.len());
        let pairs = lines.into_iter().filter(|line| line.from < line.to);
        join_all(pairs.map(|line| self.exchange(line, cut))).await.into_iter().flatten().collect()
    }

    /// Says a word on a line, and one on the way back.
    async fn exchange(&self, line: Line, cut: &BTreeSet<Line>) -> [(Line, Option<Duration>); 2] {
        let ((near, caller), (far, called)) = (duplex(WORD_BYTES), duplex(WORD_BYTES));
        let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (split(near), split(far));
        let said = async {
            tokio::join!(
                say(&mut to_near, &mut from_far, patience(line, cut)),
                say(&mut to_far, &mut from_near, patience(line.back(), cut)),
            )
        };
        let (there, back) = tokio::select! {
            said = said => said,
            // Its ends are open, so it goes on.
            () = connection::carry(self, Box::pin(caller), Box::pin(called), line) => (None, None),
        };
        [(line, there), (line.back(), back)]
    }
}

fn patience(line: Line, cut: &BTreeSet<Line>) -> Duration {
    if cut.contains(&line) { SILENT } else { WORD_MAX }
}

/// Says a word at one end, and hears it at the other one: how long that took.
async fn say(to: &mut WriteHalf<DuplexStream>, from: &mut ReadHalf<DuplexStream>, most: Duration) -> Option<Duration> {
    let (began, mut heard) = (clock::now(), [0; WORD_BYTES]);
    let way = async {
        to.write_all(&[b'.'; WORD_BYTES]).await?;
        from.read_exact(&mut heard).await
    };
    clock::timeout(most, way).await.ok()?.ok()?;
    Some(began.elapsed())
}
