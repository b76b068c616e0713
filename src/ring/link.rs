//! Build script of what starts executors: rings are made as `setup.rs` has it.

fn main() {
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
}
