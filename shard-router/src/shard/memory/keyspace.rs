//! Keys, their types and the commands on them: as much of Redis as the contract uses.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::Instant,
};

use super::{broker::Broker, reply::Reply, zset::Zset};

/// Every key of one shard, and who listens or waits.
#[derive(Debug, Default)]
pub(super) struct Keyspace {
    keys: HashMap<Bytes, Entry>,
    pub(super) broker: Broker,
    /// Who waits for a list to get an element.
    waiting: HashMap<Bytes, Arc<Notify>>,
}

#[derive(Debug)]
struct Entry {
    data: Data,
    expires: Option<Instant>,
}

#[derive(Debug)]
enum Data {
    Text(Bytes),
    Hash(BTreeMap<Bytes, Bytes>),
    List(VecDeque<Bytes>),
    Set(BTreeSet<Bytes>),
    Zset(Zset),
}

impl Data {
    const fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Hash(_) => "hash",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Zset(_) => "zset",
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::Hash(hash) => hash.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::Zset(zset) => zset.len() == 0,
        }
    }
}

/// Wakes when a list may have got an element, or the shard went away.
pub(super) struct Filled(OwnedNotified);

impl Filled {
    pub(super) async fn wait(self) {
        self.0.await;
    }
}

/// What a command that cannot be carried out says.
type Refusal = String;

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
const NO_INTEGER: &str = "ERR value is not an integer or out of range";
const NO_FLOAT: &str = "ERR value is not a valid float";
const SYNTAX: &str = "ERR syntax error";

/// Reads a key of one type, or makes it.
macro_rules! typed {
    ($read:ident, $make:ident, $data:ident, $type:ty) => {
        fn $read(&mut self, key: &Bytes) -> Result<Option<&mut $type>, Refusal> {
            match self.get(key) {
                None => Ok(None),
                Some(Data::$data(found)) => Ok(Some(found)),
                Some(_) => Err(WRONG_TYPE.to_owned()),
            }
        }

        fn $make(&mut self, key: &Bytes) -> Result<&mut $type, Refusal> {
            self.drop_expired(key);
            let entry = self
                .keys
                .entry(key.clone())
                .or_insert_with(|| Entry { data: Data::$data(<$type>::default()), expires: None });
            match &mut entry.data {
                Data::$data(found) => Ok(found),
                _ => Err(WRONG_TYPE.to_owned()),
            }
        }
    };
}

impl Keyspace {
    /// Carries out one command; what Redis would refuse is an error reply.
    pub(super) fn execute(&mut self, command: &[Bytes]) -> Reply {
        let Some((verb, rest)) = command.split_first() else {
            return Reply::Error("ERR empty command".to_owned());
        };
        let verb = String::from_utf8_lossy(verb).to_ascii_uppercase();
        self.verb(&verb, rest).unwrap_or_else(Reply::Error)
    }

    pub(super) fn flush(&mut self) {
        self.keys.clear();
    }

    /// Registers somebody who waits for the list at `key`.
    pub(super) fn filled(&mut self, key: &Bytes) -> Filled {
        Filled(self.waiting.entry(key.clone()).or_default().clone().notified_owned())
    }

    pub(super) fn wake_all(&mut self) {
        for (_, waiting) in self.waiting.drain() {
            waiting.notify_waiters();
        }
    }

    fn drop_expired(&mut self, key: &Bytes) {
        let expires = self.keys.get(key).and_then(|entry| entry.expires);
        if expires.is_some_and(|at| at <= Instant::now()) {
            self.keys.remove(key);
        }
    }

    fn get(&mut self, key: &Bytes) -> Option<&mut Data> {
        self.drop_expired(key);
        self.keys.get_mut(key).map(|entry| &mut entry.data)
    }

    /// Forgets a key that has nothing left in it.
    fn tidy(&mut self, key: &Bytes) {
        if self.keys.get(key).is_some_and(|entry| entry.data.is_empty()) {
            self.keys.remove(key);
        }
    }

    typed!(text, text_or_new, Text, Bytes);
    typed!(hash, hash_or_new, Hash, BTreeMap<Bytes, Bytes>);
    typed!(list, list_or_new, List, VecDeque<Bytes>);
    typed!(set, set_or_new, Set, BTreeSet<Bytes>);
    typed!(zset, zset_or_new, Zset, Zset);

    fn verb(&mut self, verb: &str, words: &[Bytes]) -> Result<Reply, Refusal> {
        let reply = match (verb, words) {
            ("PING", []) => Reply::Status(Bytes::from_static(b"PONG")),
            ("TIME", []) => time(),
            ("PUBLISH", [channel, payload]) => self.broker.publish(channel, payload).into(),
            ("FLUSHALL" | "FLUSHDB", _) => {
                self.flush();
                Reply::ok()
            }
            ("DBSIZE", []) => self.keys.len().into(),

            ("TYPE", [key]) => {
                let name = self.get(key).map_or("none", |data| data.name());
                Reply::Status(Bytes::from_static(name.as_bytes()))
            }
            ("EXISTS", [_, ..]) => {
                words.iter().filter(|key| self.get(key).is_some()).count().into()
            }
            ("DEL" | "UNLINK", [_, ..]) => {
                let gone = words.iter().filter(|key| {
                    self.drop_expired(key);
                    self.keys.remove(*key).is_some()
                });
                gone.count().into()
            }
            ("EXPIRE", [key, seconds]) => self.expire(key, seconds_of(seconds)?).into(),
            ("PEXPIRE", [key, millis]) => {
                self.expire(key, Duration::from_millis(int(millis)?.try_into().unwrap_or(0))).into()
            }
            ("TTL", [key]) => {
                self.left(key).map_or_else(|no| no, |left| left.as_secs_f64().round() as i64).into()
            }
            ("PTTL", [key]) => {
                self.left(key).map_or_else(|no| no, |left| left.as_millis() as i64).into()
            }

            ("GET", [key]) => self.text(key)?.cloned().into(),
            ("SET", [key, value, options @ ..]) => self.set_text(key, value, options)?,
            ("INCR", [key]) => self.count(key, 1)?.into(),
            ("DECR", [key]) => self.count(key, -1)?.into(),
            ("INCRBY", [key, by]) => self.count(key, int(by)?)?.into(),

            ("HGET", [key, field]) => {
                self.hash(key)?.and_then(|hash| hash.get(field).cloned()).into()
            }
            ("HMGET", [key, fields @ ..]) if !fields.is_empty() => {
                let hash = self.hash(key)?;
                let found = |field| hash.as_ref().and_then(|hash| hash.get(field).cloned());
                Reply::Array(fields.iter().map(|field| found(field).into()).collect())
            }
            ("HSET", [key, pairs @ ..]) if !pairs.is_empty() && pairs.len() % 2 == 0 => {
                let hash = self.hash_or_new(key)?;
                let new = pairs
                    .chunks(2)
                    .filter(|pair| hash.insert(pair[0].clone(), pair[1].clone()).is_none());
                new.count().into()
            }
            ("HSETNX", [key, field, value]) => {
                let hash = self.hash_or_new(key)?;
                let new = !hash.contains_key(field);
                if new {
                    hash.insert(field.clone(), value.clone());
                }
                new.into()
            }
            ("HDEL", [key, fields @ ..]) if !fields.is_empty() => {
                let gone = self.hash(key)?.map_or(0, |hash| {
                    fields.iter().filter(|field| hash.remove(*field).is_some()).count()
                });
                self.tidy(key);
                gone.into()
            }
            ("HEXISTS", [key, field]) => {
                self.hash(key)?.is_some_and(|hash| hash.contains_key(field)).into()
            }
            ("HLEN", [key]) => self.hash(key)?.map_or(0, |hash| hash.len()).into(),
            ("HKEYS", [key]) => {
                self.hash(key)?.into_iter().flat_map(|hash| hash.keys().cloned()).collect()
            }
            ("HVALS", [key]) => {
                self.hash(key)?.into_iter().flat_map(|hash| hash.values().cloned()).collect()
            }
            ("HGETALL", [key]) => {
                let pairs = self.hash(key)?.into_iter().flat_map(|hash| hash.iter());
                pairs.flat_map(|(field, value)| [field.clone(), value.clone()]).collect()
            }
            ("HINCRBY", [key, field, by]) => {
                let by = int(by)?;
                let hash = self.hash_or_new(key)?;
                let old = hash
                    .get(field)
                    .map_or(Ok(0), int)
                    .map_err(|_| "ERR hash value is not an integer".to_owned())?;
                let new = old.checked_add(by).ok_or(NO_INTEGER)?;
                hash.insert(field.clone(), Bytes::from(new.to_string()));
                new.into()
            }

            ("LPUSH" | "RPUSH", [key, values @ ..]) if !values.is_empty() => {
                let list = self.list_or_new(key)?;
                for value in values {
                    match verb {
                        "LPUSH" => list.push_front(value.clone()),
                        _ => list.push_back(value.clone()),
                    }
                }
                let length = list.len();
                if let Some(waiting) = self.waiting.remove(key) {
                    waiting.notify_waiters();
                }
                length.into()
            }
            ("LPOP" | "RPOP", [key]) => {
                let popped = self.list(key)?.and_then(|list| match verb {
                    "LPOP" => list.pop_front(),
                    _ => list.pop_back(),
                });
                self.tidy(key);
                popped.into()
            }
            ("LLEN", [key]) => self.list(key)?.map_or(0, |list| list.len()).into(),
            ("LINDEX", [key, at]) => {
                let at = int(at)?;
                let list = self.list(key)?;
                list.and_then(|list| list.get(place(at, list.len())?).cloned()).into()
            }
            ("LRANGE", [key, first, last]) => {
                let (first, last) = (int(first)?, int(last)?);
                let Some(list) = self.list(key)? else { return Ok(Reply::Array(Vec::new())) };
                let (skip, take) = range(first, last, list.len());
                list.iter().skip(skip).take(take).cloned().collect()
            }
            ("LTRIM", [key, first, last]) => {
                let (first, last) = (int(first)?, int(last)?);
                if let Some(list) = self.list(key)? {
                    let (skip, take) = range(first, last, list.len());
                    *list = list.iter().skip(skip).take(take).cloned().collect();
                }
                self.tidy(key);
                Reply::ok()
            }
            ("LINSERT", [key, side, pivot, value]) => {
                let behind = match side.to_ascii_uppercase().as_slice() {
                    b"BEFORE" => 0,
                    b"AFTER" => 1,
                    _ => return Err(SYNTAX.to_owned()),
                };
                match self.list(key)? {
                    None => Reply::Int(0),
                    Some(list) => match list.iter().position(|held| held == pivot) {
                        None => Reply::Int(-1),
                        Some(at) => {
                            list.insert(at + behind, value.clone());
                            list.len().into()
                        }
                    },
                }
            }
            ("LREM", [key, count, value]) => {
                let count = int(count)?;
                let gone = self.list(key)?.map_or(0, |list| take_out(list, count, value));
                self.tidy(key);
                gone.into()
            }
            ("LPOS", [key, value]) => {
                let at = self.list(key)?.and_then(|list| list.iter().position(|id| id == value));
                at.map_or(Reply::Nil, Reply::from)
            }

            ("SADD", [key, members @ ..]) if !members.is_empty() => {
                let set = self.set_or_new(key)?;
                members.iter().filter(|member| set.insert((*member).clone())).count().into()
            }
            ("SREM", [key, members @ ..]) if !members.is_empty() => {
                let gone = self
                    .set(key)?
                    .map_or(0, |set| members.iter().filter(|member| set.remove(*member)).count());
                self.tidy(key);
                gone.into()
            }
            ("SISMEMBER", [key, member]) => {
                self.set(key)?.is_some_and(|set| set.contains(member)).into()
            }
            ("SCARD", [key]) => self.set(key)?.map_or(0, |set| set.len()).into(),
            ("SMEMBERS", [key]) => {
                self.set(key)?.into_iter().flat_map(|set| set.iter().cloned()).collect()
            }

            ("ZADD", [key, pairs @ ..]) if !pairs.is_empty() && pairs.len() % 2 == 0 => {
                let scores: Result<Vec<f64>, _> =
                    pairs.iter().step_by(2).map(|score| float(score)).collect();
                let scores = scores?;
                let zset = self.zset_or_new(key)?;
                let members = pairs.iter().skip(1).step_by(2);
                let new = members.zip(scores).filter(|(id, score)| zset.add((*id).clone(), *score));
                new.count().into()
            }
            ("ZREM", [key, members @ ..]) if !members.is_empty() => {
                let gone = self
                    .zset(key)?
                    .map_or(0, |zset| members.iter().filter(|member| zset.remove(member)).count());
                self.tidy(key);
                gone.into()
            }
            ("ZSCORE", [key, member]) => {
                let score = self.zset(key)?.and_then(|zset| zset.score(member));
                score.map(|score| Bytes::from(score.to_string())).into()
            }
            ("ZRANK", [key, member]) => {
                let rank =
                    self.zset(key)?.and_then(|zset| zset.iter().position(|(id, _)| id == member));
                rank.map_or(Reply::Nil, Reply::from)
            }
            ("ZCARD", [key]) => self.zset(key)?.map_or(0, |zset| zset.len()).into(),
            ("ZRANGE", [key, first, last, options @ ..]) => {
                let (first, last) = (int(first)?, int(last)?);
                let with_scores = match options {
                    [] => false,
                    [option] if option.eq_ignore_ascii_case(b"WITHSCORES") => true,
                    _ => return Err(SYNTAX.to_owned()),
                };
                let Some(zset) = self.zset(key)? else { return Ok(Reply::Array(Vec::new())) };
                let (skip, take) = range(first, last, zset.len());
                let mut found = Vec::new();
                for (member, score) in zset.iter().skip(skip).take(take) {
                    found.push(member.clone());
                    if with_scores {
                        found.push(Bytes::from(score.to_string()));
                    }
                }
                found.into_iter().collect()
            }
            _ if KNOWN.contains(&verb) => {
                return Err(format!(
                    "ERR wrong number of arguments for '{}' command",
                    verb.to_lowercase()
                ));
            }
            _ => return Err(format!("ERR unknown command '{verb}'")),
        };
        Ok(reply)
    }

    fn expire(&mut self, key: &Bytes, after: Duration) -> bool {
        self.drop_expired(key);
        let entry = self.keys.get_mut(key);
        entry.map(|entry| entry.expires = Some(Instant::now() + after)).is_some()
    }

    /// Tells how long a key lives; -2 where there is none, -1 where it does not expire.
    fn left(&mut self, key: &Bytes) -> Result<Duration, i64> {
        self.drop_expired(key);
        let entry = self.keys.get(key).ok_or(-2_i64)?;
        Ok(entry.expires.ok_or(-1_i64)? - Instant::now())
    }

    fn set_text(
        &mut self,
        key: &Bytes,
        value: &Bytes,
        options: &[Bytes],
    ) -> Result<Reply, Refusal> {
        let mut expires = None;
        let mut only_new = false;
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => only_new = true,
                b"EX" => {
                    let after = seconds_of(options.next().ok_or(SYNTAX)?)?;
                    expires = Some(Instant::now() + after);
                }
                _ => return Err(SYNTAX.to_owned()),
            }
        }
        if only_new && self.get(key).is_some() {
            return Ok(Reply::Nil);
        }
        self.keys.insert(key.clone(), Entry { data: Data::Text(value.clone()), expires });
        Ok(Reply::ok())
    }

    fn count(&mut self, key: &Bytes, by: i64) -> Result<i64, Refusal> {
        let old = self.text(key)?.map_or(Ok(0), |text| int(text))?;
        let new = old.checked_add(by).ok_or("ERR increment or decrement would overflow")?;
        *self.text_or_new(key)? = Bytes::from(new.to_string());
        Ok(new)
    }
}

/// The verbs above, to tell a wrong count of words from an unknown verb.
const KNOWN: &[&str] = &[
    "PING",
    "TIME",
    "PUBLISH",
    "DBSIZE",
    "TYPE",
    "EXISTS",
    "DEL",
    "UNLINK",
    "EXPIRE",
    "PEXPIRE",
    "TTL",
    "PTTL",
    "GET",
    "SET",
    "INCR",
    "DECR",
    "INCRBY",
    "HGET",
    "HMGET",
    "HSET",
    "HSETNX",
    "HDEL",
    "HEXISTS",
    "HLEN",
    "HKEYS",
    "HVALS",
    "HGETALL",
    "HINCRBY",
    "LPUSH",
    "RPUSH",
    "LPOP",
    "RPOP",
    "LLEN",
    "LINDEX",
    "LRANGE",
    "LTRIM",
    "LINSERT",
    "LREM",
    "LPOS",
    "SADD",
    "SREM",
    "SISMEMBER",
    "SCARD",
    "SMEMBERS",
    "ZADD",
    "ZREM",
    "ZSCORE",
    "ZRANK",
    "ZCARD",
    "ZRANGE",
];

fn time() -> Reply {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    [now.as_secs().to_string(), now.subsec_micros().to_string()]
        .into_iter()
        .map(Bytes::from)
        .collect()
}

fn int(text: &Bytes) -> Result<i64, Refusal> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| NO_INTEGER.to_owned())
}

fn float(text: &[u8]) -> Result<f64, Refusal> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.filter(|number: &f64| !number.is_nan()).ok_or_else(|| NO_FLOAT.to_owned())
}

fn seconds_of(text: &Bytes) -> Result<Duration, Refusal> {
    let seconds = u64::try_from(int(text)?).ok().filter(|seconds| *seconds > 0);
    Ok(Duration::from_secs(seconds.ok_or("ERR invalid expire time")?))
}

/// Finds the index that a number means, counted from the end where it is negative.
fn place(at: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if at < 0 { at + length } else { at }).ok()
}

/// Makes how many to skip and how many to take of a first and a last index.
fn range(first: i64, last: i64, length: usize) -> (usize, usize) {
    let skip = place(first, length).unwrap_or(0);
    let Some(last) = place(last, length) else { return (0, 0) };
    (skip, (last + 1).saturating_sub(skip))
}

/// Takes a value out of a list: from the front, from the back for a negative count, all for 0.
fn take_out(list: &mut VecDeque<Bytes>, count: i64, value: &Bytes) -> usize {
    let most = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
    let all = list.iter().filter(|held| *held == value).count();
    let gone = all.min(most);
    // From the back, the first matches stay and the last ones go.
    let stay = if count < 0 { all - gone } else { 0 };
    let mut seen = 0;
    list.retain(|held| {
        if held != value {
            return true;
        }
        seen += 1;
        seen <= stay || seen > stay + gone
    });
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs commands, one a line, and checks the last answer as text.
    #[track_caller]
    fn check(commands: &str, answer: &str) {
        let mut keyspace = Keyspace::default();
        let mut last = Reply::Nil;
        for command in commands.split(';') {
            let words: Vec<Bytes> = command
                .split_whitespace()
                .map(|word| Bytes::copy_from_slice(word.as_bytes()))
                .collect();
            last = keyspace.execute(&words);
        }
        assert_eq!(text(&last), answer, "{commands}");
    }

    fn text(reply: &Reply) -> String {
        match reply {
            Reply::Nil => "nil".to_owned(),
            Reply::Int(int) => int.to_string(),
            Reply::Bytes(bytes) | Reply::Status(bytes) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            Reply::Error(error) => error.clone(),
            Reply::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(" "),
        }
    }

    #[test]
    fn lists_count_from_both_ends() {
        check("RPUSH l a b c d; LRANGE l 0 -1", "a b c d");
        check("RPUSH l a b c d; LRANGE l -3 -2", "b c");
        check("RPUSH l a b c d; LRANGE l 0 -5", "");
        check("RPUSH l a b c d; LRANGE l 2 99", "c d");
        check("RPUSH l a b c d; LRANGE l 3 1", "");
        check("RPUSH l a b a c a; LREM l 2 a; LRANGE l 0 -1", "b c a");
        check("RPUSH l a b a c a; LREM l -2 a; LRANGE l 0 -1", "a b c");
        check("RPUSH l a b a; LREM l 0 a; LRANGE l 0 -1", "b");
        check("RPUSH l a; LREM l 0 a; TYPE l", "none");
        check("RPUSH l a c; LINSERT l BEFORE c b; LRANGE l 0 -1", "a b c");
        check("RPUSH l a; LINSERT l AFTER x b", "-1");
        check("LINSERT l AFTER x b", "0");
        check("LPUSH l a b; RPOP l", "a");
        check("RPUSH l a b; LPOS l b", "1");
        check("RPUSH l a b; LPOS l c", "nil");
    }

    #[test]
    fn keys_have_one_type_and_vanish_when_empty() {
        check("SET k 1; LPUSH k a", WRONG_TYPE);
        check("HSET h a 1; HDEL h a; EXISTS h", "0");
        check("SADD s a a b; SCARD s", "2");
        check("SET k x; INCR k", NO_INTEGER);
        check("INCR k; INCRBY k 4; DECR k", "4");
        check("HSET h a 1 b 2; HMGET h b c a", "2 nil 1");
        check("SET k v EX 10; TTL k", "10");
        check("SET k v NX; SET k w NX", "nil");
        check("GET", "ERR wrong number of arguments for 'get' command");
        check("EVAL x", "ERR unknown command 'EVAL'");
    }

    #[test]
    fn zsets_are_ordered_by_score_then_bytes() {
        check("ZADD z 2 a 1 c 1 b; ZRANGE z 0 -1 WITHSCORES", "b 1 c 1 a 2");
        check("ZADD z 1 a; ZADD z 3 a", "0");
        check("ZADD z 1 a 2 b 3 c 4 d; ZRANGE z 0 -4", "a");
        check("ZADD z 1700000000.123456 a; ZSCORE z a", "1700000000.123456");
        check("ZADD z x a", NO_FLOAT);
        check("ZADD z 1 a; ZREM z a; TYPE z", "none");
        check("ZADD z 1 a 2 b; ZRANK z b", "1");
    }
}
