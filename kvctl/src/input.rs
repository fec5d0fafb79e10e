//! What a command reads from stdin: all of it, up to a bound.

use std::io::{self, Read};

use crate::exit::Failure;

/// More bytes are not read: no server takes a request of more than 16 MiB, and as text it may be a few times as long.
const STDIN_MAX: u64 = 64 << 20;

/// Reads `what`, as messages call it, from stdin.
///
/// # Errors
/// `Usage` when there is more of it than any server takes, `Local` when it cannot be read.
pub(crate) fn read(what: &str) -> Result<Vec<u8>, Failure> {
    bounded(io::stdin().lock(), what, STDIN_MAX)
}

fn bounded(from: impl Read, what: &str, max: u64) -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    match from.take(max + 1).read_to_end(&mut input) {
        Ok(_) if input.len() as u64 > max => {
            Err(Failure::Usage(format!("{what} on stdin has more than {max} bytes, the most that is read")))
        }
        Ok(_) => Ok(input),
        Err(error) => Err(Failure::Local(format!("cannot read {what} from stdin: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_bound_is_read() {
        assert_eq!(bounded(&b"12345"[..], "it", 5).ok(), Some(b"12345".to_vec()));
        for failure in [bounded(&b"123456"[..], "it", 5), bounded(io::repeat(b'x'), "it", 5)] {
            let Err(Failure::Usage(why)) = failure else { panic!("expected a refusal, got {failure:?}") };
            assert_eq!(why, "it on stdin has more than 5 bytes, the most that is read");
        }
    }
}
