//! Bytes for the eye: text that does nothing to the terminal it is shown on.
//!
//! Keys and values come from whoever could write them. Control characters, with ESC and the C1 controls among them,
//! stand as Rust escapes them (`\u{1b}`), bytes that are no UTF-8 as `\xff`.
//!
//! Left out: reading it back. A backslash stays one; what programs read is JSON.

/// All of it on one line.
pub fn line(bytes: &[u8]) -> String {
    escaped(bytes, |_| false)
}

/// A text of its own: line ends and tabs stay.
pub fn text(bytes: &[u8]) -> String {
    escaped(bytes, |c| matches!(c, '\n' | '\t'))
}

fn escaped(bytes: &[u8], stays: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() && !stays(c) {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        chunk.invalid().iter().for_each(|byte| shown.push_str(&format!("\\x{byte:02x}")));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_obeys_is_left() {
        for (bytes, shown) in [
            (&b"plum"[..], "plum"),
            (b"a\x1b[2J\nb", "a\\u{1b}[2J\\nb"),
            (b"\0\x07\r\t\x7f", "\\u{0}\\u{7}\\r\\t\\u{7f}"),
            ("é\u{9b}2J".as_bytes(), "é\\u{9b}2J"),
            (b"\x9b2J \xc3", "\\x9b2J \\xc3"),
            (b"\\n", "\\n"),
        ] {
            assert_eq!(line(bytes), shown);
        }
        assert_eq!(text(b"a\n\tb\r\x1b"), "a\n\tb\\r\\u{1b}");
    }

    #[test]
    fn what_is_shown_is_shown_again_as_it_is() {
        let once = line(b"\x1b\xff\\ \x07");
        assert_eq!(line(once.as_bytes()), once);
    }
}
