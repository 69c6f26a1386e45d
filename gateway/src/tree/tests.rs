use proptest::prelude::*;

use super::*;

fn template(text: &str) -> Template {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn vars(values: &[(&str, &str)]) -> Vars {
    values.iter().fold(Vars::default(), |vars, (name, value)| vars.with(name, value).unwrap())
}

fn ann() -> Identity {
    Identity::new(UserId::new("ann"), vec![TeamId::new("red"), TeamId::new("a.b")])
}

#[test]
fn a_template_is_filled_with_escaped_values_and_takes_them_back() {
    #[track_caller]
    fn check(text: &str, values: &[(&str, &str)], name: &str) {
        let template = template(text);
        assert_eq!(template.fill(&vars(values)), name);
        assert_eq!(template.parse(name), Some(vars(values)));
        assert_eq!(template.to_string(), text);
    }
    check("teams", &[], "teams");
    check("team.{team}.members", &[("team", "red")], "team.red.members");
    check("team.{team}.members", &[("team", "a.b c/é")], "team.a%2Eb%20c%2F%C3%A9.members");
    check("u:{user}", &[("user", "A-z_0~@")], "u:A-z_0~@");
    check("u:{user}", &[("user", "%2E")], "u:%252E");
    check("{{team.{team}}}.members", &[("team", "red")], "{team.red}.members");
    check("{{{team}}}", &[("team", "{x}")], "{%7Bx%7D}");
    check("é.{team}.ü", &[("team", "ö")], "é.%C3%B6.ü");
    check("{team}x.y{user}z", &[("team", "axx"), ("user", "z.")], "axxx.yz%2Ez");
    check("{team}.{team}", &[("team", "a")], "a.a");
}

#[test]
fn what_filling_never_makes_is_not_taken_back() {
    #[track_caller]
    fn check(text: &str, name: &str) {
        assert_eq!(template(text).parse(name), None, "{text} {name}");
    }
    check("team.{team}.members", "team..members");
    check("team.{team}.members", "team.a.b.members");
    check("team.{team}.members", "team.a%2eb.members");
    check("team.{team}.members", "team.%41.members");
    check("team.{team}.members", "team.%4.members");
    check("team.{team}.members", "team.%.members");
    check("team.{team}.members", "team.%FF.members");
    check("team.{team}.members", "team.é.members");
    check("team.{team}.members", "team.a b.members");
    check("team.{team}.members", "team.red.members.");
    check("team.{team}.members", "xteam.red.members");
    check("team.{team}.members", "");
    check("{team}x", "x");
    check("{team}41.y", "%41.y");
    check("{team}.{team}", "a.b");
    check("teams", "teams2");
    check("teams", "");
}

#[test]
fn a_template_that_could_not_be_taken_back_is_refused() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(text.parse::<Template>().unwrap_err().to_string(), expected);
    }
    let close = "needs a byte such as `.` or `:` between `{a}` and `{b}`, \
                 one that never stands in an escaped id";
    check("", "is empty");
    check("{a}{b}", close);
    check("{a}-{b}", close);
    check("{a}%2E{b}", close);
    check("{a}x@~_{b}.{c}", close);
    check("team.{team", "has a single `{`; a brace itself is written twice");
    check("team.team}", "has a single `}`; a brace itself is written twice");
    check("{}", "has the placeholder `{}`, whose name is not of letters, digits, `_` and `-`");
    check(
        "{a b}",
        "has the placeholder `{a b}`, whose name is not of letters, digits, `_` and `-`",
    );
    check("a\0b", "has a control character in it");
}

#[test]
fn templates_overlap_where_one_name_fits_both() {
    #[track_caller]
    fn check(one: &str, other: &str, expected: bool) {
        let (one, other) = (template(one), template(other));
        assert_eq!(one.overlaps(&other), expected, "{one} {other}");
        assert_eq!(other.overlaps(&one), expected, "{other} {one}");
    }
    check("teams", "teams", true);
    check("teams", "team", false);
    check("team.{team}", "team.{any}", true);
    check("team.{team}.members", "team.{team}.tasks", false);
    check("team.{team}.members", "team.{team}.members.{member}.tasks", false);
    check("team.{team}.members", "team.red.members", true);
    check("team.{team}.members", "team.r ed.members", false);
    check("team.{team}", "team.a%2Eb", true);
    check("team.{team}", "team.a%2eb", false);
    check("team.{team}", "team.%41", false);
    check("team.{team}", "team.%", false);
    check("team.{team}", "team.", false);
    check("{a}.{b}", "{a}.{b}.{c}", false);
    check("{a}.x", "y.{b}", true);
    check("{a}x", "y{b}", true);
    check("x{a}", "y{b}", false);
    check("a{x}", "{x}", true);
    check("{a}:{b}", "{a}.{b}", false);
    check("{{{team}}}.a", "{{{team}}}.b", false);
    check("{{{team}}}.a", "{any}.a", false);
}

fn tree() -> Tree {
    let collection = |name: &str, feed: &str, item: Option<&str>, below| Collection {
        name: name.to_owned(),
        feed: template(feed),
        item: item.map(str::to_owned),
        kind: FeedType::Feed,
        rules: Rules { owner: Some(template("{member}")), ..Rules::default() },
        collections: below,
    };
    let tasks = collection("tasks", "team.{team}.members.{member}.tasks", None, vec![]);
    let members = collection("members", "team.{team}.members", Some("member"), vec![tasks]);
    let shared = |name| collection(name, "news", None, vec![]);
    let notes = collection("notes", "user.{user}.notes", None, vec![]);
    let motd = collection("motd", "motd", None, vec![]);
    Tree {
        team: Some(Branch {
            attrs: Some("teams".into()),
            collections: vec![members, shared("a"), motd],
        }),
        user: Some(Branch { attrs: None, collections: vec![notes, shared("b")] }),
    }
}

#[test]
fn a_feed_is_found_at_its_place_and_belongs_to_somebody() {
    #[track_caller]
    fn check(feed: &str, expected: Option<(&str, Root, bool)>) {
        let tree = tree();
        let place = tree.place(feed);
        let found = place.map(|place| {
            let is_ours = place.root.is_of(&ann());
            (place.collection.name.clone(), place.root, is_ours)
        });
        let expected = expected.map(|(name, root, is_ours)| (name.to_owned(), root, is_ours));
        assert_eq!(found, expected);
    }
    let team = |id| Root::Team(TeamId::new(id));
    check("team.red.members", Some(("members", team("red"), true)));
    check("team.a%2Eb.members", Some(("members", team("a.b"), true)));
    check("team.blue.members", Some(("members", team("blue"), false)));
    check("team.red.members.bob.tasks", Some(("tasks", team("red"), true)));
    check("user.ann.notes", Some(("notes", Root::User(UserId::new("ann")), true)));
    check("user.bob.notes", Some(("notes", Root::User(UserId::new("bob")), false)));
    check("news", Some(("b", Root::EveryUser, true)));
    check("motd", Some(("motd", Root::EveryTeam, true)));
    check("teams", None);
    check("team.a.b.members", None);
    check("team.red.members.x.y.tasks", None);
    check("edits.0", None);
}

#[test]
fn the_owner_is_the_user_that_the_name_tells() {
    let tree = tree();
    let place = tree.place("team.red.members.a%2Eb.tasks").unwrap();
    assert_eq!(place.collection.rules.owner(&place.vars), Some("a.b"));
    let members = tree.place("team.red.members").unwrap();
    assert_eq!(members.collection.rules.owner(&members.vars), None);
    let own = members.vars.with("member", "ann").unwrap();
    assert_eq!(members.collection.rules.owner(&own), Some("ann"));
}

#[test]
fn only_what_is_allowed_may_be_subscribed() {
    let texts = ["public.{any}", "team.{team}.chat", "user.{user}.log", "dm.{user}.{any}", "news"];
    let allow = Allow(texts.map(template).to_vec());
    let check = |feed: &str, expected: bool| {
        assert_eq!(allow.may(&ann(), feed), expected, "{feed}");
    };
    check("public.x", true);
    check("public.a%2Eb", true);
    check("public.a.b", false);
    check("public.", false);
    check("team.red.chat", true);
    check("team.a%2Eb.chat", true);
    check("team.a.b.chat", false);
    check("team.blue.chat", false);
    check("user.ann.log", true);
    check("user.bob.log", false);
    check("dm.ann.7", true);
    check("dm.bob.7", false);
    check("news", true);
    check("teams", false);
    assert!(!Allow::default().may(&ann(), "news"));
}

#[test]
fn an_empty_id_has_no_place_in_a_name() {
    assert_eq!(Vars::default().with("member", ""), None);
}

/// Ids as somebody would write them who wants to reach another's feed.
fn id() -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        "a.members.b",
        "x{y}",
        "{team}",
        "..",
        "%2E",
        "%",
        "%41",
        "red",
        "A",
        "é",
        "a:b",
        "\0",
        "}",
    ]);
    prop_oneof![hostile.prop_map(str::to_owned), "\\PC{1,6}", "[a-c.%{}2E]{1,5}"]
}

/// Templates with `{a}`, `{b}` and `{c}`, each at most once, and always told apart.
fn any_template() -> impl Strategy<Value = Template> {
    let literal = "[a.:%x2E]{0,3}";
    let between = "[a%2]{0,1}[.:][a%2E]{0,1}";
    (literal, between, between, literal, 0..4_usize).prop_map(|(start, one, two, end, count)| {
        let text = match count {
            0 => format!("{start}x{end}"),
            1 => format!("{start}{{a}}{end}"),
            2 => format!("{start}{{a}}{one}{{b}}{end}"),
            _ => format!("{start}{{a}}{one}{{b}}{two}{{c}}{end}"),
        };
        text.parse().expect("values are told apart")
    })
}

fn of(template: &Template, ids: &[String; 3]) -> Vars {
    template.placeholders().fold(Vars::default(), |vars, name| {
        let index = ["a", "b", "c"].iter().position(|it| *it == name).expect("one of three");
        vars.with(name, &ids[index]).expect("ids are not empty")
    })
}

proptest! {
    #[test]
    fn filling_and_taking_back_are_inverse(
        template in any_template(), one in [id(), id(), id()], other in [id(), id(), id()],
    ) {
        let (one, other) = (of(&template, &one), of(&template, &other));
        let name = template.fill(&one);
        prop_assert_eq!(template.parse(&name), Some(one.clone()));
        prop_assert_eq!(name == template.fill(&other), one == other);
    }

    #[test]
    fn templates_that_do_not_overlap_never_meet(
        left in any_template(), right in any_template(),
        one in [id(), id(), id()], other in [id(), id(), id()],
    ) {
        let (name, its) = (left.fill(&of(&left, &one)), right.fill(&of(&right, &other)));
        if !left.overlaps(&right) {
            prop_assert_ne!(&name, &its);
        }
        let is_of_both = right.parse(&name).is_some();
        prop_assert!(!is_of_both || left.overlaps(&right), "{} {} {}", left, right, name);
    }

    #[test]
    fn what_is_taken_back_is_what_would_be_filled(template in any_template(), name in "[a.:%x2E]{0,8}") {
        if let Some(vars) = template.parse(&name) {
            prop_assert_eq!(template.fill(&vars), name);
        }
    }

    #[test]
    fn no_id_reaches_the_feeds_of_another_team(team in id(), member in id(), item in id()) {
        let tree = tree();
        let vars = Vars::team(&TeamId::new(&team)).with("member", &member).unwrap();
        let tasks = &tree.team.as_ref().unwrap().collections[0].collections[0];
        let name = tasks.feed.fill(&vars);
        let place = tree.place(&name).unwrap();
        prop_assert_eq!(&place.collection.name, "tasks");
        prop_assert_eq!(place.root, Root::Team(TeamId::new(&team)));
        prop_assert_eq!(place.vars, vars);
        prop_assert!(tree.place(&item).is_none_or(|place| place.vars == Vars::default()));
    }
}
