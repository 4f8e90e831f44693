//! Run paths: where the loader finds libtorch, in each way in which the program is installed.

use std::env;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    // pip, conda, venv and `pip --user`: <prefix>/bin beside <prefix>/lib/pythonX.Y/site-packages.
    for minor in 10..=14 {
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/python3.{minor}/site-packages/torch/lib");
    }
    // Release archives.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/unimse/libtorch/lib");
    // A checkout: what LIBTORCH named when it was built.
    if let Ok(libtorch) = env::var("LIBTORCH") {
        let lib = std::path::Path::new(&libtorch).join("lib");
        let lib = lib.canonicalize().unwrap_or(lib);
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
