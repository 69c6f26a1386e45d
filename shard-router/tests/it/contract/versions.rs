//! Versions over random histories: equal where content is equal, and nowhere else.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use sha1::{Digest, Sha1};
use shard_router::{
    feed::{Content, Kind},
    shard::{Script, Value},
};

use super::bench::Bench;

super::promises! {
    a_version_is_equal_if_and_only_if_the_content_is
}

/// How many steps each history has; each makes a content.
const STEPS: usize = 4_000;

/// One command, as another client would say it.
static SAY: Script = Script::new("say", "return redis.call(unpack(ARGV))");

/// The version as the protocol's description has it, as plainly as it can be written.
/// KEYS: ids items.
static PLAIN: Script = Script::new(
    "plain",
    r"
    local function is_text(id)
      -- Well-formed sequences become one letter each, so that none is made anew.
      for _, well_formed in ipairs {
        '[\194-\223][\128-\191]',
        '\224[\160-\191][\128-\191]', '[\225-\236\238\239][\128-\191][\128-\191]',
        '\237[\128-\159][\128-\191]',
        '\240[\144-\191][\128-\191][\128-\191]', '\244[\128-\143][\128-\191][\128-\191]',
        '[\241-\243][\128-\191][\128-\191][\128-\191]',
      } do
        id = string.gsub(id, well_formed, 'x')
      end
      return not string.find(id, '[%z\128-\255]')
    end

    local sorted = redis.call('TYPE', KEYS[1]).ok == 'list'
    local ids = redis.call(sorted and 'LRANGE' or 'ZRANGE', KEYS[1], 0, -1)
    local words, previous, counted = {0, 0, 0}, '', {}
    for _, id in ipairs(ids) do
      local item = redis.call('HGET', KEYS[2], id)
      if item and is_text(id) and not counted[id] then
        counted[id] = true
        local digest = redis.sha1hex(previous .. '\0' .. id .. '\0' .. item)
        for word = 1, 3 do
          local part = '0x' .. string.sub(digest, word * 8 - 7, word * 8)
          words[word] = (words[word] + part) % 2 ^ 32
        end
        if sorted then previous = id end
      end
    end
    return string.format('%08x%08x%08x', words[1], words[2], words[3])
    ",
);

const IDS: &[&[u8]] = &[
    b"",
    b"1",
    b"2",
    b"10",
    b"a",
    b"begin",
    b"x:y",
    "é".as_bytes(),
    "😀".as_bytes(),
    b"nul\0in",
    b"\xff",
    b"a\xc3",
    b"\xed\xa0\x80",
];

const ITEMS: &[&[u8]] = &[b"", b"\0", b"1\0", b"a", b"{\"id\":\"1\"}", b"\xff\xfe", b"\0a\0"];

/// The version as the protocol's description has it, of what a read found.
pub(super) fn version(content: &Content) -> String {
    let mut sums = [0_u32; 3];
    let mut before = "";
    for (id, item) in &content.entries {
        let digest = Sha1::digest([before.as_bytes(), b"\0", id.as_bytes(), b"\0", item].concat());
        for (sum, word) in sums.iter_mut().zip(digest.chunks(4)) {
            *sum = sum.wrapping_add(u32::from_be_bytes(word.try_into().unwrap()));
        }
        if content.kind == Kind::Sorted {
            before = id;
        }
    }
    sums.map(|sum| format!("{sum:08x}")).concat()
}

async fn a_version_is_equal_if_and_only_if_the_content_is(bench: &mut Bench) {
    let mut rng = SmallRng::seed_from_u64(7);
    let feeds = ["plain", "sorted"].map(str::to_owned);
    let mut contents: HashMap<String, BTreeMap<_, _>> = HashMap::new();
    let mut versions = HashMap::new();
    for step in 0..STEPS {
        for feed in &feeds {
            let words = command(&mut rng, feed);
            bench.shard.eval(&SAY, Vec::new(), words).await.unwrap();
        }
        let checked = bench.verify(0, &feeds, "", "").await.unwrap();
        for (feed, checked) in feeds.iter().zip(checked) {
            let checked = checked.unwrap();
            let content = bench.all(feed).await.unwrap();
            let keys = ["ids", "items"].map(|key| Bytes::from(format!("feed.{key}:{feed}")));
            let plain = bench.shard.eval(&PLAIN, keys.into(), Vec::new()).await.unwrap();
            assert_eq!(checked.kind, content.kind, "{feed} after {step} steps");
            assert_eq!(checked.version, version(&content), "{feed} after {step} steps");
            let plain_is_alike = plain == Value::Bytes(checked.version.clone().into());
            assert!(plain_is_alike, "{feed} after {step} steps: {plain:?}, {checked:?}");

            // Content is what a version covers: a plain feed's order is not.
            let mut covered = content.entries;
            if feed == "plain" {
                covered.sort_unstable();
            }
            let known = contents.entry(feed.clone()).or_default();
            let first = known.entry(covered.clone()).or_insert_with(|| checked.version.clone());
            assert_eq!(*first, checked.version, "{feed}: one content, two versions");
            let of =
                versions.entry((feed.clone(), checked.version)).or_insert_with(|| covered.clone());
            assert_eq!(*of, covered, "{feed}: one version, two contents");
        }
    }
    for (feed, contents) in &contents {
        // Else the history would show little: neither many contents nor one that came again.
        assert!((STEPS / 5..STEPS).contains(&contents.len()), "{feed}: {}", contents.len());
    }
}

/// Makes something that any writer might say, whatever the contract says of it.
fn command(rng: &mut impl Rng, feed: &str) -> Vec<Bytes> {
    let id = *IDS.choose(rng).expect("there are some");
    let item = *ITEMS.choose(rng).expect("there are some");
    let (ids, items) = (format!("feed.ids:{feed}"), format!("feed.items:{feed}"));
    let score = rng.random_range(0..5_u8).to_string();
    let other = *IDS.choose(rng).expect("there are some");
    let words: &[&[u8]] = match (rng.random_range(0..200_u8), feed) {
        (0, _) => &[b"DEL", ids.as_bytes(), items.as_bytes()],
        (1, _) => &[b"DEL", ids.as_bytes()],
        (2..90, _) => &[b"HSET", items.as_bytes(), id, item],
        (90..106, _) => &[b"HDEL", items.as_bytes(), id],
        (106..175, "plain") => &[b"ZADD", ids.as_bytes(), score.as_bytes(), id],
        (175.., "plain") => &[b"ZREM", ids.as_bytes(), id],
        (106..132, _) => &[b"RPUSH", ids.as_bytes(), id],
        (132..145, _) => &[b"LPUSH", ids.as_bytes(), id],
        (145..165, _) => &[b"LINSERT", ids.as_bytes(), b"AFTER", other, id],
        (165..190, _) => &[b"LREM", ids.as_bytes(), b"1", id],
        (190.., _) => &[b"LPOP", ids.as_bytes()],
    };
    words.iter().map(|word| Bytes::copy_from_slice(word)).collect()
}
