//! The Raft library's own storage suite, on both engines.

use std::collections::BTreeSet;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use trefoil_causality::ReplicaId;
use trefoil_placement::PartitionId;
use trefoil_store::engine::Engine;
use trefoil_store::engine::memory::MemoryEngine;
use trefoil_store::engine::rocks::RocksEngine;
use trefoil_store::key::StoreNumber;
use trefoil_store::mark::FILE_BYTES;

use crate::raft::log::LogStore;
use crate::raft::state::StateMachine;
use crate::raft::types::Group;
use crate::replica_record::ReplicaRecord;
use crate::stores::Stores;
use crate::writer::{MarkSlots, Writer};

enum Kind {
    Memory,
    Rocks,
}

impl StoreBuilder<Group, LogStore, StateMachine, Option<TempDir>> for Kind {
    async fn build(&self) -> Result<(Option<TempDir>, LogStore, StateMachine), StorageError<Group>> {
        let (engine, folder): (Arc<dyn Engine>, _) = match self {
            Kind::Memory => (Arc::new(MemoryEngine::new()), None),
            Kind::Rocks => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                (Arc::new(RocksEngine::open(folder.path()).expect("a fresh database")), Some(folder))
            }
        };
        let mark = MarkSlots::Memory { slots: Arc::new(std::sync::Mutex::new([0; FILE_BYTES])), storage_id: 1 };
        let writer = Writer::start(engine.clone(), mark, 0, Arc::new(|why| panic!("{why}"))).expect("a writer");
        let stores = Stores::open(engine.clone(), writer.clone(), &BTreeSet::new()).expect("stores");
        let log = LogStore::open(ReplicaId(1), engine.clone(), writer.clone()).expect("a log");
        let record = ReplicaRecord { partition: PartitionId::DEFAULT, store: StoreNumber(1) };
        let state = StateMachine::open(ReplicaId(1), record, engine, writer, Arc::new(stores)).expect("a state");
        Ok((folder, log, state))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    Suite::test_all(Kind::Memory).await.expect("the memory engine keeps the storage contract");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rocks() {
    Suite::test_all(Kind::Rocks).await.expect("RocksDB keeps the storage contract");
}
