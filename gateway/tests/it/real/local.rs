//! `deploy/local`: what `up` starts, a client can use, and `down` ends all of it.

use std::{
    path::Path,
    process::{Command, Output},
};

use super::{
    node::{Clients, spec},
    program::root,
};

/// A cluster of the script's own; taken down on drop.
struct Local {
    folder: tempfile::TempDir,
    base: u16,
}

impl Local {
    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        Command::new(root().join("deploy/local").join(script))
            .args(arguments)
            .env("PNEUMATIC_LOCAL", self.folder.path())
            .env("PORT_BASE", self.base.to_string())
            .env("GATEWAY_BIN", env!("CARGO_BIN_EXE_gateway"))
            .output()
            .unwrap_or_else(|error| panic!("deploy/local/{script}: {error}"))
    }

    /// The processes that it started and that live.
    fn living(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path().join("run")).expect("it keeps their ids");
        let ids = files.map(|file| std::fs::read_to_string(file.expect("is listed").path()));
        let ids = ids.map(|text| text.expect("is text").lines().next().map(str::to_owned));
        ids.flatten().filter(|id| is_living(id)).collect()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.run("down", &["--wipe"]);
    }
}

fn is_living(id: &str) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(id).join("stat"));
    status.is_ok_and(|stat| !stat.contains(") Z "))
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_local_cluster_comes_up_with_its_teams_and_goes_down_again() {
    let (local, told) = (0..5)
        .find_map(|_| {
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            // All ports that it adds to it are below those that the system gives away.
            let local = Local { folder, base: rand::random_range(21_000..27_000) };
            let up = local.run("up", &[]);
            let told = said(&up);
            assert!(up.status.success() || told.contains("is taken"), "{told}");
            up.status.success().then_some((local, told))
        })
        .expect("there are free ports");
    let cookie_of = |user: &str| {
        let line = told.lines().find(|line| line.starts_with(&format!("{user}, ")));
        let cookie = line.and_then(|line| line.split_whitespace().last());
        cookie.unwrap_or_else(|| panic!("no cookie of {user} in\n{told}")).to_owned()
    };
    let front = format!("http://127.0.0.1:{}", local.base);
    let clients = Clients::start(vec![
        spec("4.8", "websocket", &front, &cookie_of("ann")),
        spec("2.5.0", "polling", &front, &cookie_of("bob")),
    ]);
    for (client, team, count) in [(0, "andyet", 8), (1, "big", 40)] {
        let initial = clients.hears_event(client, "initial", |_| true).await;
        let model = &initial["collections"]["teams"]["models"][0];
        assert_eq!(model["id"], team);
        let members = model["collections"]["members"]["models"].as_array();
        let members = members.expect("models are a list");
        assert_eq!(members.len(), count);
        for member in members {
            assert!(member["collections"]["tasks"]["v"].is_string(), "{member}");
        }
    }
    let again = local.run("up", &[]);
    assert!(!again.status.success() && said(&again).contains("runs already"), "{}", said(&again));

    let started = local.living();
    assert_eq!(started.len(), 7, "three shards, two gateways, a worker, HAProxy");
    let down = local.run("down", &[]);
    assert!(down.status.success(), "{}", said(&down));
    let left: Vec<_> = started.iter().filter(|id| is_living(id)).collect();
    assert!(left.is_empty(), "{left:?} still run: {}", said(&down));
    let down = local.run("down", &[]);
    assert!(down.status.success() && said(&down).contains("Nothing runs"), "{}", said(&down));
}
