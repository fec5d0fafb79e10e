//! A transaction as etcdctl writes it: compares, operations for when they hold, operations for when they do not, with
//! an empty line behind each block.
//!
//! ```text
//! mod("key1") > "0"
//! value("key2") = "x"
//!
//! put key1 "overwrote key1"
//! get a/ --prefix
//!
//! del key2
//! ```
//!
//! Targets: `value`, `version`, `create`, `mod`, `lease` (also etcdctl's short forms); relations `=`, `!=`, `>`, `<`.
//! Words may be quoted: `"…"` with Go's escapes, `'…'` or `` `…` `` as they are. Leases are hexadecimal, as etcdctl
//! has them.

use bytes::Bytes;
use trefoil_client::{Compare, DeleteOp, KeyRange, Op, PutOp, RangeOp, Relation, Revision, Target, Txn};

pub(super) fn parse(input: &str) -> Result<Txn, String> {
    let mut lines = input.lines().map(str::trim).enumerate().map(|(index, line)| (index + 1, line));
    let mut block = || -> Vec<_> { lines.by_ref().take_while(|(_, line)| !line.is_empty()).collect() };
    let (compares, success, failure) = (block(), block(), block());
    if let Some((number, line)) = lines.find(|(_, line)| !line.is_empty()) {
        return Err(format!("line {number}: '{line}' comes behind the third block"));
    }
    Ok(Txn { compares: each(compares, compare)?, success: each(success, op)?, failure: each(failure, op)? })
}

fn each<T>(block: Vec<(usize, &str)>, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    block.into_iter().map(|(number, line)| read(line).map_err(|why| format!("line {number}: {why}"))).collect()
}

/// `target("key") relation "operand"`
fn compare(line: &str) -> Result<Compare, String> {
    let malformed = || format!("'{line}': expected such as mod(\"key\") > \"0\"");
    let (target, rest) = line.split_once('(').ok_or_else(malformed)?;
    let (key, rest) = quoted(rest.trim_start())?.ok_or_else(malformed)?;
    let rest = rest.trim_start().strip_prefix(')').ok_or_else(malformed)?.trim_start();
    let (relation, rest) = relation(rest).ok_or_else(malformed)?;
    let (operand, rest) = word(rest.trim_start())?.ok_or_else(malformed)?;
    if !rest.trim().is_empty() {
        return Err(malformed());
    }
    Ok(Compare::key(key, relation, self::target(target.trim(), operand)?))
}

fn relation(rest: &str) -> Option<(Relation, &str)> {
    let relations =
        [("!=", Relation::NotEqual), ("=", Relation::Equal), (">", Relation::Greater), ("<", Relation::Less)];
    relations.into_iter().find_map(|(sign, relation)| Some((relation, rest.strip_prefix(sign)?)))
}

fn target(name: &str, operand: Bytes) -> Result<Target, String> {
    match name {
        "val" | "value" => Ok(Target::Value(operand)),
        "ver" | "version" => Ok(Target::Version(number(&operand, 10)?)),
        "c" | "create" => Ok(Target::CreateRevision(Revision(number(&operand, 10)?))),
        "m" | "mod" => Ok(Target::ModRevision(Revision(number(&operand, 10)?))),
        "lease" => Ok(Target::Lease(number(&operand, 16)?)),
        _ => Err(format!("'{name}' is none of value, version, create, mod, lease")),
    }
}

fn number(word: &[u8], radix: u32) -> Result<u64, String> {
    let text = String::from_utf8_lossy(word);
    u64::from_str_radix(&text, radix).map_err(|_| format!("'{text}' is not a number"))
}

/// `put KEY VALUE`, `get KEY [END]`, `del KEY [END]`, with flags
fn op(line: &str) -> Result<Op, String> {
    let mut words = Words::split(line)?;
    let name = words.plain.remove(0);
    let op = match &name[..] {
        b"put" => put(&mut words)?,
        b"get" => get(&mut words)?,
        b"del" => del(&mut words)?,
        _ => return Err(format!("'{line}': expected put, get or del")),
    };
    words.end(line)?;
    Ok(op)
}

fn put(words: &mut Words) -> Result<Op, String> {
    let (key, value) = (words.next("a key")?, words.next("a value")?);
    let lease = words.value_of("--lease", 16)?.unwrap_or(0);
    let previous = words.has("--previous") | words.has("--prev-kv");
    Ok(Op::Put(PutOp { lease: Some(lease), previous, ..PutOp::new(key, value) }))
}

fn get(words: &mut Words) -> Result<Op, String> {
    Ok(Op::Range(RangeOp {
        limit: words.value_of("--limit", 10)?.unwrap_or(0),
        revision: words.value_of("--rev", 10)?.or(words.value_of("--revision", 10)?).map(Revision),
        reverse: words.has("--reverse"),
        keys_only: words.has("--keys-only"),
        count_only: words.has("--count-only"),
        ..RangeOp::new(words.range()?)
    }))
}

fn del(words: &mut Words) -> Result<Op, String> {
    let range = words.range()?;
    let previous = words.has("--previous") | words.has("--prev-kv");
    Ok(Op::Delete(DeleteOp { range, previous }))
}

/// The words of a line. Flags are the unquoted ones that begin with `--`.
struct Words {
    plain: Vec<Bytes>,
    flags: Vec<(String, Option<Bytes>)>,
}

impl Words {
    fn split(line: &str) -> Result<Words, String> {
        let mut words = Words { plain: Vec::new(), flags: Vec::new() };
        let mut rest = line.trim_start();
        while let Some((word, behind)) = word(rest)? {
            match rest.strip_prefix("--") {
                Some(_) => words.flags.push(flag(&word)),
                None => words.plain.push(word),
            }
            rest = behind.trim_start();
        }
        if words.plain.is_empty() { Err(format!("'{line}': expected put, get or del")) } else { Ok(words) }
    }

    fn next(&mut self, what: &str) -> Result<Bytes, String> {
        if self.plain.is_empty() { Err(format!("{what} is missing")) } else { Ok(self.plain.remove(0)) }
    }

    fn has(&mut self, name: &str) -> bool {
        let found = self.flags.iter().position(|(flag, value)| flag == name && value.is_none());
        found.map(|index| self.flags.remove(index)).is_some()
    }

    /// The number behind `--name=N`.
    fn value_of(&mut self, name: &str, radix: u32) -> Result<Option<u64>, String> {
        let Some(index) = self.flags.iter().position(|(flag, _)| flag == name) else { return Ok(None) };
        let (_, value) = self.flags.remove(index);
        let value = value.ok_or_else(|| format!("write {name}=N"))?;
        number(&value, radix).map(Some)
    }

    fn range(&mut self) -> Result<KeyRange, String> {
        let key = self.next("a key")?;
        let end = if self.plain.is_empty() { None } else { Some(self.plain.remove(0)) };
        match (end, self.has("--prefix"), self.has("--from-key")) {
            (None, false, false) => Ok(KeyRange::Key(key)),
            (None, true, false) => Ok(KeyRange::Prefix(key)),
            (None, false, true) => Ok(KeyRange::From(key)),
            (Some(end), false, false) => Ok(KeyRange::Between(key, end)),
            (None, true, true) | (Some(_), true, _) | (Some(_), _, true) => {
                Err("a range's end, --prefix and --from-key exclude each other".to_owned())
            }
        }
    }

    fn end(&self, line: &str) -> Result<(), String> {
        match (self.plain.first(), self.flags.first()) {
            (None, None) => Ok(()),
            (Some(word), _) => Err(format!("'{line}': '{}' is too much", String::from_utf8_lossy(word))),
            (None, Some((flag, _))) => Err(format!("'{line}': unknown flag {flag}")),
        }
    }
}

fn flag(word: &[u8]) -> (String, Option<Bytes>) {
    match word.iter().position(|byte| *byte == b'=') {
        Some(at) => (String::from_utf8_lossy(&word[..at]).into_owned(), Some(Bytes::copy_from_slice(&word[at + 1..]))),
        None => (String::from_utf8_lossy(word).into_owned(), None),
    }
}

/// The word `rest` begins with, and what comes behind it.
fn word(rest: &str) -> Result<Option<(Bytes, &str)>, String> {
    if let Some(found) = quoted(rest)? {
        return Ok(Some(found));
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (word, behind) = rest.split_at(end);
    Ok((!word.is_empty()).then(|| (Bytes::copy_from_slice(word.as_bytes()), behind)))
}

/// The quoted word `rest` begins with, and what comes behind it; `None` when it does not begin with one.
fn quoted(rest: &str) -> Result<Option<(Bytes, &str)>, String> {
    let open = || format!("'{rest}': the quote is not closed");
    if let Some(inside) = rest.strip_prefix('"') {
        return unescape(inside).map(Some);
    }
    for quote in ['\'', '`'] {
        if let Some(inside) = rest.strip_prefix(quote) {
            let (word, behind) = inside.split_once(quote).ok_or_else(open)?;
            return Ok(Some((Bytes::copy_from_slice(word.as_bytes()), behind)));
        }
    }
    Ok(None)
}

/// Go's escapes, up to the closing quote.
fn unescape(inside: &str) -> Result<(Bytes, &str), String> {
    let mut word = Vec::new();
    let mut rest = inside;
    loop {
        let mut chars = rest.chars();
        match chars.next() {
            None => return Err(format!("'\"{inside}': the quote is not closed")),
            Some('"') => return Ok((word.into(), chars.as_str())),
            Some('\\') => rest = escape(chars.as_str(), &mut word)?,
            Some(other) => {
                word.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                rest = chars.as_str();
            }
        }
    }
}

/// One escape, behind its backslash; answers what comes behind it.
fn escape<'a>(rest: &'a str, word: &mut Vec<u8>) -> Result<&'a str, String> {
    let mut chars = rest.chars();
    let behind = |chars: std::str::Chars<'a>| chars.as_str();
    let simple = match chars.next() {
        Some('a') => 0x07,
        Some('b') => 0x08,
        Some('f') => 0x0c,
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('v') => 0x0b,
        Some(same @ ('\\' | '"' | '\'')) => same as u8,
        Some('x') => return code(behind(chars), 2, 16, byte, word),
        Some('u') => return code(behind(chars), 4, 16, character, word),
        Some('U') => return code(behind(chars), 8, 16, character, word),
        Some('0'..='7') => return code(rest, 3, 8, byte, word),
        Some(_) | None => return Err(format!("'\\{rest}': unknown escape")),
    };
    word.push(simple);
    Ok(behind(chars))
}

/// An escape of so many digits.
fn code<'a>(
    rest: &'a str,
    digits: usize,
    radix: u32,
    encode: fn(u32, &mut Vec<u8>) -> Option<()>,
    word: &mut Vec<u8>,
) -> Result<&'a str, String> {
    let number = rest.get(..digits).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
    let number = number.and_then(|text| u32::from_str_radix(text, radix).ok());
    number.and_then(|number| encode(number, word)).ok_or_else(|| format!("'{rest}': not the digits of an escape"))?;
    Ok(&rest[digits..])
}

fn byte(number: u32, word: &mut Vec<u8>) -> Option<()> {
    word.push(u8::try_from(number).ok()?);
    Some(())
}

fn character(number: u32, word: &mut Vec<u8>) -> Option<()> {
    word.extend_from_slice(char::from_u32(number)?.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_blocks() {
        let read = parse("mod(\"k\") > \"0\"\nvalue( 'k' ) != x\n\nput k v\nget a/ --prefix --limit=2\n\ndel k\n");
        let range = RangeOp { limit: 2, ..RangeOp::new(KeyRange::prefix("a/")) };
        let expected = Txn::new()
            .when(Compare::key("k", Relation::Greater, Target::ModRevision(Revision(0))))
            .when(Compare::key("k", Relation::NotEqual, Target::Value("x".into())))
            .then(Op::put("k", "v"))
            .then(Op::Range(range))
            .otherwise(Op::delete("k"));
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn blocks_may_be_empty_or_missing() {
        assert_eq!(parse(""), Ok(Txn::new()));
        assert_eq!(parse("\nput k v"), Ok(Txn::new().then(Op::put("k", "v"))));
        assert_eq!(parse("\n\ndel a b\n"), Ok(Txn::new().otherwise(Op::delete_range(KeyRange::between("a", "b")))));
    }

    #[test]
    fn every_target() {
        let target = |line| compare(line).map(|compare| compare.target);
        assert_eq!(target("version(\"k\") = \"3\""), Ok(Target::Version(3)));
        assert_eq!(target("ver(\"k\") = 3"), Ok(Target::Version(3)));
        assert_eq!(target("create(\"k\")<\"3\""), Ok(Target::CreateRevision(Revision(3))));
        assert_eq!(target("lease(\"k\") = \"1f\""), Ok(Target::Lease(0x1f)));
        assert_eq!(target("val(\"k\") = \"a b\""), Ok(Target::Value("a b".into())));
    }

    #[test]
    fn quotes_and_escapes() {
        let value = |line| match op(line) {
            Ok(Op::Put(put)) => put.value.ok_or_else(|| "no value".to_owned()),
            Ok(other) => Err(format!("{other:?}")),
            Err(why) => Err(why),
        };
        assert_eq!(
            value(r#"put k "a \"b\"\n\x00\377é\u00e9""#),
            Ok(b"a \"b\"\n\x00\xff\xc3\xa9\xc3\xa9".to_vec().into())
        );
        assert_eq!(value(r"put k 'a \n b'"), Ok(r"a \n b".into()));
        assert_eq!(value("put k \"--lease\""), Ok("--lease".into()));
        assert_eq!(value("put k ''"), Ok("".into()));
    }

    #[test]
    fn what_makes_no_sense_names_its_line() {
        for input in [
            "mod(k) > \"0\"",
            "mod(\"k\") >= \"0\"",
            "size(\"k\") = \"0\"",
            "mod(\"k\") = \"x\"",
            "mod(\"k\") = \"0\" x",
            "\nput k",
            "\nput k v w",
            "\npit k v",
            "\nget k --prefix --from-key",
            "\nget k --colour",
            "\nput k \"open",
            "\nput k \"\\q\"",
            "\nput k \"\\x0\"",
            "\nput k \"\\777\"",
            "\n\n\nput k v",
        ] {
            assert!(parse(input).is_err_and(|why| why.starts_with("line ")), "{input:?}");
        }
    }
}
