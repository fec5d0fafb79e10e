//! Line 11: the bench. Its short form measures for a moment and bounds nothing: what a request costs is for the long
//! form to say, on a machine that does nothing else.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{finish, kvd_program};
use crate::scenario::{Scenario, beside_others};

const BENCH_MAX: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bench_measures_what_it_names() {
    Scenario::begin("cluster_11::the_bench_measures_what_it_names");
    let _turn = beside_others().await;
    let folder = tempfile::tempdir().expect("a fresh directory");
    let out = folder.path().join("results.json");
    let mut bench = Command::new(kvd_program().with_file_name("kvbench"));
    bench.arg("--kvd").arg(kvd_program()).arg("--out").arg(&out);
    bench.args(["--loops", "1,64", "--seconds", "1", "--warm-up", "1", "--keys", "1000"]);
    let finished = finish(bench, BENCH_MAX).await;
    finished.expect_code("kvbench", &[0]);
    let text = std::fs::read_to_string(&out).expect("a file of results");
    let results: Value = serde_json::from_str(&text).expect("results in JSON");
    for field in ["commit", "cpu", "cores", "value_bytes"] {
        assert!(!results[field].is_null(), "expected the results to name {field}: {text}");
    }
    let rows = results["rows"].as_array().expect("rows");
    for row in rows {
        assert_eq!(row["errors"], 0, "expected no failed operation: {row}");
        for figure in ["operations", "per_second", "p50_ms", "p999_ms", "server_cpu_us"] {
            assert!(row[figure].as_f64().is_some_and(|figure| figure > 0.0), "expected a {figure} above 0: {row}");
        }
    }
    let measured: BTreeSet<(&str, u64)> =
        rows.iter().map(|row| (row["kind"].as_str().unwrap_or_default(), row["loops"].as_u64().unwrap_or(0))).collect();
    let expected = ["echo", "get", "put"].into_iter().flat_map(|kind| [(kind, 1), (kind, 64)]).collect();
    assert_eq!(measured, expected, "expected each kind at each number of loops");
    println!("{}", String::from_utf8_lossy(&finished.stdout));
}
