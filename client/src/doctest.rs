//! What the documentation's examples run against: a fresh cluster of one, for as long as the example takes.
//!
//! The server is the program named by `KVD_BIN`. It gets a directory of its own and free ports, is ready before the
//! example begins, and is killed and cleaned away when it ends, also by a panic.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, io};

use trefoil_world::{clock, net, random};

use crate::client::Client;
use crate::error::Error;

/// A start that takes longer than this failed.
const READY_MAX: Duration = Duration::from_secs(30);
/// A port found free may be taken by somebody else before the server binds it.
const STARTS_MAX: u32 = 3;

/// Runs `example` with the endpoint of a fresh server.
///
/// # Panics
/// When there is no server, or when the example fails: both fail the test, which is what it is for.
#[doc(hidden)]
pub fn run<F>(example: impl FnOnce(String) -> F)
where
    F: Future<Output = Result<(), Error>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let server = server().await;
        if let Err(error) = example(server.endpoint().to_owned()).await {
            panic!("the example failed: {error}\nthe server said:\n{}", server.log());
        }
    });
}

/// Starts a server and waits until it is ready.
///
/// # Panics
/// When `KVD_BIN` is not set, or the server does not become ready.
#[doc(hidden)]
pub async fn server() -> Server {
    let program = env::var_os("KVD_BIN").map(PathBuf::from);
    let program = program.expect("set KVD_BIN to the kvd program: examples run against a real server (make test does)");
    let mut said = String::new();
    for _ in 0..STARTS_MAX {
        let mut server = Server::start(&program).await.expect("KVD_BIN names a program that can be started");
        if server.is_ready().await {
            return server;
        }
        said = server.log();
    }
    panic!("the server did not become ready; it said:\n{said}");
}

/// A running server; dropping it ends it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Server {
    child: Child,
    endpoint: String,
    directory: PathBuf,
}

impl Server {
    async fn start(program: &Path) -> io::Result<Server> {
        let directory = env::temp_dir().join(format!("trefoil-doctest-{:016x}", random::next_u64()));
        fs::create_dir_all(&directory)?;
        let (endpoint, peer) = free_addresses().await?;
        let log = fs::File::create(directory.join("log"))?;
        let child = Command::new(program)
            .args(["--name", "n1", "--listen-client", &endpoint, "--listen-peer", &peer, "--data-dir"])
            .arg(directory.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Server { child, endpoint, directory })
    }

    /// Where it serves clients.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    async fn is_ready(&mut self) -> bool {
        let deadline = clock::now() + READY_MAX;
        while clock::now() < deadline && self.is_running() {
            if self.says_ready().await.unwrap_or(false) {
                return true;
            }
            clock::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    async fn says_ready(&self) -> Result<bool, Error> {
        let client = Client::builder([self.endpoint.as_str()]).timeout(Duration::from_secs(1)).connect().await?;
        Ok(client.status_at(&self.endpoint)?.await?.ready)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; the directory goes in any case.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Two addresses nobody listens at.
async fn free_addresses() -> io::Result<(String, String)> {
    // Both at once, so that they differ.
    let (one, other) = (net::listen("127.0.0.1:0").await?, net::listen("127.0.0.1:0").await?);
    Ok((one.address().to_string(), other.address().to_string()))
}
