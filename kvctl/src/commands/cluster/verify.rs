//! `cluster verify`: has every live replica sum its whole content at one revision, and compares.
//!
//! The revision is the leader's newest, so each replica can reach it. A replica that cannot be asked is a failure:
//! silence proves nothing.

use std::time::Duration;

use futures::future::join_all;
use indicatif::ProgressBar;
use trefoil_client::{Client, ClusterMap, Digest, Error, Placed, PlacementRow, Revision, Stage};

use super::{Statuses, node_name, partition_name};
use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::output::{Cell, Output, Sheet};
use crate::progress;

/// A walk over the whole content may take this long, unless the caller says how long.
const WALK_MAX: Duration = Duration::from_secs(600);

const COLUMNS: &[&str] = &["partition", "replica", "node", "revision", "keys", "sum", "result"];

/// Compares the replicas of the map's partitions. Exits 3 when replicas differ or one could not be asked.
pub async fn run(client: &Client, map: &ClusterMap, global: &Global, output: &mut Output) -> Result<Exit, Failure> {
    let statuses = Statuses::ask(client, map, global).await;
    let mut sheet = Sheet::new(COLUMNS);
    let mut all_equal = true;
    let bar = progress::replicas(map.rows.iter().flat_map(live).count() as u64);
    for row in &map.rows {
        let revision = newest(&statuses, row);
        let digests = ask(client, row, revision, global.timeout.unwrap_or(WALK_MAX), &bar).await;
        let reference = digests.iter().find_map(|(_, digest)| digest.as_ref().ok()).copied();
        for (placed, digest) in &digests {
            let (verdict, equal) = judge(digest, reference);
            all_equal &= equal;
            sheet.push(cells(map, row, placed, digest.as_ref().ok(), verdict));
        }
    }
    bar.finish_and_clear();
    output.sheet(&sheet)?;
    Ok(if all_equal { Exit::Ok } else { Exit::Failed })
}

/// The leader's revision; without a leader the highest that anybody has, which all the others may lack.
fn newest(statuses: &Statuses, row: &PlacementRow) -> Option<Revision> {
    let leaders = statuses.leader_of(row.partition).map(|leader| leader.revision);
    let of = |placed: &Placed| statuses.of_replica(placed.node, row.partition, placed.replica);
    leaders.or_else(|| row.replicas.iter().filter_map(of).map(|replica| replica.revision).max())
}

/// A replica and what it answered.
type Answer = (Placed, Result<Digest, Error>);

async fn ask(
    client: &Client,
    row: &PlacementRow,
    revision: Option<Revision>,
    timeout: Duration,
    bar: &ProgressBar,
) -> Vec<Answer> {
    let ask = |placed: Placed| async move {
        let mut digest = client.digest(placed.node, row.partition).timeout(timeout);
        if let Some(revision) = revision {
            digest = digest.revision(revision);
        }
        let answer = digest.await;
        bar.inc(1);
        (placed, answer)
    };
    join_all(live(row).map(ask)).await
}

/// One that is still being filled is not expected to be equal yet.
fn live(row: &PlacementRow) -> impl Iterator<Item = Placed> {
    row.replicas.iter().copied().filter(|placed| placed.stage == Stage::Live)
}

fn judge(digest: &Result<Digest, Error>, reference: Option<Digest>) -> (String, bool) {
    match (digest, reference) {
        (Err(error), _) => (format!("could not be asked: {error}"), false),
        (Ok(digest), Some(reference)) if differs(digest, &reference) => ("DIFFERS".to_owned(), false),
        (Ok(_), Some(_) | None) => ("equal".to_owned(), true),
    }
}

fn differs(one: &Digest, other: &Digest) -> bool {
    (one.revision, one.keys, one.sum) != (other.revision, other.keys, other.sum)
}

fn cells(map: &ClusterMap, row: &PlacementRow, placed: &Placed, digest: Option<&Digest>, verdict: String) -> Vec<Cell> {
    vec![
        partition_name(map, row.partition).into(),
        placed.replica.to_string().into(),
        node_name(map, placed.node).into(),
        digest.map(|digest| digest.revision.0).into(),
        digest.map(|digest| digest.keys).into(),
        digest.map_or(Cell::Absent, |digest| format!("{:016x}", digest.sum).into()),
        verdict.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_client::{NodeId, ReplicaId};

    #[test]
    fn equal_content_at_an_equal_revision() {
        let one = Digest { node: NodeId(1), replica: ReplicaId(1), revision: Revision(5), keys: 2, sum: 7 };
        let same = Digest { node: NodeId(2), replica: ReplicaId(2), ..one };
        assert!(judge(&Ok(same), Some(one)).1);
        for other in [Digest { sum: 8, ..one }, Digest { keys: 3, ..one }, Digest { revision: Revision(6), ..one }] {
            assert!(!judge(&Ok(other), Some(one)).1);
        }
    }
}
