//! Compiles the .proto files without protoc.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=trefoil");
    println!("cargo:rerun-if-changed=etcd");
    let files = ["trefoil/v1/kv.proto", "trefoil/v1/cluster.proto", "trefoil/peer/v1/peer.proto"];
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Reflection tells what a node serves, and etcd's services are not among that.
    let etcd = protox::compile(["etcd/mvccpb.proto", "etcd/etcdserverpb.proto"], ["."])?;
    for descriptors in [descriptors, etcd] {
        tonic_prost_build::configure().bytes(".").codec_path("crate::codec::SmallBuffers").compile_fds(descriptors)?;
    }
    Ok(())
}
