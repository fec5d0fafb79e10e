//! A world of pipes: sockets within one thread, and clocks that follow the runtime's.
//!
//! Who listens at a port is handed the far end of a pipe by who dials it, whatever the host. Chance comes from dice.
//!
//! Left out: delays and losses of the network, which are the simulation's.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use trefoil_world::net::{Accept, Listener, Stream};
use trefoil_world::{World, clock};

use super::dice::Dice;

const PIPE_BYTES: usize = 64 << 10;

/// Sockets are pipes by port number; wall time follows the runtime's clock.
pub(super) struct PipeWorld {
    pub(super) dice: RefCell<Dice>,
    pub(super) born: clock::Instant,
    pub(super) ports: Rc<RefCell<BTreeMap<u16, mpsc::Sender<DuplexStream>>>>,
}

struct PipeListener(mpsc::Receiver<DuplexStream>);

impl Accept for PipeListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async {
            let pipe = self.0.recv().await.ok_or_else(|| io::Error::other("the network is gone"))?;
            let stream: Stream = Box::pin(pipe);
            Ok((stream, SocketAddr::from(([127, 0, 0, 1], 1))))
        })
    }
}

fn port(address: &str) -> io::Result<u16> {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).ok_or_else(|| io::Error::other("no port"))
}

impl World for PipeWorld {
    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + (clock::now() - self.born).as_millis() as u64
    }

    fn random_u64(&self) -> u64 {
        self.dice.borrow_mut().next()
    }

    fn listen(&self, address: &str) -> io::Result<Listener> {
        let port = port(address)?;
        let (pipes, accepted) = mpsc::channel(64);
        self.ports.borrow_mut().insert(port, pipes);
        Ok(Listener::new(Box::new(PipeListener(accepted)), SocketAddr::from(([127, 0, 0, 1], port))))
    }

    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let pipes = port(address).ok().and_then(|port| self.ports.borrow().get(&port).cloned());
        async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let pipes = pipes.ok_or_else(refused)?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            pipes.try_send(far).map_err(|_| refused())?;
            let stream: Stream = Box::pin(near);
            Ok(stream)
        }
        .boxed()
    }
}
