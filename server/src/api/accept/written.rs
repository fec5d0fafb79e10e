//! What the bytes of HTTP/2 that are written say: how much DATA there was, and whether a frame has begun and not ended.
//!
//! Pure; it walks from one frame's head to the next, however the bytes are cut.
//!
//! Left out: the preface, which only clients send, and what is in the frames.

use std::io;

/// Bytes of an HTTP/2 frame's head: length of the payload (3), kind, flags, stream (4).
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;

/// Counts the DATA in the HTTP/2 frames that are written.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) data_bytes: u64,
    /// What has come of the next frame's head.
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// What is still to come of this frame's payload.
    payload_left: usize,
}

impl Written {
    /// Whether what was written ends with a whole frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.head_bytes == 0 && self.payload_left == 0
    }

    /// The first `count` bytes of `parts` were written.
    pub(super) fn note(&mut self, parts: &[io::IoSlice<'_>], mut count: usize) {
        for part in parts {
            let written = &part[..part.len().min(count)];
            count -= written.len();
            self.walk(written);
        }
    }

    fn walk(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match self.payload_left {
                0 => self.walk_head(bytes),
                left => self.walk_payload(left.min(bytes.len())),
            };
            bytes = &bytes[taken..];
        }
    }

    fn walk_head(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(HEAD_BYTES - self.head_bytes);
        self.head[self.head_bytes..][..taken].copy_from_slice(&bytes[..taken]);
        self.head_bytes += taken;
        if self.head_bytes == HEAD_BYTES {
            let [high, middle, low, ..] = self.head;
            self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
            self.head_bytes = 0;
        }
        taken
    }

    fn walk_payload(&mut self, taken: usize) -> usize {
        self.payload_left -= taken;
        if self.head[3] == DATA {
            self.data_bytes += taken as u64;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("a small payload").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 1]);
        bytes.resize(HEAD_BYTES + payload, 0);
        bytes
    }

    #[test]
    fn only_data_counts_however_it_is_cut() {
        const PING: u8 = 6;
        let frames = [frame(PING, 8), frame(DATA, 0), frame(DATA, 20), frame(4, 0), frame(PING, 8), frame(DATA, 1)];
        let bytes = frames.concat();
        for at_once in 1..=bytes.len() {
            let mut written = Written::default();
            for cut in bytes.chunks(at_once) {
                let (front, back) = cut.split_at(cut.len() / 2);
                // Of the last part nothing was written.
                let parts = [front, back, &[0; 50]].map(io::IoSlice::new);
                written.note(&parts, cut.len());
            }
            assert_eq!(written.data_bytes, 21, "in pieces of {at_once}");
        }
    }
}
