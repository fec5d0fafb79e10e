//! What is asked, as a pure function of the bytes that came.

use std::net::IpAddr;

/// A request for a file or a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// `HEAD`: the reply's body is not wanted.
    pub(super) head_only: bool,
    /// The names on the way down from the store; none of them goes up or is empty.
    pub(super) names: Vec<String>,
    /// Whether the path ends with a slash: names in a folder are relative to it.
    pub(super) is_folder: bool,
    /// The name it was asked by, without its port.
    pub(super) host: Option<String>,
}

/// Why there is no reply but this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// What came is no request.
    Malformed,
    /// Neither `GET` nor `HEAD`.
    Method,
    /// Asked by a name that is not this server's.
    Name,
    /// There is no such thing, or it is none of the store.
    NotThere,
    /// It cannot be read.
    Unreadable,
}

impl Request {
    /// Reads a request's head.
    pub(super) fn parse(head: &[u8]) -> Result<Request, Refused> {
        let text = std::str::from_utf8(head).map_err(|_| Refused::Malformed)?;
        let (head, _) = text.split_once("\r\n\r\n").ok_or(Refused::Malformed)?;
        let mut lines = head.split("\r\n");
        let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, version] = words[..] else { return Err(Refused::Malformed) };
        if !version.starts_with("HTTP/1.") {
            return Err(Refused::Malformed);
        }
        let head_only = match method {
            "GET" => false,
            "HEAD" => true,
            _ => return Err(Refused::Method),
        };
        let (path, _) = target.split_once('?').unwrap_or((target, ""));
        let path = path.strip_prefix('/').ok_or(Refused::Malformed)?;
        let host = lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("host"));
        Ok(Request {
            head_only,
            names: names(path)?,
            is_folder: path.is_empty() || path.ends_with('/'),
            host: host.map(|(_, value)| without_port(value.trim()).to_owned()),
        })
    }

    /// Whether it was asked by a name that only this machine has: an address, or `localhost`.
    pub(super) fn is_local(&self) -> bool {
        let Some(host) = &self.host else { return true };
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

/// The names of a path; the last one may be followed by a slash.
fn names(path: &str) -> Result<Vec<String>, Refused> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    path.split('/').map(|name| decoded(name).filter(|name| goes_down(name)).ok_or(Refused::NotThere)).collect()
}

fn goes_down(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

/// A name without its escapes (`%2E`); `None` when it is not text.
fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: &str) -> Result<(Vec<String>, bool), Refused> {
        let request = Request::parse(format!("GET {target} HTTP/1.1\r\nHost: localhost:80\r\n\r\n").as_bytes())?;
        Ok((request.names, request.is_folder))
    }

    #[test]
    fn paths_go_down_only() {
        let path = |names: &[&str], is_folder| Ok((names.iter().map(|name| (*name).to_owned()).collect(), is_folder));
        let cases = [
            ("/", path(&[], true)),
            ("/?sort=seed", path(&[], true)),
            ("/a-run/report.html", path(&["a-run", "report.html"], false)),
            ("/a%20run/", path(&["a run"], true)),
            ("/%e2%9c%93", path(&["✓"], false)),
            ("/a//b", Err(Refused::NotThere)),
            ("//etc/passwd", Err(Refused::NotThere)),
            ("/a/../b", Err(Refused::NotThere)),
            ("/%2e%2e/b", Err(Refused::NotThere)),
            ("/..%2fb", Err(Refused::NotThere)),
            ("/.", Err(Refused::NotThere)),
            ("/a%00", Err(Refused::NotThere)),
            ("/a\\b", Err(Refused::NotThere)),
            ("/%ff", Err(Refused::NotThere)),
            ("/%+1", Err(Refused::NotThere)),
            ("/%2", Err(Refused::NotThere)),
            ("a", Err(Refused::Malformed)),
            ("/a b", Err(Refused::Malformed)),
        ];
        for (target, expected) in cases {
            assert_eq!(asked(target), expected, "{target}");
        }
    }

    #[test]
    fn only_requests_are_taken() {
        let cases: [(&[u8], Refused); 6] = [
            (b"", Refused::Malformed),
            (b"GET / HTTP/1.1\r\n", Refused::Malformed),
            (b"GET / HTTP/2\r\n\r\n", Refused::Malformed),
            (b"GET /\xff HTTP/1.1\r\n\r\n", Refused::Malformed),
            (b"POST / HTTP/1.1\r\n\r\n", Refused::Method),
            (b"get / HTTP/1.1\r\n\r\n", Refused::Method),
        ];
        for (head, refused) in cases {
            assert_eq!(Request::parse(head), Err(refused), "{}", String::from_utf8_lossy(head));
        }
        assert!(Request::parse(b"HEAD / HTTP/1.0\r\n\r\n").is_ok_and(|request| request.head_only));
    }

    #[test]
    fn names_of_other_sites_are_not_local() {
        let cases = [
            ("", true),
            ("Host: localhost:8080\r\n", true),
            ("hOsT:LOCALHOST\r\n", true),
            ("Host: 127.0.0.1:8080\r\n", true),
            ("Host: [::1]:8080\r\n", true),
            ("Accept: */*\r\nHost: [::1]\r\n", true),
            ("Host: evil.example\r\n", false),
            ("Host: localhost.evil.example:8080\r\n", false),
            ("Host: 127.0.0.1.evil.example\r\n", false),
            ("Host: \r\n", false),
        ];
        for (lines, local) in cases {
            let request = Request::parse(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes()).expect("a request");
            assert_eq!(request.is_local(), local, "{lines}");
        }
    }
}
