//! Settings as data: what holds, what does not and why, and what is warned of.

use super::*;

fn with(change: impl FnOnce(&mut RawConfig)) -> Result<Config, String> {
    let mut raw = RawConfig::default();
    change(&mut raw);
    Config::check(raw).map_err(|bad| bad.to_string())
}

#[test]
fn a_bad_setting_is_named() {
    let list = |list: &str| with(|raw| raw.initial_cluster = Some(list.into()));
    let listen = |client: &str, peer: &str| {
        with(|raw| {
            raw.listen_client = Some(client.into());
            raw.listen_peer = Some(peer.into());
        })
    };
    let cases: [(Result<Config, String>, &str); 25] = [
        (with(|raw| raw.name = Some("a,b".into())), "--name: "),
        (with(|raw| raw.name = Some("a\nkvd: b".into())), r"--name: 'a\nkvd: b' has control characters"),
        (with(|raw| raw.listen_client = Some("nowhere".into())), "--listen-client: 'nowhere'"),
        (with(|raw| raw.listen_client = Some("a b:1".into())), "--listen-client: 'a b:1' is not host:port"),
        (with(|raw| raw.listen_client = Some("a\n:1".into())), r"--listen-client: 'a\n:1' is not host:port"),
        (with(|raw| raw.listen_client = Some("h:+1".into())), "--listen-client: 'h:+1' is not host:port"),
        (with(|raw| raw.listen_client = Some("h:".into())), "--listen-client: 'h:' is not host:port"),
        (
            with(|raw| raw.listen_client = Some("h:0".into())),
            "--listen-client: 'h:0' has port 0, which nobody can dial",
        ),
        (with(|raw| raw.listen_peer = Some("h:00".into())), "--listen-peer: 'h:00' has port 0"),
        (with(|raw| raw.advertise_client = Some("h:0".into())), "--advertise-client: 'h:0' has port 0"),
        (with(|raw| raw.advertise_peer = Some("0.0.0.0:1".into())), "--advertise-peer: 0.0.0.0:1 is no address others"),
        (with(|raw| raw.advertise_client = Some("[::]:1".into())), "--advertise-client: [::]:1 is no address others"),
        (with(|raw| raw.advertise_client = Some("[0:0::]:1".into())), "--advertise-client: [0:0::]:1 is no address"),
        (listen("h:1", "h:1"), "--listen-peer: is at one address with --listen-client, h:1"),
        (listen("127.0.0.1:01", "127.0.0.1:1"), "--listen-peer: is at one address with --listen-client, 127.0.0.1:1"),
        (with(|raw| raw.listen_peer = Some("[0::0]:2380".into())), "--advertise-peer: is needed"),
        (with(|raw| raw.listen_peer = Some("0.0.0.0:2380".into())), "--advertise-peer: is needed"),
        (list("n2=h:1"), "--initial-cluster: does not name"),
        (list("n1=h:1,n1=h:2"), "--initial-cluster: names a node twice"),
        (list("n3=h:1,n1=h:2,n2=h:1"), "--initial-cluster: n2 and n3 are at one address, h:1"),
        (list("n1=h:2380,n2=h:02380"), "--initial-cluster: n1 and n2 are at one address, h:02380"),
        (
            list("n1=[::1]:1,n2=[0:0:0:0:0:0:0:1]:1"),
            "--initial-cluster: n1 and n2 are at one address, [0:0:0:0:0:0:0:1]:1",
        ),
        (list("n1=Host:1,n2=hOST:1"), "--initial-cluster: n1 and n2 are at one address, hOST:1"),
        (list("n1=h:1,n2=[::]:1"), "--initial-cluster: [::]:1 is no address others can dial"),
        (list("n1=h:1,=h:2"), "--initial-cluster: '=h:2' is not name=host:port"),
    ];
    for (result, expected) in cases {
        let error = result.expect_err(expected);
        assert!(error.starts_with(expected), "{error}");
    }
}

/// A number, how it is set, the least and, where it has one, the most it may be.
type Bounded = (&'static str, fn(&mut RawConfig, u64), u64, Option<u64>);

const BOUNDED: [Bounded; 10] = [
    ("message-bytes-max", |raw, to| raw.message_bytes_max = Some(to as usize), 16_384, Some(16_777_216)),
    ("key-bytes-max", |raw, to| raw.key_bytes_max = Some(to as usize), 64, Some(16_777_216)),
    ("txn-ops-max", |raw, to| raw.txn_ops_max = Some(to as usize), 1, None),
    ("connections-max", |raw, to| raw.connections_max = Some(to as usize), 1, None),
    ("streams-max", |raw, to| raw.streams_max = Some(to as u32), 1, None),
    ("request-timeout-ms", |raw, to| raw.request_timeout_ms = Some(to), 10, Some(3_600_000)),
    ("log-entries-kept", |raw, to| raw.log_entries_kept = Some(to), 16, None),
    ("log-bytes-kept", |raw, to| raw.log_bytes_kept = Some(to as usize), 16_384, None),
    ("verify-interval-s", |raw, to| raw.verify_interval_s = Some(to), 1, Some(3_153_600_000)),
    ("bulk-bytes-per-second", |raw, to| raw.bulk_bytes_per_second = Some(to as usize), 262_144, None),
];

#[test]
fn a_number_out_of_its_bounds_is_named_with_them() {
    for (flag, set, least, most) in BOUNDED {
        let checked = |value: u64| with(|raw| set(raw, value)).map(drop);
        assert_eq!(checked(least), Ok(()), "--{flag}");
        let below = least - 1;
        assert_eq!(checked(below), Err(format!("--{flag}: must be at least {least}, not {below}")));
        let Some(most) = most else { continue };
        assert_eq!(checked(most), Ok(()), "--{flag}");
        let above = most + 1;
        assert_eq!(checked(above), Err(format!("--{flag}: must be at most {most}, not {above}")));
    }
}

#[test]
fn a_node_that_is_elsewhere_in_its_list_is_warned_of() {
    for (list, advertised, warned) in [
        (None, None, false),
        (None, Some("far:1"), false),
        (Some("n1=127.0.0.1:2380,n2=h:1"), None, false),
        (Some("n1=h:2,n2=h:1"), None, true),
        (Some("n1=h:2,n2=h:1"), Some("h:2"), false),
        (Some("n1=127.0.0.1:2380,n2=h:1"), Some("h:2"), true),
    ] {
        let config = with(|raw| {
            raw.initial_cluster = list.map(str::to_owned);
            raw.advertise_peer = advertised.map(str::to_owned);
        });
        let warnings = config.expect("legal settings").warnings();
        assert_eq!(warnings.len(), usize::from(warned), "{list:?} {advertised:?}: {warnings:?}");
        assert!(warnings.iter().all(|warning| warning.starts_with("--initial-cluster: n1 is at ")), "{warnings:?}");
    }
}

#[test]
fn a_file_is_read_whole_or_not_at_all() {
    let file = |text: &str| RawConfig::parse(text.as_bytes().to_vec());
    assert_eq!(file(""), Ok(RawConfig::default()));
    assert_eq!(file("weight = 7").map(|raw| raw.weight), Ok(Some(7)));
    let full = format!("weight = 7\n{}", "#".repeat(FILE_BYTES_MAX as usize - 11));
    assert_eq!((full.len() as u64, file(&full).is_ok()), (FILE_BYTES_MAX, true));
    for (content, expected) in [
        (vec![0; FILE_BYTES_MAX as usize + 1], "has more than 1048576 bytes, the limit"),
        (b"zone = '\xff'".to_vec(), "is not UTF-8"),
        (b"weight = 1\ncolour = 'red'".to_vec(), "line 2: unknown field `colour`"),
    ] {
        let why = RawConfig::parse(content).expect_err(expected);
        assert!(why.starts_with(expected) && !why.contains('\n'), "{why}");
    }
}

#[test]
fn the_stronger_source_wins() {
    let flags = RawConfig { name: Some("flag".into()), ..RawConfig::default() };
    let file = RawConfig { name: Some("file".into()), zone: Some("z".into()), ..RawConfig::default() };
    let config = Config::check(flags.over(file)).unwrap();
    assert_eq!((config.name.as_str(), config.zone.as_str()), ("flag", "z"));
    assert_eq!(config.message_bytes_max, 1_572_864);
    assert_eq!(config.initial_cluster, [("flag".to_owned(), "127.0.0.1:2380".to_owned())]);
}
