use std::fs;

use shard_router::topology::ShardUrl;

use super::*;
use crate::tree::Who;

mod environment;
mod names;

/// Reads a file, which is given the sections that every file needs where it lacks them.
fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    load_in(Path::new("/nowhere"), text, env)
}

fn load_in(folder: &Path, text: &str, env: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let mut text = text.to_owned();
    for (section, needed) in [
        ("[session]", "secrets = [\"s\"]"),
        ("[shards]", "nodes = [{ name = \"a\", url = \"memory:\" }]"),
    ] {
        if !text.contains(section) {
            text += &format!("\n{section}\n{needed}\n");
        }
    }
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::read(&text, folder, false, env)
        .map_err(|mistakes| mistakes.to_string().lines().map(str::to_owned).collect())
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    check_env(text, &[], expected);
}

#[track_caller]
fn check_env(text: &str, env: &[(&str, &str)], expected: &[&str]) {
    assert_eq!(load(text, env).err().unwrap_or_default(), expected);
}

#[track_caller]
fn good(text: &str) -> Config {
    load(text, &[]).unwrap_or_else(|mistakes| panic!("{}", mistakes.join("\n")))
}

#[test]
fn without_a_file_there_is_a_demo_for_this_machine() {
    let config = Config::load(None, []).unwrap();
    assert!(config.embedded && config.warnings.is_empty());
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:3000");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:3001");
    assert_eq!(config.session.format, SessionFormat::Demo);
    let [shard] = config.shards.shards.as_slice() else { panic!("{:?}", config.shards) };
    assert_eq!((shard.name.as_str(), &shard.url), ("demo", &ShardUrl::Memory));
    let team = config.tree.team.unwrap();
    assert_eq!(team.attrs.as_deref(), Some("teams"));
    let tasks = &team.collections[0].collections[0];
    assert_eq!(tasks.feed.to_string(), "team.{team}.members.{member}.tasks");
    assert_eq!(tasks.rules.editable, ["title", "done"]);
    assert_eq!((tasks.rules.can_add, tasks.rules.can_move), (Who::Member, Who::Member));
    let schema = config.jobs["shipTask"].schema.as_ref().unwrap();
    assert_eq!(schema.errors(&serde_json::json!({ "feed": "f", "id": "1" })), []);
    let errors = schema.errors(&serde_json::json!({ "feed": "f", "id": 1 }));
    assert_eq!(errors, [("/id".to_owned(), "1 is not of type \"string\"".to_owned())]);
}

#[test]
fn the_environment_changes_the_demo_too_and_never_opens_it() {
    let load = |name: &str, value: &str| Config::load(None, [(name.to_owned(), value.to_owned())]);
    let config = load("GATEWAY__SERVER__LISTEN", "127.0.0.1:0").unwrap();
    assert_eq!(config.server.listen.port(), 0);
    assert!(config.embedded);
    let mistakes = load("GATEWAY__SERVER__LISTEN", "0.0.0.0:3000").unwrap_err();
    assert_eq!(
        mistakes.to_string(),
        "server.listen: is 0.0.0.0:3000, which others reach, and `session.format` is `demo`, \
         which lets everybody in (from GATEWAY__SERVER__LISTEN)"
    );
    let mistakes = load("GATEWAY__SHARDS__TOPOLOGY", "t.toml").unwrap_err();
    assert!(mistakes.to_string().contains("stands beside `nodes`"), "{mistakes}");
}

#[test]
fn the_reference_says_what_the_defaults_are() {
    let env: [(String, String); 0] = [];
    let reference = Config::read(Config::default_reference(), Path::new("."), false, env).unwrap();
    assert_eq!(reference.warnings, ["session.secrets is `change-me`, which everybody knows"]);
    let mut defaults = good(
        "[session]\nsecrets = ['change-me']\n\
         [shards]\nnodes = [{ name = 'shard-01', url = 'redis://127.0.0.1:6379' }]",
    );
    defaults.warnings.clone_from(&reference.warnings);
    assert_eq!(format!("{reference:#?}"), format!("{defaults:#?}"));
}

/// The reference with its examples set as well, except those that exclude each other.
fn full_reference() -> String {
    const EXCLUDED: [&str; 3] = ["#token_file", "#secrets_file", "#topology"];
    let lines = Config::default_reference().lines().map(|line| {
        let is_example = line.starts_with('#')
            && line[1..].starts_with(|first: char| first.is_ascii_lowercase() || first == '[')
            && !EXCLUDED.iter().any(|excluded| line.starts_with(excluded));
        if is_example { &line[1..] } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_names_every_option_and_its_examples_are_right() {
    let text = full_reference();
    let env: [(String, String); 0] = [];
    let layers = layers::Layers::new(&text, false, env).unwrap();
    let reading = read::Reading::new(&layers, Path::new("."));
    let config = sections::read(&reading, false);
    let asked = reading.asked();
    assert_eq!(reading.finish().map_err(|mistakes| mistakes.to_string()).err(), None);
    assert_eq!(config.jobs["shipTask"].timeout, Duration::from_secs(10));
    assert!(config.tree.user.is_some());

    let document: toml::Table = text.parse().unwrap();
    let is_set = |path: &str| {
        let mut table = Some(&document);
        path.split('.').all(|key| {
            let value = table.and_then(|table| match key.split_once('[') {
                Some((key, _)) => table.get(key)?.get(0),
                None => table.get(key),
            });
            table = value.and_then(toml::Value::as_table);
            value.is_some()
        })
    };
    let reference = Config::default_reference();
    for path in asked.iter().filter(|path| !is_set(path)) {
        // An option may be told once for all collections, or only as the other way.
        let key = path.rsplit('.').next().unwrap();
        let is_told = reference.contains(&format!("\n#{key} = "))
            || (path.starts_with("tree.") && text.contains(&format!("\n{key} = ")))
            || (path.starts_with("tree.") && key == "collections");
        assert!(is_told, "{path} is not in the reference");
    }
    assert!(asked.len() > 60, "{asked:?}");
}

#[test]
fn every_mistake_is_told_with_its_place() {
    check(
        "[server]\nlisten = 'localhost'\nengin = 'x'\n\n[limits]\nstall = 10\noutbox_bytes = '1MB'\n\
         [sesion]\n[jobs.publish]\ntimeout = '0s'\n",
        &[
            "server.listen: is an address with its port, such as `127.0.0.1:3000` or \
             `[::]:3000`, not `localhost` (line 2)",
            "server.engin: is no option; did you mean `engine`? (line 3)",
            "limits.stall: is a time with its unit, such as `10s`, `500ms` or `2m`, not the \
             number 10 (line 6)",
            "limits.outbox_bytes: is a size, such as `1MiB`, `64KiB` or `512B`, not `1MB` (line 7)",
            "sesion: is no section; did you mean `session`? (line 8)",
            "jobs.publish: cannot be a job; `publish` is an event of the gateway's own (line 9)",
            "jobs.publish.timeout: is at least `1ms` (line 10)",
        ],
    );
}

#[test]
fn what_is_not_toml_is_told_line_by_line() {
    let mistakes = load("[server\nlisten = \n[admin]\ntoken = 'x\n", &[]).unwrap_err();
    assert!(mistakes.len() >= 2, "{mistakes:?}");
    assert!(mistakes.iter().all(|it| it.starts_with("is not TOML: ")), "{mistakes:?}");
    assert!(mistakes[0].ends_with("(line 1)"), "{mistakes:?}");
    check("[server]\nnode = 'a'\nnode = 'b'", &["is not TOML: duplicate key (line 3)"]);
}

#[test]
fn a_server_is_told_what_it_is() {
    let config = good(
        "[server]\nlisten = '0.0.0.0:80'\nnode = 'G2'\norigins = ['https://A.example:443', 'null']\n\
         trusted_proxies = ['10.0.0.0/8', '::1']\nrequire_origin = true\nclient = '2'\n\
         ping_interval = '25s'\nping_timeout = '5s'",
    );
    let server = config.server;
    assert_eq!(server.origins, ["https://a.example", "null"]);
    assert_eq!((server.client, server.node.as_str()), (Client::V2, "G2"));
    assert!(server.require_origin && server.trusted_proxies.len() == 2);
    assert_eq!(server.ping_interval, Some(Duration::from_secs(25)));
    check(
        "[server]\nengine = 'pneumatic'\nnode = 'g-1'\norigins = ['*', 'https://a/', 7]\n\
         trusted_proxies = 'all'\nrequire_origin = 'yes'\nclient = '0.9'\nping_interval = '10'\n",
        &[
            "server.node: is 1 to 16 letters and digits, not `g-1` (line 3)",
            "server.origins[0]: is an origin as browsers send it, such as \
             `https://app.example.com`, not `*` (line 4)",
            "server.origins[1]: is an origin as browsers send it, such as \
             `https://app.example.com`, not `https://a/` (line 4)",
            "server.origins[2]: is an origin as browsers send it, such as \
             `https://app.example.com`, not the number 7 (line 4)",
            "server.trusted_proxies: is a list, such as `[\"one\", \"two\"]` (line 5)",
            "server.require_origin: is `true` or `false`, not `yes` (line 6)",
            "server.client: is `0.9`, which no engine of this version serves; its file alone is \
             there, as /socket.io/v0.9/socket.io.js (line 7)",
            "server.ping_interval: is a time with its unit, such as `10s`, `500ms` or `2m`, not \
             `10` (line 8)",
        ],
    );
    check(
        "[server]\nengine = 'socket.io'\nclient = 4\n",
        &[
            "server.engine: is one of `pneumatic`, `socketioxide`, not `socket.io` (line 2)",
            "server.client: is one of `4`, `3`, `2`, `1`, `0.9`, not the number 4 (line 3)",
        ],
    );
    check("server = 1\n", &["server: is a section, not the number 1 (line 1)"]);
}

#[test]
fn an_admin_listener_that_others_reach_needs_a_token() {
    check(
        "[admin]\nlisten = '0.0.0.0:3001'\n",
        &["admin.token: is missing; `admin.listen` is 0.0.0.0:3001, open to others (line 1)"],
    );
    check(
        "[admin]\nlisten = '127.0.0.1:3000'\ntoken = ''\n",
        &[
            "admin.listen: is 127.0.0.1:3000, where `server.listen` is already (line 2)",
            "admin.token: is a text that is not empty (line 3)",
        ],
    );
    let config = good("[admin]\nlisten = '0.0.0.0:3001'\ntoken = 's3cret'\n");
    assert_eq!(config.admin.token.unwrap().expose(), "s3cret");
}

#[test]
fn sessions_need_secrets_and_say_none_of_them() {
    check(
        "[session]\n",
        &[
            "session.secrets: is missing; it is what the application signs its cookies with (line 1)",
        ],
    );
    check(
        "[session]\nsecrets = ['', 12345]\nstore = 'localhost:s3cret'\nuser = 'id'\n\
         teams = '/a~2'\ncookie = 'a b'\nrecheck = '0s'\n",
        &[
            "session.secrets[0]: is a text that is not empty (line 2)",
            "session.secrets[1]: is a text (line 2)",
            "session.store: is the URL of a Redis, such as `redis://127.0.0.1:6379/0`; this one \
             begins with none of `redis://` and `memory:` (line 3)",
            "session.user: is a JSON pointer, such as `/user/id`, not `id` (line 4)",
            "session.teams: is a JSON pointer, such as `/user/id`, not `/a~2` (line 5)",
            "session.cookie: is the name of a cookie, not `a b` (line 6)",
            "session.recheck: is at least `1ms` (line 7)",
        ],
    );
    check(
        "[session]\nsecrets = 's3cret'\n",
        &["session.secrets: is a list, such as `[\"one\", \"two\"]` (line 2)"],
    );
    check(
        "[session]\nformat = 'jwt'\nkeys = []\n",
        &["session.format: is `jwt`, which is not supported yet; `express` is (line 2)"],
    );
    check(
        "[session]\nformat = 'hook'\nurl = 'x'\n",
        &["session.format: is `hook`, which is not supported yet; `express` is (line 2)"],
    );
    check(
        "[server]\nlisten = '[::]:3000'\n[session]\nformat = 'demo'\n",
        &[
            "server.listen: is [::]:3000, which others reach, and `session.format` is `demo`, which \
           lets everybody in (line 2)",
        ],
    );
    let config = good("[session]\nsecrets = ['s3cret']\nstore = 'redis://:s3cret@h:1'\n");
    assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
}

#[test]
fn secrets_may_stand_in_files_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secrets"), "newest\n\n older \n").unwrap();
    fs::write(folder.path().join("token"), "s3cret\n").unwrap();
    fs::write(folder.path().join("empty"), "\n").unwrap();
    let text = "[admin]\ntoken_file = 'token'\n[session]\nsecrets_file = 'secrets'\n";
    let config = load_in(folder.path(), text, &[]).unwrap();
    let secrets: Vec<_> = config.session.secrets.iter().map(Secret::expose).collect();
    assert_eq!(secrets, ["newest", "older"]);
    assert_eq!(config.admin.token.unwrap().expose(), "s3cret");

    let text = "[admin]\ntoken_file = 'secrets'\n[session]\nsecrets_file = 'empty'\nsecrets = []\n";
    let mistakes = load_in(folder.path(), text, &[]).unwrap_err();
    assert_eq!(
        mistakes,
        [
            "admin.token_file: holds several lines; there is one token (line 2)",
            "session.secrets: stands beside `secrets_file`; one of them is enough (line 5)",
        ]
    );
    check(
        "[session]\nsecrets_file = 'gone'\n",
        &["session.secrets_file: is /nowhere/gone, which cannot be read: No such file or \
           directory (os error 2) (line 2)"],
    );
}

#[test]
fn shards_are_judged_one_by_one_and_together() {
    check(
        "[shards]\n",
        &["shards.nodes: is missing; it lists the shards, unless `topology` names a \
           file of them (line 1)"],
    );
    check(
        "[shards]\nnodes = [\n{ name = 'a', url = 'memory:', wait = 2 },\n{ url = 7 },\n3]\n",
        &[
            "shards.nodes[0].wait: is no option; there are `name`, `url`, `weight` (line 3)",
            "shards.nodes[1].name: is missing (line 4)",
            "shards.nodes[1].url: is a text (line 4)",
            "shards.nodes[2]: is a section, not the number 3 (line 5)",
        ],
    );
    check(
        "[shards]\ntopology = 'gone.toml'\n",
        &[
            "shards.topology: is /nowhere/gone.toml, which cannot be read: No such file or directory (os error 2) (line 2)",
        ],
    );
    check(
        "[shards]\ntopology = 'gone.toml'\nnodes = []\n",
        &["shards.topology: stands beside `nodes`; the shards are listed in one place (line 2)"],
    );
    let text = "[shards]\nnodes = [\n{ name = 'a', url = 'http://:s3cret@x' },\n\
                { name = 'a', url = 'memory:' }]\n";
    let mistakes = load(text, &[]).unwrap_err();
    assert!(mistakes.len() == 2 && mistakes.iter().all(|it| !it.contains("s3cret")));
    assert!(mistakes[0].starts_with("shards.nodes[0].url: "), "{mistakes:?}");
    assert!(mistakes[0].ends_with("(line 3)"), "{mistakes:?}");
}

#[test]
fn limits_fit_each_other() {
    let limits = good("[limits]\noutbox_bytes = '64KiB'\nmax_connections = 0\n").limits;
    assert_eq!((limits.outbox_bytes, limits.max_item_bytes), (65_536, 32_768));
    assert_eq!((limits.max_connections, limits.max_pending), (None, Some(10_000)));
    assert_eq!(good("[limits]\nmax_pending = 0\n").limits.max_pending, None);
    assert_eq!(good("[mirror]\nmax_bytes = '1MiB'").mirror.max_feed_bytes, 1 << 20);
    check(
        "[limits]\noutbox_bytes = 1024\nmax_item_bytes = '1KiB'\nmax_connections = -1\n\
         handshakes_per_second = 1.5\n[mirror]\nmax_bytes = 5\nmax_feed_bytes = '2GiB'\n",
        &[
            "limits.max_item_bytes: is at most half of `limits.outbox_bytes`, 512, not 1024 (line 3)",
            "limits.max_connections: is a whole number from 0 to 4294967295, not the number -1 (line 4)",
            "limits.handshakes_per_second: is a whole number from 0 to 4294967295, not the number \
             1.5 (line 5)",
            "mirror.max_bytes: is at least 1048576 bytes, not 5 (line 7)",
            "mirror.max_feed_bytes: is at most `mirror.max_bytes`, 1073741824, not 2147483648 (line 8)",
        ],
    );
    let config = good("[drain]\nspread = '2m'\n");
    assert_eq!(
        config.warnings,
        [
            "drain.deadline is 1m, before `notice` and `spread` are over (2m 5s); clients will be cut"
        ]
    );
}

#[test]
fn sizes_and_times_have_a_most() {
    let limits = "[limits]\nmax_message_bytes = '64MiB'\noutbox_bytes = '1GiB'\nstall = '1d'\n";
    let limits = good(limits).limits;
    assert_eq!((limits.max_message_bytes, limits.outbox_bytes), (64 << 20, 1 << 30));
    assert_eq!(limits.stall, Duration::from_secs(86_400));
    check(
        "[limits]\nmax_message_bytes = 4611686018427387904\noutbox_bytes = '2GiB'\n\
         connect_timeout = '1d 1s'\n[mirror]\nmax_bytes = '2048GiB'\nlinger = '100y'\n",
        &[
            "limits.max_message_bytes: is at most 67108864 bytes, not 4611686018427387904 (line 2)",
            "limits.outbox_bytes: is at most 1073741824 bytes, not 2147483648 (line 3)",
            "limits.connect_timeout: is at most `1day`, not `1day 1s` (line 4)",
            "mirror.max_bytes: is at most 1099511627776 bytes, not 2199023255552 (line 6)",
            "mirror.linger: is at most `1day`, not `100years` (line 7)",
        ],
    );
    check(
        "[jobs.ship]\ntimeout = '500000000000y'\n[server]\nping_interval = '2d'\n",
        &[
            "jobs.ship.timeout: is at most `1day`, not `500000000000years` (line 2)",
            "server.ping_interval: is at most `1day`, not `2days` (line 4)",
        ],
    );
}

#[test]
fn a_file_is_read_from_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    let mistakes = Config::load(Some(&path), []).unwrap_err();
    assert!(mistakes.to_string().contains("gateway.toml cannot be read: No such file"));
    fs::write(folder.path().join("s"), "x").unwrap();
    let text = "[session]\nsecrets_file = 's'\n[shards]\nnodes = [{ name = 'a', url = 'memory:' }]";
    fs::write(&path, text).unwrap();
    let config = Config::load(Some(&path), []).unwrap();
    assert!(!config.embedded);
    assert_eq!(config.session.secrets.len(), 1);
}
