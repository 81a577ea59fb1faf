//! The migrations are part of this crate: a changed one must be compiled in.
fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
