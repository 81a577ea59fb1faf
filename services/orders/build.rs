//! Compiles the gRPC contract of users without protoc: the client, and a server for tests.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../users/proto");
    let files = protox::compile(["users/v1/users.proto"], ["../users/proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
