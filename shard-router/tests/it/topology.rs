//! A router that goes over to another topology while it is used.

use std::{collections::HashMap, sync::Arc, time::Duration};

use shard_router::{
    router::Router,
    shard::{Shard, Value, memory::MemoryShard},
    topology::{ShardSpec, ShardUrl, Topology},
    worker::Worker,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(10);

/// Shards in memory, found by their names.
#[derive(Clone)]
struct World(Arc<HashMap<&'static str, MemoryShard>>);

impl World {
    fn new() -> Self {
        Self(Arc::new(["a", "b", "c"].map(|name| (name, MemoryShard::new(name))).into()))
    }

    fn router(&self, names: &[&str]) -> Router {
        let world = self.clone();
        let open = move |spec: &ShardSpec| -> Arc<dyn Shard> {
            Arc::new(world.0[spec.name.as_str()].clone())
        };
        Router::open_with(topology(1, names), open)
    }

    fn has(&self, shard: &str, key: &str) -> bool {
        self.0[shard].raw(&["EXISTS", key]).unwrap() == Value::Int(1)
    }
}

fn topology(version: u64, names: &[&str]) -> Topology {
    let spec =
        |name: &&str| ShardSpec { name: (*name).to_owned(), url: ShardUrl::Memory, weight: 1 };
    Topology::new(version, names.iter().map(spec).collect()).unwrap()
}

/// Finds a name that goes from `a` to `c` where `c` is added.
fn moving(world: &World) -> String {
    let (old, new) = (world.router(&["a", "b"]), world.router(&["a", "b", "c"]));
    let names = (0..).map(|number| format!("feed.{number}"));
    names.into_iter().find(|name| (old.owner(name), new.owner(name)) == (0, 2)).unwrap()
}

#[tokio::test]
async fn verbs_go_to_the_owner_of_the_day() {
    let world = World::new();
    let feed = moving(&world);
    let key = format!("feed.items:{feed}");
    let router = world.router(&["a", "b"]);
    assert_eq!(router.topology().unwrap().version, 1);
    let mut changes = router.changes();
    let pinned = router.pinned();
    router.publish(&feed, Some("1"), "one").await.unwrap();

    let adopted = router.adopt(topology(2, &["c", "b", "a"]));
    assert_eq!((&*adopted.opened, &*adopted.closed), (&[2][..], &[][..]));
    changes.changed().await.unwrap();
    assert_eq!(*changes.borrow(), 2);
    assert_eq!(router.topology().unwrap().version, 2);
    assert!(router.all(&feed).await.unwrap().entries.is_empty(), "nothing moves by itself");
    router.publish(&feed, Some("2"), "two").await.unwrap();
    assert!(world.has("a", &key) && world.has("c", &key));
    assert_eq!(pinned.ids(&feed).await.unwrap(), ["1"]);

    let adopted = router.adopt(topology(3, &["b", "c"]));
    assert_eq!((&*adopted.opened, &*adopted.closed), (&[][..], &[0][..]));
    assert_eq!(router.ids(&feed).await.unwrap(), ["2"]);
    assert!(router.mark(0, "mark", "x").await.unwrap_err().is_away());
    let indexes: Vec<usize> = router.shards().into_iter().map(|(index, _)| index).collect();
    assert_eq!(indexes, [1, 2]);
    assert_eq!(pinned.ids(&feed).await.unwrap(), ["1"]);
}

#[tokio::test]
async fn a_worker_follows_its_queue_and_finishes_where_it_claimed() {
    let world = World::new();
    let queue = moving(&world);
    let router = Arc::new(world.router(&["a", "b"]));
    let (begun, mut begins) = mpsc::channel(8);
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = release.clone();
    let worker = Worker::new(router.clone(), queue.clone(), move |job| {
        let (begun, gate) = (begun.clone(), gate.clone());
        Box::pin(async move {
            begun.send(job.id.clone()).await.unwrap();
            gate.acquire().await.unwrap().forget();
            job.id.into_bytes()
        })
    });
    let stop = CancellationToken::new();
    let works = tokio::spawn(worker.concurrency(2).run(stop.clone()));
    let before = router.pinned();
    before.job_put(&queue, "old", "{}", false, 10).await.unwrap();
    assert_eq!(begins.recv().await.as_deref(), Some("old"));

    router.adopt(topology(2, &["a", "b", "c"]));
    router.job_put(&queue, "new", "{}", false, 10).await.unwrap();
    let next = tokio::time::timeout(PATIENCE, begins.recv()).await.unwrap();
    assert_eq!(next.as_deref(), Some("new"));

    release.add_permits(2);
    stop.cancel();
    works.await.unwrap().unwrap();
    for shard in ["a", "c"] {
        let published = format!("feed.finishes:{queue}");
        assert!(world.has(shard, &published), "the job of {shard} is finished there");
        assert!(!world.has(shard, &format!("feed.claimed:{queue}")), "{shard}");
    }
}
