//! Compiles `unimse/v1/*.proto` without protoc: Rust into `OUT_DIR`, and the descriptor set that reflection serves.

use std::error::Error;
use std::path::PathBuf;

use protox::prost::Message;

const FILES: [&str; 3] = ["unimse/v1/common.proto", "unimse/v1/coordinator.proto", "unimse/v1/worker.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=unimse");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Maps in order, so that the same message is always the same bytes.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
