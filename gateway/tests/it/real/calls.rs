//! Calls: jobs for a worker in Python, and edits for the built-in one.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    boards::{ANN, BOB, EVE},
    cluster::Cluster,
    node::{Clients, spec},
    program::{Program, python, tests},
    until,
};

/// A worker that uses nothing but redis-py and the contract.
struct Worker {
    program: Program,
    _folder: TempDir,
}

impl Worker {
    async fn start(cluster: &Cluster, queue: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = Command::new(python());
        command.arg(tests("py/worker.py")).arg(cluster.shard(queue).url()).arg(queue).args(options);
        let program = Program::start("worker.py", folder.path(), &mut command);
        let mut worker = Self { program, _folder: folder };
        until("the worker is ready", async || {
            let ended = worker.program.ended();
            assert!(ended.is_none(), "worker.py ended: {ended:?}");
            worker.said("ready").first().map(drop).ok_or_else(|| "it is not".to_owned())
        })
        .await;
        worker
    }

    /// What it has said that has this key.
    fn said(&self, key: &str) -> Vec<Value> {
        let log = self.program.log();
        let said = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        said.filter(|said| said.get(key).is_some()).collect()
    }
}

async fn open(cluster: &Cluster) -> Clients {
    let mut specs = Vec::new();
    for (at, user) in [ANN, BOB, EVE].iter().enumerate() {
        let cookie = cluster.session(user.id, user.teams).await;
        let (version, transport) =
            [("4.8", "websocket"), ("2.5.0", "polling"), ("2.5.0", "websocket")][at];
        specs.push(spec(version, transport, &cluster.gateways[at % 2].url(), &cookie));
    }
    let clients = Clients::start(specs);
    clients.ready().await;
    clients
}

const CLIENT_OF_ANN: usize = 0;
const CLIENT_OF_BOB: usize = 1;

#[tokio::test]
async fn a_call_becomes_a_job_and_its_result_the_answer() {
    let cluster = Cluster::start().await;
    let mut clients = open(&cluster).await;
    let worker = Worker::start(&cluster, "shipTask", &["--delay", "0.4"]).await;
    let feed = "team.red.members.ann.tasks";

    // Who calls is told by the session and by nothing else.
    let forged = json!({ "feed": feed, "id": "1", "title": "T 📦", "user": "eve", "teams": ["x"] });
    let answer = clients.call(CLIENT_OF_ANN, "shipTask", forged).await;
    assert_eq!(answer, json!({ "code": 200, "result": { "shipped": "1", "by": "ann" } }));
    let answer = clients.call(CLIENT_OF_BOB, "shipTask", json!({ "feed": feed, "id": "2" })).await;
    assert_eq!(answer, json!({ "code": 200, "result": { "shipped": "2", "by": "bob" } }));
    let jobs = worker.said("job");
    let job = json!({ "feed": feed, "id": "1", "title": "T 📦", "user": "ann", "teams": ["red"] });
    assert_eq!(jobs[0]["job"], job);
    assert_eq!(jobs[1]["job"]["teams"], json!(["blue", "red"]));

    // The same key twice is one job, and both are answered.
    let keyed = json!({ "feed": feed, "id": "3", "_key": "once" });
    let one = clients.ask(CLIENT_OF_ANN, "shipTask", keyed.clone()).await;
    let two = clients.ask(CLIENT_OF_ANN, "shipTask", keyed.clone()).await;
    let expected = json!({ "code": 200, "result": { "shipped": "3", "by": "ann" } });
    assert_eq!(clients.answer(CLIENT_OF_ANN, one).await, expected);
    assert_eq!(clients.answer(CLIENT_OF_ANN, two).await, expected);
    // Another's same key is another job.
    let answer = clients.call(CLIENT_OF_BOB, "shipTask", keyed).await;
    assert_eq!(answer["result"]["by"], "bob");
    assert_eq!(worker.said("job").len(), 4);

    // What cannot be a job is refused before any worker hears of it.
    let answer = clients.call(CLIENT_OF_BOB, "shipTask", json!({ "feed": "", "more": 1 })).await;
    assert_eq!(answer["code"], 400);
    let errors = answer["errors"].as_array().expect("errors are a list");
    assert_eq!(errors.len(), 3, "{answer}");
    assert!(answer["error"].is_string(), "{answer}");
    for (name, argument, code) in [
        ("shipTask", Value::Null, 400),
        ("shipTask", json!("text"), 400),
        ("shipTask", json!({ "feed": feed, "id": "1", "_key": "" }), 400),
        ("unheardOf", json!({}), 404),
        ("subscribe", json!({ "feed": "team.blue.chat" }), 403),
        ("subscribe", json!({ "feed": 7 }), 400),
        ("resume", json!({ "feeds": {} }), 409),
    ] {
        let answer = clients.call(CLIENT_OF_ANN, name, argument.clone()).await;
        assert_eq!(answer["code"], code, "{name} {argument}: {answer}");
        assert!(answer["error"].is_string(), "{answer}");
    }
    assert_eq!(worker.said("job").len(), 4);
    for client in 0..clients.len() {
        assert_eq!(clients.count(client, "connect"), 1);
    }
}

#[tokio::test]
async fn a_job_that_does_not_end_in_time_is_answered_with_its_state() {
    let cluster = Cluster::start().await;
    let mut clients = open(&cluster).await;
    let keyed = json!({ "n": 1, "_key": "k" });
    let answer = clients.call(CLIENT_OF_ANN, "slowTask", keyed.clone()).await;
    assert_eq!((&answer["code"], &answer["state"]), (&json!(504), &json!("queued")), "{answer}");
    let job = answer["job"].as_str().expect("a job has an id").to_owned();

    let worker = Worker::start(&cluster, "slowTask", &["--hold"]).await;
    let answer = clients.call(CLIENT_OF_ANN, "slowTask", keyed).await;
    assert_eq!((&answer["code"], &answer["state"]), (&json!(504), &json!("claimed")), "{answer}");
    assert_eq!(answer["job"], *job, "the same key is the same job");
    drop(worker);

    // A worker that says nothing, and one that answers by itself.
    let worker = Worker::start(&cluster, "slowTask", &["--no-result"]).await;
    let answer = clients.call(CLIENT_OF_BOB, "slowTask", json!({})).await;
    assert_eq!(answer["code"], 202, "{answer}");
    assert!(answer["job"].is_string(), "{answer}");
    drop(worker);
    let own = r#"{"code": 418, "error": "I am a teapot", "n": 1}"#;
    let _worker = Worker::start(&cluster, "slowTask", &["--result", own]).await;
    let answer = clients.call(CLIENT_OF_BOB, "slowTask", json!({})).await;
    assert_eq!(answer, serde_json::from_str::<Value>(own).expect("it is JSON"));
}

#[tokio::test]
async fn too_many_calls_are_told_when_to_come_again() {
    let cluster = Cluster::start().await;
    let mut clients = open(&cluster).await;
    // A queue that is full: nobody works on it, and two may wait.
    for (client, code) in [(CLIENT_OF_ANN, 504), (CLIENT_OF_BOB, 504), (CLIENT_OF_ANN, 503)] {
        let answer = clients.call(client, "fewTasks", json!({})).await;
        assert_eq!(answer["code"], code, "{answer}");
        assert_eq!(answer["retry_after"].is_number(), code == 503, "{answer}");
    }
    // A client that asks and asks: 64 calls are open, the next is refused at once.
    let mut calls = Vec::new();
    for n in 0..65 {
        calls.push(clients.ask(CLIENT_OF_ANN, "slowTask", json!({ "n": n })).await);
    }
    let mut codes = Vec::new();
    for call in calls {
        let answer = clients.answer(CLIENT_OF_ANN, call).await;
        assert_eq!(answer["retry_after"].is_number(), answer["code"] == 429, "{answer}");
        codes.push(answer["code"].clone());
    }
    assert_eq!(codes.iter().filter(|code| **code == 504).count(), 64, "{codes:?}");
    assert_eq!(codes[64], 429, "{codes:?}");
    // It is not held against it afterwards.
    let answer = clients.call(CLIENT_OF_ANN, "slowTask", json!({})).await;
    assert_eq!(answer["code"], 504, "{answer}");
}

#[tokio::test]
async fn edits_are_carried_out_by_the_worker_under_the_rules() {
    let cluster = Cluster::start().await;
    cluster.seed().await;
    let mut clients = open(&cluster).await;
    let tasks = "team.red.members.ann.tasks";

    let new = json!({ "feed": tasks, "item": { "title": "mine", "done": false } });
    let answer = clients.call(CLIENT_OF_ANN, "add", new).await;
    assert_eq!(answer["code"], 200, "{answer}");
    let id = answer["id"].as_str().expect("an id is a text").to_owned();
    let fits = |argument: &Value| argument["feed"] == tasks && argument["id"] == *id;
    let heard = clients.hears_event(CLIENT_OF_BOB, "publish", fits).await;
    assert_eq!(heard["item"], json!({ "title": "mine", "done": false }));

    let set = json!({ "feed": tasks, "id": id, "change": { "done": true } });
    assert_eq!(clients.call(CLIENT_OF_BOB, "set", set).await, json!({ "code": 200 }));
    let heard = clients.hears_event(CLIENT_OF_ANN, "change", fits).await;
    assert_eq!(heard["item"], json!({ "title": "mine", "done": true }));

    let to = json!({ "feed": tasks, "id": id, "position": "begin:" });
    assert_eq!(clients.call(CLIENT_OF_BOB, "move", to).await, json!({ "code": 200 }));
    let heard = clients.hears_event(CLIENT_OF_ANN, "position", fits).await;
    assert_eq!(heard["position"], "begin:");
    let at = json!({ "feed": tasks, "item": { "title": "next" }, "position": format!("{id}:") });
    let next = clients.call(CLIENT_OF_BOB, "add", at).await;
    assert_eq!(next["code"], 200, "{next}");

    // One after the other, whatever their number: the last one wins.
    let mut last = 0;
    for n in 0..20 {
        let set = json!({ "feed": tasks, "id": id, "change": { "title": format!("{n}") } });
        last = clients.ask(CLIENT_OF_ANN, "set", set).await;
    }
    assert_eq!(clients.answer(CLIENT_OF_ANN, last).await["code"], 200);
    let is_last = |argument: &Value| fits(argument) && argument["item"]["title"] == "19";
    clients.hears_event(CLIENT_OF_BOB, "change", is_last).await;

    let blue = "team.blue.members.eve.tasks";
    for (client, name, argument, code) in [
        (
            CLIENT_OF_ANN,
            "set",
            json!({ "feed": tasks, "id": id, "change": { "n": 1, "id": 2, "done": 3 } }),
            400,
        ),
        (CLIENT_OF_ANN, "add", json!({ "feed": tasks, "item": { "owner": "ann" } }), 400),
        (
            CLIENT_OF_ANN,
            "set",
            json!({ "feed": tasks, "id": "none", "change": { "done": true } }),
            404,
        ),
        (CLIENT_OF_ANN, "delete", json!({ "feed": tasks, "id": "none" }), 404),
        (CLIENT_OF_ANN, "move", json!({ "feed": tasks, "id": "none", "position": "begin:" }), 404),
        (CLIENT_OF_ANN, "move", json!({ "feed": tasks, "id": id, "position": "none:" }), 409),
        (
            CLIENT_OF_ANN,
            "move",
            json!({ "feed": tasks, "id": id, "position": format!("{id}:") }),
            409,
        ),
        (CLIENT_OF_ANN, "add", json!({ "feed": tasks, "item": {}, "position": ":none" }), 409),
        (CLIENT_OF_ANN, "move", json!({ "feed": tasks, "id": id, "position": "up" }), 400),
        (CLIENT_OF_ANN, "set", json!({ "feed": blue, "id": "1", "change": { "done": true } }), 403),
        (CLIENT_OF_ANN, "set", json!({ "feed": "no.such.feed", "id": "1", "change": {} }), 403),
        (CLIENT_OF_ANN, "add", json!({ "feed": "user.eve.notes", "item": { "text": "" } }), 403),
        (CLIENT_OF_ANN, "add", json!({ "feed": "team.red.members", "item": { "name": "x" } }), 403),
        (CLIENT_OF_BOB, "delete", json!({ "feed": tasks, "id": id }), 403),
        (CLIENT_OF_ANN, "set", json!({ "feed": tasks, "id": id }), 400),
    ] {
        let answer = clients.call(client, name, argument.clone()).await;
        assert_eq!(answer["code"], code, "{name} {argument}: {answer}");
        assert!(answer["error"].is_string(), "{answer}");
    }
    // Refused by name, and nothing was applied.
    let change = json!({ "feed": tasks, "id": id, "change": { "n": 1, "id": 2, "done": 3 } });
    let answer = clients.call(CLIENT_OF_ANN, "set", change).await;
    let errors = answer["errors"].to_string();
    assert!(errors.contains("`n`") && errors.contains("`id`"), "{answer}");
    let item = cluster.shard(tasks).text(&["HGET", &format!("feed.items:{tasks}"), &id]).await;
    let item: Value = serde_json::from_str(&item.text()).expect("it is JSON");
    assert_eq!(item, json!({ "title": "19", "done": true }));

    // What nobody named keeps its text.
    let price = r#"{"title":"p","price": 1.50e1}"#;
    let shard = cluster.shard(tasks);
    shard.text(&["HSET", &format!("feed.items:{tasks}"), &id, price]).await;
    let set = json!({ "feed": tasks, "id": id, "change": { "title": "q" } });
    assert_eq!(clients.call(CLIENT_OF_ANN, "set", set).await["code"], 200);
    let item = shard.text(&["HGET", &format!("feed.items:{tasks}"), &id]).await.text();
    assert!(item.contains("1.50e1"), "{item}");

    let gone = json!({ "feed": tasks, "id": id });
    assert_eq!(clients.call(CLIENT_OF_ANN, "delete", gone).await, json!({ "code": 200 }));
    clients.hears_event(CLIENT_OF_BOB, "retract", fits).await;
    let note = json!({ "feed": "user.ann.notes", "item": { "text": "mine" } });
    assert_eq!(clients.call(CLIENT_OF_ANN, "add", note).await["code"], 200);
    cluster.settled(&mut clients, &[ANN, BOB, EVE]).await;
}
