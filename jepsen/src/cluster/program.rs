//! The program that nodes run: what differs between the targets in how it is started and what it says.
//!
//! Left out: how it is asked, which is in `client.rs`.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::backend::Place;
use crate::target::Target;

/// Tells the members of a run's cluster from those of others.
const ETCD_TOKEN: &str = "trefoil-jepsen";
/// How often nodes of Trefoil compare replicas by themselves, in seconds: some times in a run of a minute.
const VERIFY_INTERVAL_S: &str = "5";

/// A program, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    Kvd(PathBuf),
    Etcd(PathBuf),
}

impl Program {
    pub fn target(&self) -> Target {
        match self {
            Program::Kvd(_) => Target::Trefoil,
            Program::Etcd(_) => Target::Etcd,
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            Program::Kvd(path) | Program::Etcd(path) => path,
        }
    }

    /// The same with an absolute path.
    ///
    /// # Errors
    /// There is no such program.
    pub(super) fn found(self) -> anyhow::Result<Program> {
        let found =
            |path: PathBuf| path.canonicalize().with_context(|| format!("there is no program {}", path.display()));
        Ok(match self {
            Program::Kvd(path) => Program::Kvd(found(path)?),
            Program::Etcd(path) => Program::Etcd(found(path)?),
        })
    }

    /// What it says on stderr once it serves.
    pub(super) fn ready_line(&self) -> &'static str {
        match self {
            Program::Kvd(_) => "ready to serve client requests",
            // The same words, in a line of JSON: it has joined, and knows a leader.
            Program::Etcd(_) => "\"msg\":\"ready to serve client requests\"",
        }
    }

    /// Whether it ends by the signal that has told it to stop, once it has stopped in order.
    pub(super) fn ends_by_signal(&self) -> bool {
        match self {
            Program::Kvd(_) => false,
            Program::Etcd(_) => true,
        }
    }

    /// What the names of its settings in the environment begin with.
    pub(super) fn settings(&self) -> &'static str {
        match self {
            Program::Kvd(_) => "KVD_",
            Program::Etcd(_) => "ETCD_",
        }
    }

    /// The flags with which the node at `place` is started; `cluster` are all places.
    pub(super) fn flags(&self, place: &Place, data_dir: &Path, cluster: &[&Place]) -> Vec<String> {
        let data_dir = data_dir.display().to_string();
        let flags = match self {
            Program::Kvd(_) => kvd(place, data_dir, cluster),
            Program::Etcd(_) => etcd(place, data_dir, cluster),
        };
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }
}

fn kvd(place: &Place, data_dir: String, cluster: &[&Place]) -> Vec<(&'static str, String)> {
    let members: Vec<String> = cluster.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
    vec![
        ("--name", place.name.clone()),
        ("--data-dir", data_dir),
        ("--listen-client", place.client.clone()),
        ("--listen-peer", place.hears.clone()),
        ("--advertise-peer", place.peer.clone()),
        ("--initial-cluster", members.join(",")),
        ("--verify-interval-s", VERIFY_INTERVAL_S.to_owned()),
    ]
}

/// Its timing is etcd's own: heartbeats each 100 ms, elections after 1 s.
fn etcd(place: &Place, data_dir: String, cluster: &[&Place]) -> Vec<(&'static str, String)> {
    let members: Vec<String> = cluster.iter().map(|member| format!("{}=http://{}", member.name, member.peer)).collect();
    let url = |address: &str| format!("http://{address}");
    vec![
        ("--name", place.name.clone()),
        ("--data-dir", data_dir),
        ("--listen-client-urls", url(&place.client)),
        ("--advertise-client-urls", url(&place.client)),
        ("--listen-peer-urls", url(&place.hears)),
        ("--initial-advertise-peer-urls", url(&place.peer)),
        ("--initial-cluster", members.join(",")),
        ("--initial-cluster-state", "new".to_owned()),
        ("--initial-cluster-token", ETCD_TOKEN.to_owned()),
        ("--log-outputs", "stderr".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str, number: u8) -> Place {
        let host = format!("10.0.0.{number}");
        let (client, peer) = (format!("{host}:2379"), format!("{host}:2380"));
        Place { name: name.into(), prefix: Vec::new(), client, peer, hears: format!("{host}:12380") }
    }

    #[test]
    fn nodes_hear_where_they_listen_and_say_where_they_are_reached() {
        let (first, second) = (place("n1", 1), place("n2", 2));
        let cases = [
            (
                Program::Kvd("kvd".into()),
                "--name n2 --data-dir d/n2 --listen-client 10.0.0.2:2379 --listen-peer 10.0.0.2:12380 \
                 --advertise-peer 10.0.0.2:2380 --initial-cluster n1=10.0.0.1:2380,n2=10.0.0.2:2380 \
                 --verify-interval-s 5",
            ),
            (
                Program::Etcd("etcd".into()),
                "--name n2 --data-dir d/n2 --listen-client-urls http://10.0.0.2:2379 \
                 --advertise-client-urls http://10.0.0.2:2379 --listen-peer-urls http://10.0.0.2:12380 \
                 --initial-advertise-peer-urls http://10.0.0.2:2380 \
                 --initial-cluster n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380 --initial-cluster-state new \
                 --initial-cluster-token trefoil-jepsen --log-outputs stderr",
            ),
        ];
        for (program, expected) in cases {
            let flags = program.flags(&second, Path::new("d/n2"), &[&first, &second]);
            assert_eq!(flags.join(" "), expected);
        }
    }

    /// A line of etcd 3.5.1.
    #[test]
    fn etcd_says_in_json_that_it_serves() {
        let line = r#"{"level":"info","ts":"2026-11-21T18:55:03.141Z","caller":"embed/serve.go:98","msg":"ready to serve client requests"}"#;
        assert!(line.contains(Program::Etcd("etcd".into()).ready_line()));
        assert!(!line.replace("ready to", "cannot").contains(Program::Etcd("etcd".into()).ready_line()));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Program::Etcd(folder.path().join("etcd")).found().expect_err("it is not there");
        assert!(error.to_string().starts_with("there is no program"), "{error}");
        std::fs::write(folder.path().join("etcd"), "").expect("written");
        let found = Program::Etcd(folder.path().join(".").join("etcd")).found().expect("it is there");
        assert_eq!((found.target(), found.path().is_absolute()), (Target::Etcd, true));
    }
}
