//! The Raft library's own storage suite, on both engines.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use trefoil_causality::ReplicaId;
use trefoil_placement::{Mode, PartitionId};
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
use crate::writer::{MarkKept, MarkSlots, Writer};

/// Closes the database itself, when the writer's thread has let go of it: neither the folder nor the process may end
/// while a database is closing.
struct Closing {
    engine: Arc<dyn Engine>,
    _folder: Option<TempDir>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        let until = trefoil_world::clock::now() + Duration::from_secs(10);
        while Arc::strong_count(&self.engine) > 1 && trefoil_world::clock::now() < until {
            std::thread::yield_now();
        }
    }
}

enum Kind {
    Memory,
    Rocks,
}

impl StoreBuilder<Group, LogStore, StateMachine, Closing> for Kind {
    async fn build(&self) -> Result<(Closing, LogStore, StateMachine), StorageError<Group>> {
        let (engine, folder): (Arc<dyn Engine>, _) = match self {
            Kind::Memory => (Arc::new(MemoryEngine::new()), None),
            Kind::Rocks => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                (Arc::new(RocksEngine::open(folder.path()).expect("a fresh database")), Some(folder))
            }
        };
        let closing = Closing { engine: engine.clone(), _folder: folder };
        let mark = MarkSlots::open(MarkKept::Memory(Arc::new(std::sync::Mutex::new([0; FILE_BYTES]))), 1);
        let writer = Writer::start(engine.clone(), mark.expect("memory is read"), 0, Arc::new(|why| panic!("{why}")))
            .expect("a writer");
        let stores = Stores::open(engine.clone(), writer.clone(), &BTreeSet::new()).expect("stores");
        let log = LogStore::open(ReplicaId(1), engine.clone(), writer.clone()).expect("a log");
        let record = ReplicaRecord { partition: PartitionId::DEFAULT, store: StoreNumber(1), mode: Mode::Leader };
        let state = StateMachine::open(ReplicaId(1), record, engine, writer, Arc::new(stores)).expect("a state");
        Ok((closing, log, state))
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
