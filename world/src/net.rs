//! Sockets: the one place that accepts and the one that dials.

mod coalesced;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

pub use coalesced::Coalesced;

/// Connections waiting to be accepted before the system refuses more.
const BACKLOG: u32 = 1024;

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// One connection.
pub type Stream = Pin<Box<dyn Duplex>>;

/// Accepts connections.
pub struct Listener {
    accept: Box<dyn Accept>,
    address: SocketAddr,
}

/// Where a [`Listener`] gets its connections from.
pub trait Accept: Send {
    /// The next connection, and who it is from. May be dropped half-way without losing a connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>>;
}

impl Listener {
    /// A listener of a simulated network.
    pub fn new(accept: Box<dyn Accept>, address: SocketAddr) -> Listener {
        Listener { accept, address }
    }

    /// The address it was really bound to: the port is known even when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection.
    pub async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        self.accept.accept().await
    }
}

/// Accepts connections at `address` (`host:port`).
///
/// # Errors
/// The address does not resolve, or the port is in use.
pub async fn listen(address: &str) -> io::Result<Listener> {
    if let Some(listener) = crate::simulated().map(|world| world.listen(address)) {
        return listener;
    }
    let resolved = resolve(address).await?;
    let socket = if resolved.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(resolved)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok(Listener { accept: Box::new(Tcp(listener)), address })
}

/// Connects to `address` (`host:port`); names are resolved anew each time.
///
/// # Errors
/// The address does not resolve, or nobody answers there. The caller bounds the wait.
pub async fn dial(address: &str) -> io::Result<Stream> {
    if let Some(dialling) = crate::simulated().map(|world| world.dial(address)) {
        return dialling.await;
    }
    let stream = TcpStream::connect(resolve(address).await?).await?;
    stream.set_nodelay(true)?;
    Ok(Box::pin(stream))
}

async fn resolve(address: &str) -> io::Result<SocketAddr> {
    let mut found = lookup_host(address).await?;
    found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{address}: no address")))
}

struct Tcp(TcpListener);

impl Accept for Tcp {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async {
            let (stream, from) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            let stream: Stream = Box::pin(stream);
            Ok((stream, from))
        })
    }
}
