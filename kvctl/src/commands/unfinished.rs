//! Names of files that an export has not finished: what it writes under before the whole file takes its name.
//!
//! An export that is killed leaves such a file behind. `import` passes over it and says so; a later export removes it
//! from each directory it writes to. Since a finished file of such a name would be lost that way, an export writes none.

use std::ffi::OsString;

use trefoil_world::random;

const PREFIX: &str = ".kvctl-export-";
/// Hexadecimal digits behind it.
const DIGITS: usize = 16;

/// A name that no other file has, as good as surely.
pub fn name() -> OsString {
    format!("{PREFIX}{:0width$x}", random::next_u64(), width = DIGITS).into()
}

/// Whether a file's name is one of these.
pub fn is_one(name: &[u8]) -> bool {
    let digits = name.strip_prefix(PREFIX.as_bytes());
    digits.is_some_and(|digits| digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn only_made_names_are_known() {
        assert!(is_one(name().as_bytes()));
        assert_ne!(name(), name());
        for (name, one) in [
            (&b".kvctl-export-0123456789abcdef"[..], true),
            (b".kvctl-export-0123456789abcde", false),
            (b".kvctl-export-0123456789abcdef0", false),
            (b".kvctl-export-0123456789abcdeg", false),
            (b".kvctl-export-", false),
            (b"kvctl-export-0123456789abcdef", false),
            (b"", false),
        ] {
            assert_eq!(is_one(name), one, "{}", String::from_utf8_lossy(name));
        }
    }
}
