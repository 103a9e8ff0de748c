//! Generates the API's types with protox, so that no `protoc` has to be installed.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("../../proto");
    let files = ["common", "topics", "produce", "fetch", "node", "transactions", "groups"]
        .map(|name| format!("logmill/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=../../proto");

    let descriptors = protox::compile(files, [root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    #[expect(clippy::disallowed_methods, reason = "a build product: cargo makes it again if it is lost")]
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;

    tonic_prost_build::configure()
        .build_client(cfg!(feature = "client"))
        .build_server(cfg!(feature = "server"))
        .build_transport(false)
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
