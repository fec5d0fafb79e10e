//! Closed loops: each sends its next request when the last one is answered.

use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::Serialize;
use trefoil_client::Client;
use trefoil_world::{clock, random, task};

use crate::report::Row;

/// What the loops do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A get of a server with nothing behind it.
    Echo,
    Put,
    Get,
}

impl Kind {
    /// As tables have it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Echo => "echo",
            Kind::Put => "put",
            Kind::Get => "get",
        }
    }
}

/// A load to run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub kind: Kind,
    pub loops: usize,
    pub keys: u64,
    pub value_bytes: usize,
}

/// What a load did.
pub struct Measured {
    latency_us: Histogram<u64>,
    errors: u64,
    took: Duration,
}

impl Load {
    /// Runs the loops for `time`.
    pub async fn run(self, client: &Client, time: Duration) -> anyhow::Result<Measured> {
        let began = clock::now();
        let until = began + time;
        let loops: Vec<_> = (0..self.loops).map(|_| task::spawn(self.one_loop(client.clone(), until))).collect();
        let mut measured = Measured { latency_us: Histogram::new(3)?, errors: 0, took: Duration::ZERO };
        for done in loops {
            let (latency_us, errors) = done.await??;
            measured.latency_us.add(latency_us)?;
            measured.errors += errors;
        }
        measured.took = clock::now() - began;
        Ok(measured)
    }

    async fn one_loop(self, client: Client, until: clock::Instant) -> anyhow::Result<(Histogram<u64>, u64)> {
        let value = Bytes::from(vec![b'v'; self.value_bytes]);
        let mut latency_us = Histogram::new(3)?;
        let mut errors = 0;
        let mut now = clock::now();
        while now < until {
            let key = format!("bench/{:012}", random::next_u64() % self.keys);
            let answered = match self.kind {
                Kind::Put => client.put(key, value.clone()).await.map(|_| ()),
                Kind::Get | Kind::Echo => client.get(key).await.map(|_| ()),
            };
            let after = clock::now();
            match answered {
                Ok(()) => latency_us.record((after - now).as_micros() as u64)?,
                Err(_) => errors += 1,
            }
            now = after;
        }
        Ok((latency_us, errors))
    }
}

impl Measured {
    /// The figures of a load, given the servers' CPU time during it.
    pub fn row(&self, kind: Kind, loops: usize, cpu: Duration) -> Row {
        let operations = self.latency_us.len();
        let at = |quantile| self.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
        Row {
            kind,
            loops,
            operations,
            errors: self.errors,
            per_second: operations as f64 / self.took.as_secs_f64(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: self.latency_us.max() as f64 / 1000.0,
            server_cpu_us: cpu.as_micros() as f64 / operations.max(1) as f64,
        }
    }
}
