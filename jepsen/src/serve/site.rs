//! What a store has: from a request to a page. Looks at the disk, and may block.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::index;
use super::request::{Refused, Request};
use crate::report::html::{count, link, text};

/// A folder whose content is served.
pub(super) struct Site {
    /// Without symbolic links.
    root: PathBuf,
    /// Whether only this machine is to reach it.
    is_loopback: bool,
}

/// A reply.
pub(super) struct Page {
    status: &'static str,
    content: &'static str,
    /// Where it is instead.
    location: Option<String>,
    pub(super) body: Body,
}

pub(super) enum Body {
    Text(String),
    /// So many bytes of it.
    File(fs::File, u64),
}

impl Site {
    /// # Errors
    /// There is no such folder.
    pub(super) fn new(root: &Path, is_loopback: bool) -> io::Result<Site> {
        let root = root.canonicalize()?;
        match root.is_dir() {
            true => Ok(Site { root, is_loopback }),
            false => Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no folder", root.display()))),
        }
    }

    /// What is asked for.
    pub(super) fn page(&self, request: &Request) -> Result<Page, Refused> {
        if self.is_loopback && !request.is_local() {
            return Err(Refused::Name);
        }
        let path = self.find(&request.names)?;
        let what = fs::metadata(&path).map_err(refused)?;
        match (what.is_dir(), what.is_file(), request.is_folder) {
            (true, _, false) => Ok(Page::moved(&request.names)),
            (true, _, true) if request.names.is_empty() => Ok(Page::html(index::page(&path).map_err(refused)?)),
            (true, _, true) => Ok(Page::html(listing(&request.names, &path).map_err(refused)?)),
            (false, true, false) => {
                let file = fs::File::open(&path).map_err(refused)?;
                Ok(Page {
                    status: "200 OK",
                    content: content(&path),
                    location: None,
                    body: Body::File(file, what.len()),
                })
            }
            (false, ..) => Err(Refused::NotThere),
        }
    }

    /// Where that is, if it is in the store: symbolic links are followed first.
    fn find(&self, names: &[String]) -> Result<PathBuf, Refused> {
        let path = names.iter().fold(self.root.clone(), |path, name| path.join(name));
        let path = path.canonicalize().map_err(refused)?;
        match path.starts_with(&self.root) {
            true => Ok(path),
            false => Err(Refused::NotThere),
        }
    }
}

fn refused(error: io::Error) -> Refused {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Refused::NotThere,
        _ => Refused::Unreadable,
    }
}

impl Page {
    fn html(text: String) -> Page {
        Page { status: "200 OK", content: "text/html; charset=utf-8", location: None, body: Body::Text(text) }
    }

    /// To the same with a slash behind it.
    fn moved(names: &[String]) -> Page {
        let name = names.last().map_or(String::new(), |name| format!("{}/", link(name)));
        let page = Page::plain("308 Permanent Redirect", "It is a folder.\n");
        Page { location: Some(name), ..page }
    }

    pub(super) fn refusal(refused: Refused) -> Page {
        match refused {
            Refused::Malformed => Page::plain("400 Bad Request", "This is no request.\n"),
            Refused::Method => Page::plain("405 Method Not Allowed", "There are only GET and HEAD.\n"),
            Refused::Name => Page::plain("421 Misdirected Request", "Ask by an address, or as localhost.\n"),
            Refused::NotThere => Page::plain("404 Not Found", "There is no such thing in the store.\n"),
            Refused::Unreadable => Page::plain("500 Internal Server Error", "It cannot be read.\n"),
        }
    }

    fn plain(status: &'static str, words: &str) -> Page {
        Page { status, content: "text/plain; charset=utf-8", location: None, body: Body::Text(words.to_owned()) }
    }

    /// The reply's first lines.
    pub(super) fn head(&self) -> String {
        let length = match &self.body {
            Body::Text(text) => text.len() as u64,
            Body::File(_, length) => *length,
        };
        let location = self.location.as_ref().map_or(String::new(), |location| format!("Location: {location}\r\n"));
        format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {length}\r\n{location}Connection: close\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n\r\n",
            self.status, self.content,
        )
    }
}

/// What a file is, by its name. What is not known is taken away, not shown.
fn content(path: &Path) -> &'static str {
    match path.extension().and_then(|end| end.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("jsonl" | "edn" | "log" | "txt" | "md") => "text/plain; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some(_) | None => "application/octet-stream",
    }
}

/// A folder's content: folders first, by name.
fn listing(names: &[String], path: &Path) -> io::Result<String> {
    let mut rows: Vec<(bool, String, u64)> = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let what = entry.metadata()?;
        rows.push((!what.is_dir(), entry.file_name().to_string_lossy().into_owned(), what.len()));
    }
    rows.sort();
    let row = |(is_file, name, bytes): &(bool, String, u64)| {
        let name = if *is_file { name.clone() } else { format!("{name}/") };
        let bytes = if *is_file { count(*bytes) } else { String::new() };
        format!(
            "<tr><td><a href=\"{}\">{}</a></td><td class=\"number\">{bytes}</td></tr>\n",
            text(&link(&name)),
            text(&name),
        )
    };
    let rows: String = rows.iter().map(row).collect();
    let columns = "<th>name</th><th class=\"number\">bytes</th>";
    let up = "<p><a href=\"../\">One folder up</a></p>\n";
    Ok(index::document(&names.join("/"), &format!("{up}{}", index::table(columns, &rows))))
}
