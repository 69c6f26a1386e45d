//! What every shard promises, seen through the router: the same cases run against the
//! shard in memory and against a real Redis.

mod bench;
mod feeds;
mod interop;
mod jobs;
mod links;
mod reads;
mod versions;

/// Runs each case twice, once for each kind of shard.
macro_rules! promises {
    ($($case:ident)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&mut $crate::contract::bench::Bench::memory()).await;
            })*
        }
        mod redis {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&mut $crate::contract::bench::Bench::redis().await).await;
            })*
        }
    };
}
use promises;
