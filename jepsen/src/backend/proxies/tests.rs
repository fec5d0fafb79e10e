//! Proxies between this process, which speaks for every node, and targets that say a word and give back what they get.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::*;
use crate::backend::{Loopback, Traffic};

const HELLO: &[u8; 5] = b"hello";
const NODES: usize = 3;
const LATE: Duration = Duration::from_millis(150);
const SILENT: Duration = Duration::from_millis(200);
const WORD_MAX: Duration = Duration::from_secs(5);

/// Three targets behind proxies.
async fn proxied() -> Loopback {
    let loopback = Loopback::with_prefix(NODES, &[]).expect("places").behind_proxies().await.expect("ports");
    for place in loopback.places() {
        let listener = net::listen(&place.hears).await.expect("a port");
        task::spawn(answer(listener));
    }
    loopback
}

async fn answer(mut listener: Listener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        task::spawn(async move {
            stream.write_all(HELLO).await?;
            let mut buffer = vec![0; 1000];
            loop {
                let bytes = stream.read(&mut buffer).await?;
                if bytes == 0 {
                    return io::Result::Ok(());
                }
                stream.write_all(&buffer[..bytes]).await?;
            }
        });
    }
}

/// A connection of node 0 to node 1, over which the target has spoken.
async fn connect(loopback: &Loopback) -> Stream {
    let proxies = loopback.proxies().expect("they are there");
    proxies.note_process(0, std::process::id());
    let mut stream = net::dial(&loopback.places()[1].peer).await.expect("a proxy listens");
    let mut hello = [0; HELLO.len()];
    stream.read_exact(&mut hello).await.expect("the target speaks");
    assert_eq!(&hello, HELLO);
    stream
}

/// Sends a word and waits until it is back: how long that took. `None`: longer than `most`.
async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), word: &[u8], most: Duration) -> Option<Duration> {
    let began = clock::now();
    stream.write_all(word).await.expect("it is open");
    let mut back = vec![0; word.len()];
    clock::timeout(most, stream.read_exact(&mut back)).await.ok()?.expect("it is open");
    assert_eq!(back, word);
    Some(began.elapsed())
}

/// Waits until so many connections are passed on, or wait for that.
async fn until_held(proxies: &Proxies, connections: usize) {
    let until = clock::now() + WORD_MAX;
    while proxies.0.places.available_permits() != CONNECTIONS_MAX - connections {
        assert!(clock::now() < until, "{connections} connections hold a place");
        clock::sleep(ACCEPT_PAUSE).await;
    }
}

fn cut(from: usize, to: usize) -> Cut {
    Cut { from, to, traffic: Traffic::All }
}

fn lines(cuts: &[Cut]) -> BTreeSet<Line> {
    cuts.iter().map(Line::of).collect()
}

#[tokio::test]
async fn who_is_no_node_is_not_passed_on() {
    let loopback = proxied().await;
    let mut stream = net::dial(&loopback.places()[1].peer).await.expect("a proxy listens");
    assert_eq!(stream.read(&mut [0; 10]).await.expect("closed in order"), 0);
    connect(&loopback).await;
}

#[tokio::test]
async fn a_cut_line_holds_what_is_sent_until_it_is_healed() {
    let loopback = proxied().await;
    let mut stream = connect(&loopback).await;
    assert!(echo(&mut stream, b"before", WORD_MAX).await.is_some());
    let proxies = loopback.proxies().expect("they are there");
    for line in [cut(0, 1), cut(1, 0)] {
        proxies.cut(&[line]);
        assert_eq!(echo(&mut stream, b"during", SILENT).await, None);
        assert_eq!((proxies.reach(0, 1).await, proxies.reach(1, 0).await), (Reach::Silent, Reach::Silent));
        assert_eq!(proxies.reach(0, 2).await, Reach::Answers, "other lines are open");
        proxies.heal();
        let mut held = [0; 6];
        stream.read_exact(&mut held).await.expect("it is open");
        assert_eq!(&held, b"during");
        assert_eq!(proxies.reach(0, 1).await, Reach::Answers);
    }
}

#[tokio::test]
async fn what_passes_is_measured_one_direction_at_a_time() {
    let loopback = proxied().await;
    let proxies = loopback.proxies().expect("they are there");
    let none = BTreeSet::new();
    assert_eq!(proxies.measure(&none).await.unlike(&none), None);
    for cuts in [vec![cut(0, 1)], vec![cut(0, 1), cut(1, 0)], vec![cut(2, 0), cut(2, 1)]] {
        proxies.cut(&cuts);
        let measured = proxies.measure(&lines(&cuts)).await;
        assert_eq!(measured.unlike(&lines(&cuts)), None, "{cuts:?}");
        assert!(measured.unlike(&none).is_some_and(|said| said.contains("nothing passes")), "{cuts:?}");
        let words = proxies.words(&lines(&cuts)).await;
        assert!(words.iter().all(|(line, took)| took.is_none() == lines(&cuts).contains(line)), "{words:?}");
        proxies.heal();
        let measured = proxies.measure(&lines(&cuts)).await;
        assert!(measured.unlike(&lines(&cuts)).is_some_and(|said| said.contains(" pass")), "a healed line is not cut");
        assert_eq!(measured.unlike(&none), None, "{cuts:?}");
    }
}

#[tokio::test]
async fn what_nodes_say_on_a_cut_line_is_metered() {
    let loopback = proxied().await;
    let mut stream = connect(&loopback).await;
    let proxies = loopback.proxies().expect("they are there");
    let line = Line { from: 0, to: 1 };
    let said = |before: &BTreeMap<Line, Metered>| {
        let (now, before) = (proxies.readings()[&line], before[&line]);
        (now.offered - before.offered, now.passed - before.passed)
    };
    let before = proxies.readings();
    assert!(echo(&mut stream, b"before", WORD_MAX).await.is_some());
    assert_eq!(said(&before), (6, 6));
    proxies.cut(&[cut(0, 1)]);
    let before = proxies.readings();
    assert_eq!(echo(&mut stream, b"during", SILENT).await, None);
    assert_eq!(said(&before), (6, 0));
    let mut waits = net::dial(&loopback.places()[1].peer).await.expect("a proxy listens");
    waits.write_all(b"fresh").await.expect("it is open");
    let until = clock::now() + WORD_MAX;
    while said(&before) != (11, 0) {
        assert!(clock::now() < until, "what a new connection says is offered too: {:?}", said(&before));
        clock::sleep(ACCEPT_PAUSE).await;
    }
}

#[tokio::test]
async fn what_is_said_before_a_cut_is_healed_is_passed_on_unless_the_caller_has_gone() {
    let loopback = proxied().await;
    let proxies = loopback.proxies().expect("they are there");
    proxies.note_process(0, std::process::id());
    proxies.cut(&[cut(1, 0)]);
    let mut patient = net::dial(&loopback.places()[1].peer).await.expect("a proxy listens");
    patient.write_all(b"word").await.expect("it is open");
    let mut impatient = net::dial(&loopback.places()[1].peer).await.expect("a proxy listens");
    impatient.write_all(b"word").await.expect("it is open");
    until_held(proxies, 2).await;
    drop(impatient);
    until_held(proxies, 1).await;
    proxies.heal();
    let mut heard = [0; HELLO.len() + 4];
    patient.read_exact(&mut heard).await.expect("it is open");
    assert_eq!(&heard, b"helloword");
}

#[tokio::test]
async fn a_slow_line_is_late_and_keeps_the_order() {
    let loopback = proxied().await;
    let mut stream = connect(&loopback).await;
    let proxies = loopback.proxies().expect("they are there");
    let (there, back) = (Line { from: 0, to: 1 }, Line { from: 1, to: 0 });
    proxies.weather(&BTreeSet::from([there]), Weather::Slow { delay: LATE, jitter: LATE, seed: 7 });
    let word: Vec<u8> = (0..=255).collect();
    let took = echo(&mut stream, &word, WORD_MAX).await.expect("it comes");
    assert!(took >= LATE && proxies.slowest(there) >= LATE, "{took:?}");
    assert!(proxies.slowest(back) < LATE, "only one direction is slow");
    proxies.heal();
    assert!(echo(&mut stream, b"after", LATE).await.is_some());
}

#[tokio::test]
async fn a_drip_takes_its_time() {
    let loopback = proxied().await;
    let mut stream = connect(&loopback).await;
    let proxies = loopback.proxies().expect("they are there");
    proxies.weather(&Line::of_node(0, NODES), Weather::Drip { bytes_per_second: 1000 });
    let took = echo(&mut stream, &[7; 200], WORD_MAX).await.expect("it comes");
    assert!(took >= Duration::from_millis(200), "{took:?}");
}

#[tokio::test]
async fn connections_that_are_reset_end_at_both_ends() {
    let loopback = proxied().await;
    let mut stream = connect(&loopback).await;
    let proxies = loopback.proxies().expect("they are there");
    proxies.break_connections(2, Break::Reset);
    assert!(echo(&mut stream, b"word", WORD_MAX).await.is_some(), "another node's were broken");
    proxies.break_connections(1, Break::Reset);
    stream.write_all(b"unread").await.expect("it is open");
    let end = clock::timeout(WORD_MAX, stream.read(&mut [0; 10])).await.expect("it ends");
    assert!(end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    assert_eq!(proxies.broken(), 1);
    assert!(echo(&mut connect(&loopback).await, b"word", WORD_MAX).await.is_some(), "new ones are not");
}

#[tokio::test]
async fn a_half_open_connection_is_silent_until_it_is_healed() {
    let loopback = proxied().await;
    let mut stream = connect(&loopback).await;
    let proxies = loopback.proxies().expect("they are there");
    proxies.break_connections(0, Break::HalfOpen);
    assert_eq!(echo(&mut stream, b"word", SILENT).await, None, "it is open, and nobody answers");
    assert_eq!((proxies.broken(), proxies.half_open(), proxies.standing(0)), (1, 1, 0));
    proxies.heal();
    let end = clock::timeout(WORD_MAX, stream.read(&mut [0; 10])).await.expect("it ends");
    assert!(end.is_err() || end.is_ok_and(|bytes| bytes == 0));
    assert_eq!(proxies.half_open(), 0);
}

#[tokio::test]
async fn nothing_is_passed_on_when_the_backend_is_gone() {
    let loopback = proxied().await;
    let mut stream = connect(&loopback).await;
    let address = loopback.places()[1].peer.clone();
    drop(loopback);
    let end = clock::timeout(WORD_MAX, stream.read(&mut [0; 10])).await.expect("it ends");
    assert!(end.is_err() || end.is_ok_and(|bytes| bytes == 0));
    let until = clock::now() + WORD_MAX;
    while net::dial(&address).await.is_ok() {
        assert!(clock::now() < until, "somebody still listens at {address}");
        clock::sleep(ACCEPT_PAUSE).await;
    }
}
