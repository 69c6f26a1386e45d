//! Lua as Redis runs it: `redis`, `KEYS`, `ARGV`, and Redis's rules for converting values.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use mlua::{Function, Lua, Table, Variadic};
use sha1::{Digest, Sha1};

use super::{Keyspace, Reply};
use crate::shard::Script;

/// One Lua state, the scripts compiled in it, and the keyspace they work on.
pub(super) struct Engine {
    lua: Lua,
    scripts: HashMap<&'static str, Function>,
    /// Shared with the functions that Lua calls; only ever locked by the owner of the engine.
    keyspace: Arc<Mutex<Keyspace>>,
}

/// An error that a command answered, on its way through Lua.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Error for Raised {}

impl Engine {
    pub(super) fn new() -> mlua::Result<Self> {
        let lua = Lua::new();
        let keyspace = Arc::<Mutex<Keyspace>>::default();
        let redis = lua.create_table()?;

        let data = keyspace.clone();
        let call = move |lua: &Lua, words: Variadic<mlua::Value>| match run(&data, &words) {
            Reply::Error(error) => Err(mlua::Error::external(Raised(error))),
            reply => to_lua(lua, reply),
        };
        redis.set("call", lua.create_function(call)?)?;

        let data = keyspace.clone();
        let pcall = move |lua: &Lua, words: Variadic<mlua::Value>| to_lua(lua, run(&data, &words));
        redis.set("pcall", lua.create_function(pcall)?)?;

        for (name, field) in [("error_reply", "err"), ("status_reply", "ok")] {
            let reply = move |lua: &Lua, text: mlua::LuaString| {
                let table = lua.create_table()?;
                table.set(field, text)?;
                Ok(table)
            };
            redis.set(name, lua.create_function(reply)?)?;
        }
        let sha1hex = |_: &Lua, text: mlua::LuaString| {
            let digest = Sha1::digest(text.as_bytes());
            Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        };
        redis.set("sha1hex", lua.create_function(sha1hex)?)?;
        lua.globals().set("redis", redis)?;
        Ok(Self { lua, scripts: HashMap::new(), keyspace })
    }

    pub(super) fn keyspace(&self) -> MutexGuard<'_, Keyspace> {
        lock(&self.keyspace)
    }

    /// Runs a script, compiling it where it is new; its error is an answer.
    pub(super) fn eval(
        &mut self,
        script: &'static Script,
        keys: &[Bytes],
        args: &[Bytes],
    ) -> Reply {
        self.try_eval(script, keys, args).unwrap_or_else(|error| {
            let raised = error.chain().find_map(|cause| cause.downcast_ref::<Raised>());
            Reply::Error(match raised {
                Some(raised) => format!("{} script: {}", raised.0, script.name()),
                None => format!("ERR {error} script: {}", script.name()),
            })
        })
    }

    fn try_eval(
        &mut self,
        script: &'static Script,
        keys: &[Bytes],
        args: &[Bytes],
    ) -> mlua::Result<Reply> {
        let function = match self.scripts.get(script.digest()) {
            Some(function) => function.clone(),
            None => {
                let function = self.lua.load(script.text()).set_name(script.name());
                let function = function.into_function()?;
                self.scripts.insert(script.digest(), function.clone());
                function
            }
        };
        let globals = self.lua.globals();
        globals.set("KEYS", self.strings(keys)?)?;
        globals.set("ARGV", self.strings(args)?)?;
        let value: mlua::Value = function.call(())?;
        from_lua(value)
    }

    fn strings(&self, all: &[Bytes]) -> mlua::Result<Table> {
        let table = self.lua.create_table_with_capacity(all.len(), 0)?;
        for text in all {
            table.raw_push(self.lua.create_string(text)?)?;
        }
        Ok(table)
    }
}

fn lock(keyspace: &Mutex<Keyspace>) -> MutexGuard<'_, Keyspace> {
    keyspace.lock().expect("no holder of this lock panics")
}

/// Runs the command that Lua calls.
fn run(keyspace: &Mutex<Keyspace>, words: &[mlua::Value]) -> Reply {
    let command: Option<Vec<Bytes>> = words.iter().map(word).collect();
    match command {
        Some(command) => lock(keyspace).execute(&command),
        None => Reply::Error(
            "ERR Lua redis lib command arguments must be strings or integers".to_owned(),
        ),
    }
}

fn word(value: &mlua::Value) -> Option<Bytes> {
    match value {
        mlua::Value::String(text) => Some(Bytes::copy_from_slice(&text.as_bytes())),
        mlua::Value::Integer(int) => Some(Bytes::from(int.to_string())),
        mlua::Value::Number(number) => Some(Bytes::from(number.to_string())),
        _ => None,
    }
}

fn to_lua(lua: &Lua, reply: Reply) -> mlua::Result<mlua::Value> {
    Ok(match reply {
        Reply::Nil => mlua::Value::Boolean(false),
        // Lua 5.1 counts in floating point, and so do scripts in Redis.
        Reply::Int(int) => mlua::Value::Number(int as f64),
        Reply::Bytes(bytes) => mlua::Value::String(lua.create_string(&bytes)?),
        Reply::Status(text) => {
            let table = lua.create_table()?;
            table.set("ok", lua.create_string(&text)?)?;
            mlua::Value::Table(table)
        }
        Reply::Error(text) => {
            let table = lua.create_table()?;
            table.set("err", text)?;
            mlua::Value::Table(table)
        }
        Reply::Array(replies) => {
            let table = lua.create_table_with_capacity(replies.len(), 0)?;
            for reply in replies {
                table.raw_push(to_lua(lua, reply)?)?;
            }
            mlua::Value::Table(table)
        }
    })
}

fn from_lua(value: mlua::Value) -> mlua::Result<Reply> {
    Ok(match value {
        mlua::Value::Boolean(true) => Reply::Int(1),
        mlua::Value::Integer(int) => Reply::Int(int),
        mlua::Value::Number(number) => Reply::Int(number.trunc() as i64),
        mlua::Value::String(text) => Reply::Bytes(Bytes::copy_from_slice(&text.as_bytes())),
        mlua::Value::Table(table) => {
            if let mlua::Value::String(error) = table.raw_get("err")? {
                return Ok(Reply::Error(error.to_string_lossy()));
            }
            if let mlua::Value::String(status) = table.raw_get("ok")? {
                return Ok(Reply::Status(Bytes::copy_from_slice(&status.as_bytes())));
            }
            let mut replies = Vec::new();
            loop {
                match table.raw_get(replies.len() + 1)? {
                    mlua::Value::Nil => return Ok(Reply::Array(replies)),
                    value => replies.push(from_lua(value)?),
                }
            }
        }
        _ => Reply::Nil,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(script: &'static Script, reply: Reply) {
        let mut engine = Engine::new().expect("Lua starts");
        let words = [Bytes::from_static(b"one"), Bytes::from_static(b"\0\xff")];
        assert_eq!(engine.eval(script, &words, &words), reply);
    }

    fn text(text: &'static [u8]) -> Reply {
        Reply::Bytes(Bytes::from_static(text))
    }

    #[test]
    fn values_become_what_redis_makes_of_them() {
        static TYPES: Script = Script::new("types", "return {1.9, -1.9, 'a\\0b', true, false, 2}");
        let array = vec![
            Reply::Int(1),
            Reply::Int(-1),
            text(b"a\0b"),
            Reply::Int(1),
            Reply::Nil,
            Reply::Int(2),
        ];
        check(&TYPES, Reply::Array(array));

        static CUT: Script = Script::new("cut", "return {1, nil, 3}");
        check(&CUT, Reply::Array(vec![Reply::Int(1)]));

        static BINARY: Script = Script::new("binary", "return {ARGV[2], #KEYS}");
        check(&BINARY, Reply::Array(vec![text(b"\0\xff"), Reply::Int(2)]));

        static NOTHING: Script = Script::new("nothing", "return redis.call('GET', 'x')");
        check(&NOTHING, Reply::Nil);

        static STATUS: Script = Script::new("status", "return redis.call('SET', 'x', 5)");
        check(&STATUS, Reply::ok());

        static NUMBER: Script =
            Script::new("number", "redis.call('SET', 'x', 3.0) return redis.call('GET', 'x')");
        check(&NUMBER, text(b"3"));

        static SHA: Script = Script::new("sha", "return redis.sha1hex('')");
        check(&SHA, text(b"da39a3ee5e6b4b0d3255bfef95601890afd80709"));
    }

    #[test]
    fn a_failing_command_is_the_answer_unless_it_is_caught() {
        static WRONG: Script =
            Script::new("wrong", "redis.call('SET', 'x', 1) return redis.call('LLEN', 'x')");
        let reason = "WRONGTYPE Operation against a key holding the wrong kind of value";
        check(&WRONG, Reply::Error(format!("{reason} script: wrong")));

        static CAUGHT: Script = Script::new(
            "caught",
            "redis.call('SET', 'x', 1) return {(redis.pcall('LLEN', 'x').err)}",
        );
        check(&CAUGHT, Reply::Array(vec![text(reason.as_bytes())]));

        static UNKNOWN: Script = Script::new("unknown", "return redis.call('FLY')");
        check(&UNKNOWN, Reply::Error("ERR unknown command 'FLY' script: unknown".to_owned()));
    }
}
