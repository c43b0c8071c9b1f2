//! Makes a new or changed migration rebuild this crate, which embeds them all.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
