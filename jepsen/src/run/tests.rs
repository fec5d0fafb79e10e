use std::collections::BTreeSet;

use super::*;
use crate::checker::worst;
use crate::workload::set::{Call, Reply, Set, SetId};

#[test]
fn nodes_that_never_served_are_a_finding() {
    let (ended, late) = ("n2 ended by itself", "n3 is not ready after 60s");
    let cases = [
        (NotServing::Ended(vec![ended.into()]), "crashes", ended),
        (NotServing::NotReady(late.into()), "recovery", late),
    ];
    for (why, checker, evidence) in cases {
        let run: Run<Call, Reply> = Run::never_began(&why);
        assert_eq!(run.verdicts, [Verdict::invalid(checker, vec![evidence.into()])]);
        assert!(run.history.is_empty() && run.failures.is_empty());
    }
}

/// The set, with checkers that do not live to tell.
struct Panicking;

impl Workload for Panicking {
    type Call = Call;
    type Reply = Reply;

    const NAME: crate::workload::Name = Set::NAME;
    const KINDS: &'static [&'static str] = Set::KINDS;

    fn next(&mut self, _: &mut Dice) -> Call {
        Call::Read { set: SetId(0) }
    }

    fn observe(&mut self, _: &Call, _: &Reply) {}

    fn last_calls(&self) -> Vec<Call> {
        Vec::new()
    }

    fn kind(call: &Call) -> &'static str {
        Set::kind(call)
    }

    fn access(call: &Call) -> crate::outcome::Access {
        Set::access(call)
    }

    async fn carry_out(_: &Client, _: &Call, _: Duration) -> Result<Option<Reply>, crate::outcome::Failure> {
        Ok(None)
    }

    fn check(_: &[Operation<Call, Reply>]) -> Vec<Verdict> {
        panic!("on purpose")
    }
}

#[test]
fn what_goes_wrong_in_the_harness_takes_no_verdict_away() {
    let found = Verdict::invalid("recovery", vec!["n1 does not serve".into()]);
    for (found, valid) in [(found, Valid::False), (Verdict::valid("recovery"), Valid::Unknown)] {
        let mut verdicts = vec![found];
        let failures: Vec<String> = judge::<Panicking>(&[], &mut verdicts).err().into_iter().collect();
        assert_eq!(failures, ["a checker panicked"]);
        verdicts.extend(harness(&failures));
        assert_eq!((verdicts.len(), worst(&verdicts)), (2, valid), "{verdicts:?}");
    }
    assert_eq!(harness(&[]), None);
    assert!(judge::<Set>(&[], &mut Vec::new()).is_ok());
}

#[tokio::test]
async fn who_panics_is_told() {
    async fn work(well: bool) {
        assert!(well, "on purpose");
    }
    let workers = vec![task::spawn(work(true)), task::spawn(work(false))];
    let failures = all_ended("worker", workers).await;
    assert!(failures.len() == 1 && failures[0].starts_with("worker 1: "), "{failures:?}");
    let failures = all_ended("compacting client", Some(task::spawn(work(false)))).await;
    assert!(failures.len() == 1 && failures[0].starts_with("compacting client 0: "), "{failures:?}");
    assert!(all_ended("compacting client", None).await.is_empty());
}

#[test]
fn every_second_worker_is_bound_and_at_each_node_one_is() {
    for nodes in 1..=16 {
        let bound: Vec<usize> = (0..2 * nodes).filter(|worker| is_bound(*worker, nodes)).collect();
        let at: BTreeSet<usize> = bound.iter().map(|worker| worker % nodes).collect();
        assert_eq!((bound.len(), at.len()), (nodes, nodes), "{nodes} nodes: {bound:?}");
    }
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|worker| is_bound(worker, 5)), [false, true, false, true, false, true, false]);
}
