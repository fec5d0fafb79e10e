//! What a believed peer asks about a partition, and how the local replica answers.
//!
//! The peer goes by a placement; this node first gets to know one as new, and tells its own row where that is newer.
//!
//! Invariant: what is asked is answered here, or refused, never handed on.

use std::sync::Arc;
use std::time::Duration;

use trefoil_causality::Revision;
use trefoil_placement::{Epoch, PartitionId};
use trefoil_proto::peer::{NewerRow, ProposeRequest};
use trefoil_store::command::{Command, Op, Outcome, Reply, RequestId, decode_command};
use trefoil_store::mvcc::{self, Content};
use trefoil_world::clock::{self, Instant};

use crate::api::peer::Member;
use crate::cluster::map::encode_row;
use crate::error::Error;
use crate::replication::{Consistency, Replica};
use crate::verify::{self, Haste, WALK_PATIENCE};

/// What a believed peer asks about, and by which placement.
pub(super) struct Asked {
    pub(super) partition: PartitionId,
    pub(super) epoch: Epoch,
}

/// The row this node knows, when it is newer than the one it was asked by.
pub(super) fn newer_row(member: &Member, asked: &Asked) -> Option<NewerRow> {
    let map = member.router.map.load();
    let row = map.rows.get(&asked.partition).filter(|row| row.epoch > asked.epoch)?;
    Some(NewerRow { row: encode_row(row), version: map.version_of(asked.partition).0 })
}

/// The replica that is asked, on a node that knows the placement it is asked by.
async fn local(member: &Member, asked: &Asked, deadline: Instant) -> Result<Arc<Replica>, Error> {
    member.router.reach_epoch_of(asked.partition, asked.epoch, deadline).await?;
    member
        .router
        .local(asked.partition)
        .ok_or_else(|| Error::Unavailable { why: format!("this node holds no replica of {}", asked.partition) })
}

pub(super) async fn propose(member: &Member, asked: &Asked, ask: ProposeRequest) -> Result<Outcome, Error> {
    let deadline = clock::now() + Duration::from_millis(ask.deadline_ms);
    let replica = local(member, asked, deadline).await?;
    // A command may have more bytes than the request it came in: a condition repeats the key.
    let (actual, limit) = (ask.command.len(), 2 * member.message_bytes_max);
    if actual > limit {
        return Err(Error::TooLarge { what: "a command", actual, limit });
    }
    let command = decode_command(ask.command)
        .map_err(|malformed| Error::Malformed { field: "command", why: malformed.to_string() })?;
    if let Command::Op(Op::Range(op)) = command {
        return match replica.read(&op, Consistency::Linearizable, deadline).await {
            Ok(answer) => Ok(Outcome { revision: answer.revision, result: Ok(Reply::Range(answer.reply)) }),
            Err(Error::Refused(refusal)) => Ok(Outcome { revision: Revision(0), result: Err(refusal) }),
            Err(error) => Err(error),
        };
    }
    if let Command::Op(op) = &command {
        mvcc::check(op, &member.limits)?;
        member.health.room_for(op)?;
    }
    let request = RequestId { session: ask.session, sequence: ask.sequence, acknowledged: ask.acknowledged };
    replica.write(&command, (ask.session != 0).then_some(request), deadline).await
}

pub(super) async fn read_index(member: &Member, asked: &Asked, deadline: Instant) -> Result<u64, Error> {
    match local(member, asked, deadline).await?.as_ref() {
        Replica::Leader(replica) => replica.read_index(deadline).await,
    }
}

pub(super) async fn digest(member: &Member, asked: &Asked, revision: Revision) -> Result<Content, Error> {
    let deadline = clock::now() + WALK_PATIENCE;
    let replica = local(member, asked, deadline).await?;
    let _walk = member.router.walk_place()?;
    let (_, content) = verify::digest(&replica, Some(revision), Haste::ByItself, deadline).await?;
    Ok(content)
}
