//! Generated messages and services. The documentation is in the .proto files; byte fields are `Bytes`, decoded
//! without a copy. Their codec is in `codec.rs`.

#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]

mod codec;

/// The native API.
pub mod v1 {
    tonic::include_proto!("trefoil.v1");
}

/// What nodes say to each other.
pub mod peer {
    tonic::include_proto!("trefoil.peer.v1");
}

/// The part of etcd's v3 contract that is used here. Its packages refer to each other as they stand here.
pub mod etcd {
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }

    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
}

/// The compiled files of our own packages, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
