//! `jepsen serve`: the runs of a store in a browser, and the files they left.
//!
//! A small HTTP/1.1 server: one request a connection, `GET` and `HEAD`, files and folders of one folder. `request`
//! reads what is asked, as a pure function of its bytes; `site` finds it on the disk; `index` lists runs; this file
//! listens and sends.
//!
//! Invariants:
//!
//! * Nothing outside of the store is sent: a name that goes up is refused, and what a symbolic link leads to is sent
//!   only if it is inside. Whoever can write into the store while it is served is trusted.
//! * Only files and folders are opened: no pipe, no device.
//! * Pages run no scripts and fetch nothing (`Content-Security-Policy`): what a run has recorded cannot either.
//! * On the loopback, only who asks by an address or as `localhost` is answered, so that no page of another site
//!   reads the store under a name of its own.
//! * Connections, their heads and their time are bounded.
//!
//! Left out: TLS and passwords: it is for one's own machine.

mod index;
mod request;
mod site;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use trefoil_world::net::{Listener, Stream};
use trefoil_world::{clock, net, task};

use request::{Refused, Request};
use site::{Body, Page, Site};

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a request may take to come, and a reply to be taken.
const ASKED_MAX: Duration = Duration::from_secs(10);
const ANSWERED_MAX: Duration = Duration::from_secs(600);
/// After the system could not accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A store that is served.
pub struct Server {
    listener: Listener,
    site: Arc<Site>,
}

impl Server {
    /// Listens at `address` (`host:port`) for who wants to see what is in `store`.
    ///
    /// # Errors
    /// There is no such folder, or the address cannot be had.
    pub async fn listen(address: &str, store: &Path) -> io::Result<Server> {
        let listener = net::listen(address).await?;
        let site = Arc::new(Site::new(store, listener.address().ip().is_loopback())?);
        Ok(Server { listener, site })
    }

    /// Where a browser finds it.
    pub fn url(&self) -> String {
        format!("http://{}/", self.listener.address())
    }

    /// Answers, without end.
    pub async fn run(mut self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = places.clone().acquire_owned().await.expect("it is never closed");
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let site = self.site.clone();
                    task::spawn(async move {
                        // Who has gone away is not told.
                        drop(converse(stream, site).await);
                        drop(place);
                    });
                }
                Err(error) => {
                    eprintln!("jepsen: cannot accept: {error}");
                    clock::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One request and its reply.
async fn converse(mut stream: Stream, site: Arc<Site>) -> io::Result<()> {
    let head = clock::timeout(ASKED_MAX, head(&mut stream)).await.map_err(io::Error::from)??;
    let request = Request::parse(&head);
    let with_body = !matches!(&request, Ok(request) if request.head_only);
    let page = task::blocking(move || page(&site, request)).await?;
    clock::timeout(ANSWERED_MAX, send(&mut stream, page, with_body)).await.map_err(io::Error::from)?
}

fn page(site: &Site, request: Result<Request, Refused>) -> Page {
    match request.and_then(|request| site.page(&request)) {
        Ok(page) => page,
        Err(refused) => Page::refusal(refused),
    }
}

/// A request's bytes up to its empty line, or as many as are taken.
async fn head(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut chunk = [0; 2048];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        match stream.read(&mut chunk).await? {
            0 => break,
            count => head.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(head)
}

async fn send(stream: &mut Stream, page: Page, with_body: bool) -> io::Result<()> {
    stream.write_all(page.head().as_bytes()).await?;
    match page.body {
        _ if !with_body => {}
        Body::Text(text) => stream.write_all(text.as_bytes()).await?,
        Body::File(file, length) => {
            // A file that grows is sent as long as it was.
            let mut file = tokio::fs::File::from_std(file).take(length);
            tokio::io::copy(&mut file, stream).await?;
        }
    }
    stream.shutdown().await
}
