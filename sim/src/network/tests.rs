//! Connections between two machines, under each thing that can happen to them.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use trefoil_world::{clock, net, task};

use super::*;
use crate::machine::{Machine, TRUE_RATE_PPM};

const SERVER: HostId = HostId(0);
const CLIENT: HostId = HostId(1);
const TO_SERVER: Way = (CLIENT, SERVER);
const ADDRESS: &str = "10.0.0.1:7";
const CALM: Weather = Weather { latency_min_ms: 1, latency_max_ms: 5, lost_permille: 0 };

/// A server's machine and a client's.
struct Pair {
    network: Network,
    machines: Vec<Machine>,
    now_ms: u64,
}

impl Pair {
    fn new(seed: u64, weather: Weather) -> Pair {
        let network = Network::new(2, |_| weather, Dice::new(seed));
        let machine = |host| Machine::new(host, network.clone(), TRUE_RATE_PPM, 0, Dice::new(seed));
        let mut machines: Vec<Machine> = [SERVER, CLIENT].into_iter().map(machine).collect();
        machines.iter_mut().for_each(|machine| machine.boot(0));
        Pair { network, machines, now_ms: 0 }
    }

    fn spawn<T: Send + 'static>(&self, host: HostId, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.machines[host.0].run(futures::future::lazy(|_| task::spawn(work)))
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            self.network.advance(self.now_ms);
            self.machines.iter_mut().for_each(Machine::tick);
        }
    }

    /// What came of `working` within so long, if anything did.
    fn wait<T>(&mut self, host: HostId, working: JoinHandle<T>, within_ms: u64) -> Option<T> {
        let until_ms = self.now_ms + within_ms;
        while !working.is_finished() && self.now_ms < until_ms {
            self.pass(1);
        }
        working.is_finished().then(|| self.machines[host.0].run(working).expect("no panic"))
    }
}

/// Takes one connection and reads it to its end.
async fn take_all() -> io::Result<Vec<u8>> {
    let mut listener = net::listen(ADDRESS).await?;
    let (mut stream, _) = listener.accept().await?;
    let mut taken = Vec::new();
    stream.read_to_end(&mut taken).await?;
    Ok(taken)
}

/// Takes one connection, says a word when `after` has passed, and waits for one.
async fn say_and_hear(after: Duration) -> io::Result<u8> {
    let mut listener = net::listen(ADDRESS).await?;
    let (mut stream, _) = listener.accept().await?;
    clock::sleep(after).await;
    stream.write_u8(1).await?;
    stream.read_u8().await
}

async fn give(bytes: Vec<u8>) -> io::Result<()> {
    let mut stream = net::dial(ADDRESS).await?;
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// Dials, says a word when `after` has passed, and reads one, or why not.
async fn say_then_hear(after: Duration) -> io::Result<u8> {
    let mut stream = net::dial(ADDRESS).await?;
    clock::sleep(after).await;
    stream.write_u8(2).await?;
    stream.read_u8().await
}

#[test]
fn all_bytes_arrive_in_order() {
    let given: Vec<u8> = (0..3 * WINDOW_BYTES + 17).map(|place| (place % 251) as u8).collect();
    let bad = Weather { latency_min_ms: 1, latency_max_ms: 60, lost_permille: 300 };
    for (seed, weather) in [(1, CALM), (2, bad), (3, bad)] {
        let mut pair = Pair::new(seed, weather);
        let taking = pair.spawn(SERVER, take_all());
        let giving = pair.spawn(CLIENT, give(given.clone()));
        let taken = pair.wait(SERVER, taking, 60_000).expect("it ends").expect("it is taken");
        assert!(taken == given, "seed {seed}: {} of {} bytes, or others", taken.len(), given.len());
        assert!(pair.wait(CLIENT, giving, 1).is_some_and(|given| given.is_ok()));
    }
}

#[test]
fn a_sender_waits_for_the_reader() {
    let mut pair = Pair::new(1, CALM);
    let _taking = pair.spawn(SERVER, async {
        let mut listener = net::listen(ADDRESS).await?;
        let (stream, _) = listener.accept().await?;
        clock::sleep(Duration::from_secs(3600)).await;
        drop(stream);
        io::Result::Ok(())
    });
    let giving = pair.spawn(CLIENT, give(vec![0; WINDOW_BYTES + 1]));
    assert!(pair.wait(CLIENT, giving, 10_000).is_none(), "nobody reads, so not all can be said");
}

#[test]
fn a_cut_is_silent_and_holds_one_way_only() {
    let mut pair = Pair::new(1, CALM);
    let serving = pair.spawn(SERVER, say_and_hear(Duration::from_millis(100)));
    let asking = pair.spawn(CLIENT, say_then_hear(Duration::from_millis(100)));
    pair.pass(50);
    pair.network.set_trouble(TO_SERVER, Trouble { cut: true, slower_ms: 0 });
    let heard = pair.wait(CLIENT, asking, 1000).expect("the other way is open").expect("nobody was told");
    assert_eq!(heard, 1);
    assert!(pair.wait(SERVER, serving, 1000).is_none(), "what was said to the server is held");
    assert!(pair.network.touched(TO_SERVER) > 0);
}

#[test]
fn nothing_is_kept_of_a_dial_that_was_given_up() {
    let mut pair = Pair::new(1, CALM);
    pair.network.set_trouble(TO_SERVER, Trouble { cut: true, slower_ms: 0 });
    let kept = |pair: &Pair| {
        let state = pair.network.lock();
        (state.links[&TO_SERVER].held.len(), state.flying.len(), state.sockets.len())
    };
    let dial = |patience_ms| clock::timeout(Duration::from_millis(patience_ms), net::dial(ADDRESS));
    for (patience_ms, at_ms, then) in [(100, 50, (1, 1, 1)), (1, 20, (0, 0, 0))] {
        let dialling = pair.spawn(CLIENT, async move { dial(patience_ms).await.is_ok() });
        pair.pass(at_ms);
        assert_eq!(kept(&pair), then, "a dial of {patience_ms} ms");
        assert_eq!(pair.wait(CLIENT, dialling, 1_000), Some(false));
        assert_eq!(kept(&pair), (0, 0, 0), "a dial of {patience_ms} ms");
    }
    assert_eq!(pair.network.touched(TO_SERVER), 2);
    let _dialling = pair.spawn(CLIENT, async move { dial(10_000).await.is_ok() });
    pair.pass(50);
    assert_eq!(kept(&pair), (1, 1, 1));
    pair.network.cut_power(CLIENT);
    assert_eq!(kept(&pair), (0, 0, 0), "a machine without power dials nobody");
}

#[test]
fn what_was_held_goes_on_or_is_lost_for_good() {
    let mut came = Vec::new();
    for seed in 0..30 {
        let mut pair = Pair::new(seed, CALM);
        let serving = pair.spawn(SERVER, say_and_hear(Duration::ZERO));
        let _asking = pair.spawn(CLIENT, async {
            let said = say_then_hear(Duration::from_millis(100)).await;
            clock::sleep(Duration::from_secs(3600)).await;
            said
        });
        pair.pass(50);
        pair.network.set_trouble(TO_SERVER, Trouble { cut: true, slower_ms: 0 });
        pair.pass(500);
        pair.network.set_trouble(TO_SERVER, Trouble::default());
        came.push(pair.wait(SERVER, serving, 10_000).map(|heard| heard.map_err(|error| error.kind())));
    }
    assert!(came.contains(&Some(Ok(2))) && came.contains(&None), "{came:?}");
    assert!(came.iter().all(|heard| [Some(Ok(2)), None].contains(heard)), "nothing else: {came:?}");
}

#[test]
fn a_slow_link_is_late() {
    let mut pair = Pair::new(1, CALM);
    let serving = pair.spawn(SERVER, say_and_hear(Duration::ZERO));
    pair.network.set_trouble(TO_SERVER, Trouble { cut: false, slower_ms: 400 });
    let _asking = pair.spawn(CLIENT, say_then_hear(Duration::ZERO));
    assert!(pair.wait(SERVER, serving, 10_000).is_some_and(|heard| heard.is_ok()));
    // The opening and the word were each 400 ms late.
    assert!((800..900).contains(&pair.now_ms), "{} ms", pair.now_ms);
}

#[test]
fn dials_end_as_they_would() {
    let cases: [(&str, bool, io::ErrorKind, u64); 3] = [
        (ADDRESS, true, io::ErrorKind::ConnectionRefused, 20),
        (ADDRESS, false, io::ErrorKind::TimedOut, DIAL_MAX_MS + 10),
        ("10.1.0.1:7", true, io::ErrorKind::NotFound, 5),
    ];
    for (address, powered, expected, within_ms) in cases {
        let mut pair = Pair::new(1, CALM);
        if !powered {
            pair.network.cut_power(SERVER);
        }
        let dialling = pair.spawn(CLIENT, async move { net::dial(address).await.map(|_| ()) });
        let ended = pair.wait(CLIENT, dialling, within_ms).map(|ended| ended.map_err(|error| error.kind()));
        assert_eq!(ended, Some(Err(expected)), "{address}, powered: {powered}");
    }
}

#[test]
fn a_kill_is_told_and_a_loss_of_power_is_not() {
    let mut pair = Pair::new(1, CALM);
    let _serving = pair.spawn(SERVER, say_and_hear(Duration::from_secs(3600)));
    let asking = pair.spawn(CLIENT, say_then_hear(Duration::ZERO));
    pair.pass(50);
    pair.machines[SERVER.0].halt();
    let told = pair.wait(CLIENT, asking, 50).expect("the end was told");
    assert_eq!(told.map_err(|error| error.kind()), Err(io::ErrorKind::UnexpectedEof));

    let mut pair = Pair::new(1, CALM);
    let _serving = pair.spawn(SERVER, say_and_hear(Duration::from_secs(3600)));
    let asking = pair.spawn(CLIENT, say_then_hear(Duration::from_millis(2000)));
    pair.pass(50);
    pair.network.cut_power(SERVER);
    pair.machines[SERVER.0].halt();
    pair.pass(1000);
    assert!(!asking.is_finished(), "nobody was told");
    pair.network.give_power(SERVER);
    let told = pair.wait(CLIENT, asking, 2000).expect("what is said now has no listener");
    assert_eq!(told.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
}
