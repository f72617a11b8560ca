//! Compiles the protocol with protox, so that a build needs no `protoc`.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 4] = [
    "muster/v1/agent.proto",
    "muster/v1/enrollment.proto",
    "muster/v1/operator.proto",
    "muster/v1/sample.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("muster.v1.binpb"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // The crates that connect bring their own transport; this one needs none.
        .build_transport(false)
        .codec_path("crate::codec::SmallCodec")
        .skip_debug([
            "muster.v1.Assignment",
            "muster.v1.AwsStsEvidence",
            "muster.v1.JoinTokenEvidence",
        ])
        .compile_fds(descriptors)?;
    Ok(())
}
