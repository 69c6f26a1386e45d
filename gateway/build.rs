//! Embeds the client bundles that `make` has fetched into `assets/node_modules`, and
//! `capsule.js`: each file as it is, compressed, and with its entity tag.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

/// The constant and the package (an npm alias) of each generation.
const GENERATIONS: [(&str, &str); 5] = [
    ("ZERO", "client-0"),
    ("ONE", "client-1"),
    ("TWO", "client-2"),
    ("THREE", "client-3"),
    ("FOUR", "client-4"),
];

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let target = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let assets = root.join("assets");
    println!("cargo::rerun-if-changed=build.rs");
    let mut out = String::new();
    for (constant, package) in GENERATIONS {
        let folder = assets.join("node_modules").join(package);
        watch(&folder, &root);
        let version = version(&folder).unwrap_or_default();
        let files = bundle(&folder.join("dist"), &target.join(package));
        writeln!(
            out,
            "const {constant}: Bundle = Bundle {{ version: {version:?}, files: &[{files}] }};"
        )
        .expect("a String takes everything");
    }
    let capsule = assets.join("capsule.js");
    println!("cargo::rerun-if-changed={}", capsule.display());
    let capsule = file("capsule.js", &capsule, &target);
    writeln!(out, "const CAPSULE: File = {capsule};").expect("a String takes everything");
    fs::write(target.join("bundle.rs"), out).expect("the output folder is writable");
}

/// Has cargo look at a folder.
///
/// Where nothing was fetched yet, the nearest folder that exists is watched for it: cargo runs
/// a build script on every build whose watched path is missing.
fn watch(folder: &Path, root: &Path) {
    let near = folder.ancestors().find(|path| path.exists()).expect("the root exists");
    let is_inside = near.starts_with(root.join("assets"));
    let watched = if is_inside { near.to_owned() } else { root.join("Cargo.toml") };
    println!("cargo::rerun-if-changed={}", watched.display());
}

/// The version that a package says it has.
fn version(package: &Path) -> Option<String> {
    let text = fs::read_to_string(package.join("package.json")).ok()?;
    let package: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(package["version"].as_str()?.to_owned())
}

/// Writes the `File` of each script and source map in a folder, by name.
fn bundle(dist: &Path, target: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(dist)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_served(name))
        .collect();
    names.sort();
    fs::create_dir_all(target).expect("the output folder is writable");
    names.iter().map(|name| format!("{}, ", file(name, &dist.join(name), target))).collect()
}

/// Whether a file of a package is for browsers, and for this server: the scripts with msgpack
/// in their names encode packets in a way that it does not speak.
fn is_served(name: &str) -> bool {
    let is_script = name.ends_with(".js") || name.ends_with(".js.map");
    name.starts_with("socket.io.") && is_script && !name.contains("msgpack")
}

fn file(name: &str, path: &Path, target: &Path) -> String {
    let plain = fs::read(path).expect("a file that was listed can be read");
    let mut tag = String::new();
    for byte in &Sha256::digest(&plain)[..12] {
        write!(tag, "{byte:02x}").expect("a String takes everything");
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&plain).expect("a Vec takes everything");
    let gzip = target.join(format!("{name}.gz"));
    fs::write(&gzip, encoder.finish().expect("a Vec takes everything"))
        .expect("the output folder is writable");
    format!(
        "File {{ name: {name:?}, tag: {tag:?}, plain: include_bytes!({path:?}), \
         gzip: include_bytes!({gzip:?}) }}"
    )
}
