//! Embeds the client bundles that `make` has fetched into `assets/node_modules`.

use std::{env, fmt::Write, fs, path::Path};

/// The constant, the package (an npm alias) and the files of each generation.
const GENERATIONS: [(&str, &str); 4] =
    [("ONE", "client-1"), ("TWO", "client-2"), ("THREE", "client-3"), ("FOUR", "client-4")];

const FILES: [&str; 4] =
    ["socket.io.js", "socket.io.js.map", "socket.io.min.js", "socket.io.min.js.map"];

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let assets = Path::new(&root).join("assets");
    println!("cargo::rerun-if-changed=build.rs");
    // Where nothing was fetched yet, the nearest folder that exists is watched for it: cargo
    // runs a build script on every build whose watched path is missing.
    let mut out = String::new();
    for (constant, package) in GENERATIONS {
        let dist = assets.join("node_modules").join(package).join("dist");
        let watched = dist.ancestors().find(|path| path.exists()).expect("the root exists");
        if watched.starts_with(&assets) {
            println!("cargo::rerun-if-changed={}", watched.display());
        } else {
            println!("cargo::rerun-if-changed={root}/Cargo.toml");
        }
        writeln!(out, "const {constant}: &[File] = &[").expect("a String takes everything");
        for file in FILES {
            // 2.x has one bundle, minified already.
            let path = [file, &file.replace(".min", "")].map(|file| dist.join(file));
            if let Some(path) = path.iter().find(|path| path.is_file()) {
                writeln!(out, "    ({file:?}, include_bytes!({path:?})),")
                    .expect("a String takes everything");
            }
        }
        out.push_str("];\n");
    }
    let target = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&target).join("bundle.rs"), out).expect("the output folder is writable");
}
