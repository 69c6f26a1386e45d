//! Jobs and the tree, whose names the file gives.

use std::fs;

use super::{check, good, load, load_in};
use crate::tree::{Template, Who};

#[test]
fn jobs_have_names_schemas_and_queues_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ok.json"), r#"{"type": "object"}"#).unwrap();
    fs::write(folder.path().join("bad.json"), r#"{"type": "objekt"}"#).unwrap();
    fs::write(folder.path().join("broken.json"), "{").unwrap();
    let text =
        "[jobs.a]\nschema = 'ok.json'\n[jobs.b]\nqueue = 'q'\npartitions = 2\ntimeout = '1s'\n";
    let config = load_in(folder.path(), text, &[]).unwrap();
    assert_eq!(config.jobs["a"].queues(), ["a"]);
    assert_eq!(config.jobs["b"].queues(), ["q.0", "q.1"]);
    assert_eq!(config.jobs["b"].max_queued, 10_000);
    assert!(config.jobs["a"].schema.is_some() && config.jobs["b"].schema.is_none());
    assert_eq!(config.edits.queues(), ["edits.0", "edits.1", "edits.2", "edits.3"]);

    let text = "[jobs.a]\nschema = 'bad.json'\n[jobs.b]\nschema = 'broken.json'\n\
                [jobs.c]\nschema = 'gone.json'\n[jobs.d]\nschema = { type = 'objekt' }\n\
                [jobs.e]\nschema = { '$ref' = 'http://127.0.0.1:9/schema' }\n\
                [jobs.f]\nschema = { '$ref' = 'file:///etc/hostname' }\n";
    let mistakes = load_in(folder.path(), text, &[]).unwrap_err();
    let says = |index: usize, path: &str, what: &str| {
        let mistake: &String = &mistakes[index];
        assert!(mistake.starts_with(path) && mistake.contains(what), "{mistake}");
    };
    assert_eq!(mistakes.len(), 6, "{mistakes:?}");
    says(0, "jobs.a.schema: is ", "bad.json, which is no JSON Schema: ");
    says(1, "jobs.b.schema: is ", "broken.json, which is not JSON: EOF");
    says(2, "jobs.c.schema: is ", "gone.json, which cannot be read: No such file");
    says(3, "jobs.d.schema: is no JSON Schema: ", "objekt");
    says(4, "jobs.e.schema: is no JSON Schema: ", "127.0.0.1:9");
    says(5, "jobs.f.schema: is no JSON Schema: ", "file:///etc/hostname");

    check(
        "[jobs.connect]\n[jobs.x]\nqueue = 'edits.0'\n[jobs.y]\nqueue = ''\npartitions = 0\n\
         [jobs.z]\nqueue = 'connect'\nmax_queued = '9'\n",
        &[
            "jobs.connect: cannot be a job; socket.io keeps `connect` for itself (line 1)",
            "jobs.x.queue: makes the queue `edits.0`, which is of `edits` (line 3)",
            "jobs.y.queue: is 1 to 256 bytes without control characters, not `` (line 5)",
            "jobs.y.partitions: is a whole number from 1 to 1024, not the number 0 (line 6)",
            "jobs.z.queue: makes the queue `connect`, which is of `jobs.connect` (line 8)",
            "jobs.z.max_queued: is a whole number from 1 to 4294967295, not `9` (line 9)",
        ],
    );
    check(
        "[jobs.ship]\n[subscribe]\nallow = ['{any}']\n",
        &[
            "jobs.ship.queue: makes the queue `ship`, which `subscribe.allow` names a feed (line 1)",
            "subscribe.allow[0]: could name the feed `teams`, which clients know as that of \
             `tree.team.attrs.feed` (line 3)",
        ],
    );
    for event in ["initial", "resume", "set", "move", "disconnect", "error", "newListener"] {
        assert!(load(&format!("[jobs.{event}]"), &[]).is_err(), "{event}");
    }
    good("[jobs.anything]");
}

#[test]
fn a_tree_keeps_the_order_of_its_file() {
    let config = good(
        "[tree.user.collections.zeta]\nfeed = 'z.{user}'\n\
         [tree.user.collections.zeta.collections.two]\nfeed = 'two'\n\
         [tree.user.collections.alpha]\nfeed = 'a.{user}'\ntype = 'sorted_feed'\n\
         [tree.user.collections.'my notes']\nfeed = 'n.{user}'\n\
         [tree.user.collections.zeta.collections.one]\nfeed = 'one'\n",
    );
    let branch = config.tree.user.unwrap();
    let names = |collections: &[crate::tree::Collection]| {
        collections.iter().map(|it| it.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&branch.collections), ["zeta", "alpha", "my notes"]);
    assert_eq!(names(&branch.collections[0].collections), ["two", "one"]);
    assert_eq!(branch.collections[1].kind, shard_router::feed::FeedType::SortedFeed);
}

#[test]
fn feeds_of_the_tree_use_what_is_known_at_their_place() {
    check(
        "[tree.team]\nattrs = { feed = 'team.{team}', id = '{user}' }\n\
         [tree.team.collections.a]\nfeed = 'a.{user}'\nitem = 'team'\n\
         [tree.team.collections.b]\nfeed = 'b.{team}'\nitem = 'm'\ntype = 'queue'\n\
         [tree.team.collections.b.collections.c]\nfeed = 'c.{m}'\nitem = 'm'\n\
         [tree.team.collections.d]\nfeed = 'd.{team'\neditable = ['id', 'x']\ncan_add = 'owner'\n\
         [tree.team.collections.'']\nfed = 'e'\n\
         [tree.team.collections.f]\nfeed = 'f.{team}'\nitem = 'f'\nowner = '{f}!'\ncan_set = 'member'\n",
        &[
            "tree.team.attrs.feed: is the name of one shared feed, without placeholders, not \
             `team.{team}` (line 2)",
            "tree.team.attrs.id: is `{team}`, not `{user}` (line 2)",
            "tree.team.collections.a.feed: has `{user}`; what is known here is `{team}` (line 4)",
            "tree.team.collections.a.item: is `team`, which means something else here (line 5)",
            "tree.team.collections.b.type: is one of `feed`, `sorted_feed`, not `queue` (line 9)",
            "tree.team.collections.b.collections.c.feed: names an item, and so must name `{team}` \
             (line 11)",
            "tree.team.collections.b.collections.c.item: is `m`, which means something else here \
             (line 12)",
            "tree.team.collections.d.owner: is missing; it says who the owner is, such as \
             `{member}` (line 13)",
            "tree.team.collections.d.feed: has a single `{`; a brace itself is written twice \
             (line 14)",
            "tree.team.collections.d.editable[0]: is the name of an attribute, and never `id` \
             (line 15)",
            "tree.team.collections.\"\": is no name: 1 to 256 bytes without control characters \
             (line 17)",
            "tree.team.collections.\"\".feed: is missing (line 17)",
            "tree.team.collections.\"\".fed: is no option; did you mean `feed`? (line 18)",
            "tree.team.collections.f.owner: is one placeholder, such as `{member}`, and nothing \
             else, not `{f}!` (line 22)",
            "tree.team.collections.f.can_set: is no option; there are `feed`, `item`, `type`, `editable`, \
             `can_add`, `can_delete`, `can_move`, `owner`, `collections` (line 23)",
        ],
    );
    check(
        "[tree.team]\nattrs = { feed = 'teams' }\n[tree.teams]\n",
        &[
            "tree.team.attrs.id: is missing; it is `{team}` (line 2)",
            "tree.teams: is no option; did you mean `team`? (line 3)",
        ],
    );
    let rules = "editable = ['t']\ncan_add = 'owner'\ncan_delete = 'member'\nowner = '{m}'\n";
    let text = format!("[tree.team.collections.b]\nfeed = 'b.{{team}}'\nitem = 'm'\n{rules}");
    let b = good(&text).tree.team.unwrap().collections.remove(0);
    assert_eq!((b.rules.can_add, b.rules.can_delete), (Who::Owner, Who::Member));
    assert_eq!(b.rules.can_move, Who::Nobody);
    assert_eq!(b.rules.owner, Some("{m}".parse::<Template>().unwrap()));
}

#[test]
fn templates_that_could_meet_are_equal() {
    check(
        "[tree.team.collections.a]\nfeed = 'x.{team}'\n\
         [tree.user.collections.a]\nfeed = 'x.{user}'\n\
         [tree.user.collections.b]\nfeed = 'user'\n\
         [subscribe]\nallow = ['x.{any}', 'y.{team}', 'y.red']\n",
        &[
            "tree.user.collections.a.feed: could name the same feed as `x.{team}` of \
             `tree.team.collections.a.feed` (line 4)",
            "tree.user.collections.b.feed: could name the feed `user`, which clients know as that \
             of `tree.user.attrs.feed` (line 6)",
            "subscribe.allow[0]: could name the same feed as `x.{team}` of \
             `tree.team.collections.a.feed` (line 8)",
            "subscribe.allow[0]: could name the same feed as `x.{user}` of \
             `tree.user.collections.a.feed` (line 8)",
            "subscribe.allow[2]: could name the same feed as `y.{team}` of `subscribe.allow[1]` \
             (line 8)",
        ],
    );
    check(
        "[tree.team]\nattrs = { feed = 'things', id = '{team}' }\n\
         [tree.team.collections.a]\nfeed = 'news'\n\
         [tree.user]\nattrs = { feed = 'things', id = '{user}' }\n\
         [tree.user.collections.a]\nfeed = 'news'\ncan_add = 'member'\n",
        &[
            "tree.user.attrs.feed: is `things`, which is the feed of `tree.team.attrs.feed` already \
             (line 6)",
            "tree.user.collections.a.feed: is the feed of `tree.team.collections.a.feed` as well; \
             its `type` and who may edit it must be the same (line 8)",
        ],
    );
    good(
        "[tree.team.collections.a]\nfeed = 'news'\n[tree.user.collections.a]\nfeed = 'news'\n\
         [tree.team.collections.b]\nfeed = '{{team.{team}}}.b'\n[subscribe]\nallow = ['news', 'n.{any}']",
    );
}

#[test]
fn a_feed_at_two_places_has_the_same_nested_in_it() {
    fn at(place: &str, feed: &str) -> String {
        format!("[tree.team.collections.{place}]\nfeed = '{feed}'\n")
    }
    #[track_caller]
    fn check_nested(in_a: &[(&str, &str)], in_b: &[(&str, &str)], is_good: bool) {
        let item = "item = 'm'\n";
        let mut text = at("a", "x.{team}") + item + &at("b", "x.{team}") + item;
        for (name, feed) in in_a {
            text += &at(&format!("a.collections.{name}"), feed);
        }
        for (name, feed) in in_b {
            text += &at(&format!("b.collections.{name}"), feed);
        }
        let mistake = "tree.team.collections.b.feed: is the feed of `tree.team.collections.a.feed` as \
                       well; the collections nested in it must be the same (line 5)";
        check(&text, if is_good { &[] } else { std::slice::from_ref(&mistake) });
    }
    let (tasks, news, more) = (("t", "t.{team}.{m}"), ("n", "news"), ("t.collections.n", "news"));
    check_nested(&[], &[], true);
    check_nested(&[tasks], &[tasks], true);
    check_nested(&[tasks, news], &[news, tasks], true);
    check_nested(&[tasks, more], &[tasks, more], true);
    check_nested(&[tasks], &[], false);
    check_nested(&[], &[tasks], false);
    check_nested(&[tasks], &[("u", "t.{team}.{m}")], false);
    check_nested(&[tasks], &[("t", "u.{team}.{m}")], false);
    check_nested(&[("t", "news")], &[("t", "news"), ("u", "news")], false);

    let text = at("a", "x.{team}") + &at("a.collections.b", "x.{team}");
    check(
        &text,
        &["tree.team.collections.a.collections.b.feed: is the feed of \
           `tree.team.collections.a.feed` as well; a feed cannot be nested in itself (line 4)"],
    );
    let text = at("a", "x.{team}")
        + &at("a.collections.b", "y.{team}")
        + &at("a.collections.b.collections.c", "x.{team}");
    check(
        &text,
        &["tree.team.collections.a.collections.b.collections.c.feed: is the feed of \
           `tree.team.collections.a.feed` as well; a feed cannot be nested in itself (line 6)"],
    );
}
