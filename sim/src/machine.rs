//! A machine: a runtime of its own with a clock of its own, in a world of its own.
//!
//! A tick is a millisecond of true time. The machine's clock moves by what its rate makes of that, always by whole
//! milliseconds, which is how finely tokio's timers work; every timer of the machine follows, the library's and
//! tonic's too. A machine that stands still is not run, and when it goes on its clock has moved all the same, as after
//! SIGSTOP. Halting drops every task where it stands.
//!
//! Invariants:
//!
//! * Whatever a machine's tasks do, they do in its world and in its runtime, also while they are dropped.
//! * Time passes only in [`Machine::tick`] and when a machine goes on after standing still.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::{Builder, RngSeed, Runtime};
use trefoil_jepsen::generator::Dice;
use trefoil_world::net::{Listener, Stream};
use trefoil_world::{World, clock};

use crate::network::{HostId, Network};
use crate::system::EPOCH_MS;

/// Parts per million of a true clock.
pub const TRUE_RATE_PPM: u64 = 1_000_000;

/// How a clock's time follows true time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    rate_ppm: u64,
    /// Millionths of a millisecond that are still to pass.
    owed: u64,
}

impl Pace {
    /// The whole milliseconds that pass on this clock in one of true time.
    fn tick(&mut self) -> u64 {
        self.owed += self.rate_ppm;
        let passed_ms = self.owed / TRUE_RATE_PPM;
        self.owed %= TRUE_RATE_PPM;
        passed_ms
    }
}

/// What a machine's processes take for the operating system.
struct MachineWorld {
    host: HostId,
    network: Network,
    dice: RefCell<Dice>,
    /// When the runtime was made, on its own clock and in true time.
    booted: Cell<Option<(clock::Instant, u64)>>,
    wall_offset_ms: Cell<i64>,
}

impl World for MachineWorld {
    fn wall_ms(&self) -> u64 {
        let since_boot_ms = self.booted.get().map_or(0, |(booted, at_ms)| {
            let since = clock::now().saturating_duration_since(booted);
            at_ms as i64 + since.as_millis() as i64
        });
        u64::try_from(EPOCH_MS as i64 + since_boot_ms + self.wall_offset_ms.get()).unwrap_or(0)
    }

    fn random_u64(&self) -> u64 {
        self.dice.borrow_mut().roll()
    }

    fn listen(&self, address: &str) -> io::Result<Listener> {
        self.network.listen(self.host, address)
    }

    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        self.network.dial(self.host, address)
    }
}

/// See the file's head.
pub struct Machine {
    world: Rc<MachineWorld>,
    pace: Pace,
    runtime: Option<Runtime>,
    stands_still: bool,
    /// What passed on its clock while it stood still.
    missed_ms: u64,
}

impl Machine {
    /// A machine that is off.
    pub fn new(host: HostId, network: Network, rate_ppm: u64, wall_offset_ms: i64, dice: Dice) -> Machine {
        let world = MachineWorld {
            host,
            network,
            dice: RefCell::new(dice),
            booted: Cell::new(None),
            wall_offset_ms: Cell::new(wall_offset_ms),
        };
        let pace = Pace { rate_ppm, owed: 0 };
        Machine { world: Rc::new(world), pace, runtime: None, stands_still: false, missed_ms: 0 }
    }

    /// Makes a runtime that has nothing to do yet. The wall clock is set right, up to its offset.
    pub fn boot(&mut self, now_ms: u64) {
        assert!(self.runtime.is_none(), "{} is running", self.world.host);
        let seed = self.world.random_u64();
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_be_bytes()))
            .build()
            .expect("a runtime of one thread takes nothing from the system");
        let booted = runtime.block_on(async { clock::now() });
        self.world.booted.set(Some((booted, now_ms)));
        self.runtime = Some(runtime);
        self.missed_ms = 0;
    }

    /// Runs `work` to its end, in no time unless it waits for some.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let runtime = self.runtime.as_ref().expect("only a machine that was booted is asked to work");
        let _inside = trefoil_world::enter(self.world.clone());
        runtime.block_on(work)
    }

    /// A millisecond of true time.
    pub fn tick(&mut self) {
        let passed_ms = self.pace.tick();
        if self.runtime.is_none() || passed_ms == 0 {
            return;
        }
        match self.stands_still {
            true => self.missed_ms += passed_ms,
            false => self.run(async { clock::sleep(Duration::from_millis(passed_ms)).await }),
        }
    }

    /// Stops it where it stands, or lets it go on.
    pub fn stand_still(&mut self, still: bool) {
        let missed = Duration::from_millis(std::mem::take(&mut self.missed_ms));
        self.stands_still = still;
        if self.runtime.is_some() && !missed.is_zero() {
            self.run(tokio::time::advance(missed));
        }
    }

    /// Moves the wall clock.
    pub fn move_wall_clock(&self, by_ms: i64) {
        self.world.wall_offset_ms.set(self.world.wall_offset_ms.get() + by_ms);
    }

    /// Drops all that runs.
    pub fn halt(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let _inside = trefoil_world::enter(self.world.clone());
        runtime.shutdown_background();
        self.world.booted.set(None);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.halt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Weather;

    fn machine(rate_ppm: u64) -> Machine {
        let weather = Weather { latency_min_ms: 1, latency_max_ms: 1, lost_permille: 0 };
        let network = Network::new(1, |_| weather, Dice::new(1));
        let mut machine = Machine::new(HostId(0), network, rate_ppm, 0, Dice::new(2));
        machine.boot(0);
        machine
    }

    /// What its clocks show: monotonic since boot, and wall.
    fn clocks(machine: &Machine, booted: clock::Instant) -> (u128, u64) {
        machine.run(async { (booted.elapsed().as_millis(), clock::wall_ms()) })
    }

    #[test]
    fn clocks_follow_their_rate() {
        for (rate_ppm, expected_ms) in [(1_000_000, 1000), (1_100_000, 1100), (850_000, 850), (2_500_000, 2500)] {
            let mut machine = machine(rate_ppm);
            let booted = machine.run(async { clock::now() });
            (0..1000).for_each(|_| machine.tick());
            assert_eq!(clocks(&machine, booted), (expected_ms, EPOCH_MS + expected_ms as u64), "{rate_ppm}");
        }
    }

    #[test]
    fn who_stood_still_finds_the_time_gone() {
        let mut machine = machine(TRUE_RATE_PPM);
        let booted = machine.run(async { clock::now() });
        machine.tick();
        machine.stand_still(true);
        (0..500).for_each(|_| machine.tick());
        assert_eq!(clocks(&machine, booted).0, 1, "nothing passes for what stands still");
        machine.stand_still(false);
        assert_eq!(clocks(&machine, booted).0, 501);
        machine.move_wall_clock(-400);
        assert_eq!(clocks(&machine, booted), (501, EPOCH_MS + 101));
    }
}
