//! Answering a peer's Raft messages: those of many frames at a time, each as soon as its replica has answered.
//!
//! Answers that are ready together go back in one frame. Each message is answered by the replica it is for, if its sender
//! may speak to that one (`voice.rs`).
//!
//! Invariants:
//!
//! * While too many messages are being answered no frame is read: the sender waits.
//! * A message always has an answer, also when nobody here may hear it.
//!
//! Left out: the opening words, with which the stream has begun.

use std::sync::Arc;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use trefoil_placement::NodeId;
use trefoil_proto::peer::{Failure, Frame, Message, message::Body};

use crate::api::peer::Member;
use crate::api::peer::voice::Voice;
use crate::raft::group::RaftReplica;

/// Raft messages of one peer being answered at a time.
const ANSWERS_MAX: usize = 1024;
/// Answered frames on their way.
pub(super) const FRAMES_MAX: usize = 8;

/// Answers a peer's messages until the stream ends, or until another start of that peer has been met.
pub(super) async fn answer_frames(
    member: Arc<Member>,
    (node, run): (NodeId, u64),
    mut frames: Streaming<Frame>,
    answers: mpsc::Sender<Result<Frame, Status>>,
) {
    let mut voice = Voice::of(node);
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(answer) = running.next(), if !running.is_empty() => {
                let mut messages = vec![answer];
                while let Some(Some(answer)) = running.next().now_or_never() {
                    messages.push(answer);
                }
                let frame = Frame { hello: None, messages, position: member.acquaintances.position() };
                if answers.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
            frame = frames.message(), if running.len() < ANSWERS_MAX => match frame {
                Ok(Some(frame)) if !member.acquaintances.hear(node, run, frame.position) => return,
                Ok(Some(frame)) => running.extend(frame.messages.into_iter().map(|message| {
                    answer(voice.addressee(&member, &message), message)
                })),
                Ok(None) | Err(_) => return,
            },
        }
    }
}

async fn answer(raft: Result<Arc<RaftReplica>, String>, message: Message) -> Message {
    let body = match (raft, message.body) {
        (Ok(raft), Some(body)) => raft.answer(body).await,
        (Err(reason), _) => Body::Failure(Failure { reason }),
        (_, None) => Body::Failure(Failure { reason: "empty message".into() }),
    };
    Message { id: message.id, from_replica: message.to_replica, to_replica: message.from_replica, body: Some(body) }
}
