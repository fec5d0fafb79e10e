//! Questions beside the Raft stream, about `default`, and what comes of them.
//!
//! They only read: whoever asks them changes nothing.

use bytes::Bytes;
use tonic::Status;
use tonic::transport::Channel;
use trefoil_client::{KeyspaceId, Revision};
use trefoil_proto::peer::peer_client::PeerClient;
use trefoil_proto::peer::{
    Caller, DigestReply, DigestRequest, NewerRow, ProposeReply, ProposeRequest, ReadIndexReply, ReadIndexRequest,
    digest_reply, propose_reply, read_index_reply,
};

use super::ATTEMPT_MAX;
use crate::raw::bounded;

/// The encoded command that reads the key `k`.
const READ: &[u8] = &[1, 1, 1, 1, b'k', 1, 0, 0, 0, 0, 0, 0];

/// One of the questions.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    Propose,
    ReadIndex,
    Digest,
}

/// All of them.
pub const ASKS: [Ask; 3] = [Ask::Propose, Ask::ReadIndex, Ask::Digest];

/// What came of a question.
#[derive(Debug)]
pub struct Answer {
    pub how: How,
    pub newer: Option<NewerRow>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    Done,
    NotLeader,
    /// For this reason.
    Refused(String),
}

impl How {
    /// Whether it is of the expected kind, and for a reason with the expected words in it.
    pub fn is_like(&self, expected: &How) -> bool {
        match (self, expected) {
            (How::Refused(reason), How::Refused(words)) => reason.contains(words),
            (this, expected) => this == expected,
        }
    }
}

impl Ask {
    /// What a replica that does not lead says, if it is not refused.
    pub fn at_follower(self) -> How {
        match self {
            Ask::Propose | Ask::ReadIndex => How::NotLeader,
            Ask::Digest => How::Done,
        }
    }

    pub async fn put_to(self, peer: &Channel, caller: Option<Caller>) -> Result<Answer, Status> {
        let mut peer = PeerClient::new(peer.clone());
        let (keyspace_id, deadline_ms) = (KeyspaceId::DEFAULT.0, ATTEMPT_MAX.as_millis() as u64);
        match self {
            Ask::Propose => {
                let command = Bytes::from_static(READ);
                let ask = ProposeRequest { caller, keyspace_id, command, deadline_ms, ..ProposeRequest::default() };
                peer.propose(bounded(ask, ATTEMPT_MAX)).await.map(|reply| proposed(reply.into_inner()))
            }
            Ask::ReadIndex => {
                let ask = ReadIndexRequest { caller, keyspace_id, partition: 0, deadline_ms };
                peer.read_index(bounded(ask, ATTEMPT_MAX)).await.map(|reply| indexed(reply.into_inner()))
            }
            Ask::Digest => {
                let ask = DigestRequest { caller, keyspace_id, partition: 0, revision: Revision::EMPTY.0 };
                peer.digest(bounded(ask, ATTEMPT_MAX)).await.map(|reply| digested(reply.into_inner()))
            }
        }
    }
}

fn proposed(ProposeReply { reply, newer }: ProposeReply) -> Answer {
    let how = match reply.expect("an answer that says something") {
        propose_reply::Reply::Outcome(_) => How::Done,
        propose_reply::Reply::NotLeader(_) => How::NotLeader,
        propose_reply::Reply::Unknown(why) => panic!("expected a read to have an outcome: {why}"),
        propose_reply::Reply::Refused(refused) => How::Refused(refused.why),
    };
    Answer { how, newer }
}

fn indexed(ReadIndexReply { reply, newer }: ReadIndexReply) -> Answer {
    let how = match reply.expect("an answer that says something") {
        read_index_reply::Reply::Index(_) => How::Done,
        read_index_reply::Reply::NotLeader(_) => How::NotLeader,
        read_index_reply::Reply::Refused(refused) => How::Refused(refused.why),
    };
    Answer { how, newer }
}

fn digested(DigestReply { reply, newer }: DigestReply) -> Answer {
    let how = match reply.expect("an answer that says something") {
        digest_reply::Reply::Digest(_) => How::Done,
        digest_reply::Reply::Refused(refused) => How::Refused(refused.why),
    };
    Answer { how, newer }
}
