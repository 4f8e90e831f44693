//! Compiles the C++ shim against the libtorch that tch links, and tells tests where that libtorch is.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=cpp");
    let libtorch = std::env::var_os("LIBTORCH").map(PathBuf::from);
    let Some(libtorch) = libtorch.filter(|path| path.join("include/ATen/ATen.h").is_file()) else {
        panic!(
            "LIBTORCH names no libtorch 2.11 with headers; run `cargo xtask setup`, which installs it and links it as .libtorch"
        );
    };
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .files(
            ["shim", "rows", "kernels", "sublayers", "accumulate", "losses", "recompute", "profile", "streams"]
                .map(|name| format!("cpp/{name}.cpp")),
        )
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // The headers of libtorch are not free of warnings, and they are not ours.
        .flag("-w")
        // Loops over tensors become vector instructions; `omp simd` says which sums may be reordered for that.
        .flag("-fopenmp-simd")
        .flag("-fno-math-errno")
        .opt_level(3)
        .compile("unimse_torch_ext");
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libtorch.join("lib").display());
}
