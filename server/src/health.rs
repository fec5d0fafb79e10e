//! A node's health: whether it serves, what it waits for, and what an admin should look at.
//!
//! The duties note what they find; requests, status and gRPC health read it. A [`WaitingLine`] says in the log what an
//! unready node waits for. An alarm has a subject; raising it again replaces its line, and it stands until it is ended.
//!
//! Invariants:
//!
//! * Ready means: has been ready since the start. It is not taken back; whether clients should come here now is
//!   [`Health::serves`].
//! * A node that stays out does so until it ends.
//! * Below the floor of free disk space, puts and transactions that hold one are refused; reads and deletes never are.
//!
//! Left out: finding out. Who measures the disk, compares replicas or decides on ready is `membership.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, warn};
use trefoil_store::command::Op;
use trefoil_world::clock;

use crate::error::Error;

const WAITING_LINE_EVERY: Duration = Duration::from_secs(5);

/// Whether a node serves, and what it waits for.
pub struct Health {
    ready: AtomicBool,
    serves: watch::Sender<bool>,
    draining: AtomicBool,
    stays_out: OnceLock<String>,
    disk_full: AtomicBool,
    free_space: AtomicU64,
    free_space_floor: u64,
    // Written by the steward, read by status requests.
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    waiting_for: String,
    alarms: BTreeMap<String, String>,
}

impl Health {
    /// Not ready, with room; puts are to be refused below `free_space_floor` bytes.
    pub fn new(free_space_floor: u64) -> Health {
        Health {
            ready: AtomicBool::new(false),
            serves: watch::Sender::new(false),
            draining: AtomicBool::new(false),
            stays_out: OnceLock::new(),
            disk_full: AtomicBool::new(false),
            free_space: AtomicU64::new(0),
            free_space_floor,
            lines: Mutex::default(),
        }
    }

    pub fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// The node serves from now on, and waits for nothing.
    pub fn become_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
        self.wait_for(String::new());
    }

    /// Whether clients should come here now.
    pub fn serves(&self) -> watch::Receiver<bool> {
        self.serves.subscribe()
    }

    /// The node is stopping: clients should go elsewhere, for good.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.note_serves(false);
    }

    /// Notes whether clients should come here now.
    pub fn note_serves(&self, serves: bool) {
        let serves = serves && !self.draining.load(Ordering::Relaxed);
        self.serves.send_if_modified(|now| std::mem::replace(now, serves) != serves);
    }

    /// From here on the node serves nothing: its directory is not the newest of its name.
    pub fn stay_out(&self, why: String) {
        self.stays_out.get_or_init(|| why);
        self.ready.store(false, Ordering::Relaxed);
        self.note_serves(false);
    }

    /// Why the node serves nothing, if so.
    pub fn stays_out(&self) -> Option<&str> {
        self.stays_out.get().map(String::as_str)
    }

    /// Takes note of how many bytes of disk are free: below the floor puts are refused and an alarm stands.
    pub fn note_free_space(&self, free: u64) {
        self.free_space.store(free, Ordering::Relaxed);
        let full = free < self.free_space_floor;
        if self.disk_full.swap(full, Ordering::Relaxed) != full {
            let line = full.then(|| format!("only {free} bytes of disk are free: puts are refused"));
            self.alarm("disk".into(), line);
        }
    }

    /// Takes note that nobody can say how much of the disk is free: what was known of puts stands, and
    /// [`free_space`](Health::free_space) counts on nothing.
    pub fn free_space_is_unknown(&self, why: &str) {
        if self.free_space.swap(0, Ordering::Relaxed) > 0 {
            warn!("how much of the disk is free is not known, and no space is given back: {why}");
        }
    }

    /// Whether less disk is free than the floor.
    pub fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Bytes of disk that were free when it was last measured; 0 when that is not known.
    pub fn free_space(&self) -> u64 {
        self.free_space.load(Ordering::Relaxed)
    }

    /// Below as many bytes of free disk puts are refused.
    pub fn free_space_floor(&self) -> u64 {
        self.free_space_floor
    }

    /// Refuses what puts something while there is too little disk space left.
    pub fn room_for(&self, op: &Op) -> Result<(), Error> {
        match self.disk_full() && grows(op) {
            true => Err(Error::Exhausted { what: "free disk space".into(), limit: self.free_space_floor }),
            false => Ok(()),
        }
    }

    /// What an unready node waits for; empty once ready.
    pub fn waiting_for(&self) -> String {
        self.lock().waiting_for.clone()
    }

    /// What an admin should look at, one line each.
    pub fn alarms(&self) -> Vec<String> {
        self.lock().alarms.values().cloned().collect()
    }

    fn wait_for(&self, what: String) {
        self.lock().waiting_for = what;
    }

    /// Raises the alarm about `subject`, or ends it. The log has it once.
    pub fn alarm(&self, subject: String, line: Option<String>) {
        match line {
            Some(line) => {
                let before = self.lock().alarms.insert(subject, line.clone());
                if before.as_ref() != Some(&line) {
                    error!("{line}");
                }
            }
            None => drop(self.lock().alarms.remove(&subject)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn grows(op: &Op) -> bool {
    match op {
        Op::Put(_) => true,
        Op::Range(_) | Op::Delete(_) => false,
        Op::Txn(txn) => txn.success.iter().chain(&txn.failure).any(grows),
    }
}

/// Says what a node waits for, every few seconds.
pub struct WaitingLine {
    health: Arc<Health>,
    said: Option<clock::Instant>,
}

impl WaitingLine {
    pub fn new(health: Arc<Health>) -> WaitingLine {
        WaitingLine { health, said: None }
    }

    /// Notes that the node waits for `what`, and says so when it is time.
    pub fn say(&mut self, what: String) {
        let due = match &self.said {
            Some(at) => clock::now().duration_since(*at) >= WAITING_LINE_EVERY,
            None => true,
        };
        if due {
            warn!("not ready: {what}");
            self.said = Some(clock::now());
        }
        self.health.wait_for(what);
    }
}
