//! The command table: found by any name, keys found as the server finds them. Arity, key positions
//! and write flags against real servers are in `tests/compat/test_command_table.py`.

use dataplane::command::{
    Access, COMMANDS, Command, KeyError, Keys, LocalCommand, Merge, Repeat, RouteKind, Topic,
    is_http, lookup, named, rows,
};
use dataplane::resp::Span;
use proptest::prelude::*;

fn command(name: &str) -> &'static Command {
    lookup(name.as_bytes()).expect(name)
}

/// The keys of a request written as words.
fn keys(request: &str) -> Result<Vec<&str>, KeyError> {
    let words: Vec<&str> = request.split(' ').collect();
    let offset = |word: &str| word.as_ptr() as usize - request.as_ptr() as usize;
    let span = |word: &&str| (offset(word) as u32, (offset(word) + word.len()) as u32);
    let args: Vec<Span> = words.iter().map(span).collect();
    let command = command(words[0]);
    assert!(command.arity_ok(args.len()), "{request}");
    let mut found = Vec::new();
    command.key_positions(request.as_bytes(), &args, &mut found)?;
    Ok(found.iter().map(|&at| words[at as usize]).collect())
}

fn error(request: &str) -> String {
    keys(request).expect_err(request).to_string()
}

#[test]
fn every_name_is_found_in_any_case_and_no_other() {
    for known in COMMANDS {
        let name = known.name;
        let mixed = name[..1].to_uppercase() + &name[1..];
        for spelling in [name.to_owned(), name.to_uppercase(), mixed] {
            assert_eq!(lookup(spelling.as_bytes()), Some(known), "{spelling}");
        }
        for near in [
            format!("{name}x"),
            format!("x{name}"),
            format!("{name}\0"),
            name.replace('e', "\x05"),
        ] {
            if near != name && !COMMANDS.iter().any(|other| other.name == near) {
                assert_eq!(lookup(near.as_bytes()), None, "{near:?}");
            }
        }
    }
    assert_eq!(lookup(b""), None);
    // Folding case must not make `_` and DEL, or `@` and a backtick, alike.
    assert_eq!(lookup(b"eval\x7fro"), None);
}

#[test]
fn the_table_is_sorted_and_names_nothing_twice() {
    assert!(COMMANDS.is_sorted_by(|a, b| a.name < b.name));
    assert!(
        COMMANDS
            .iter()
            .all(|command| command.name == command.name.to_lowercase())
    );
}

#[test]
fn what_is_sent_to_a_shard_has_keys_and_what_is_answered_here_has_none() {
    for command in COMMANDS {
        match command.route {
            RouteKind::Single
            | RouteKind::Split(_)
            | RouteKind::Script(_)
            | RouteKind::Blocking(_) => {
                assert_ne!(command.keys, Keys::None, "{}", command.name);
            }
            RouteKind::Family(rows) => {
                let named = |row: &Command| row.name.starts_with(&format!("{}|", command.name));
                assert!(rows.iter().all(named), "{}", command.name);
                assert!(
                    rows.is_sorted_by(|a, b| a.name < b.name),
                    "{}",
                    command.name
                );
            }
            // Keys, and nothing that is done with them.
            RouteKind::Local(
                LocalCommand::Watch
                | LocalCommand::Subscribe(Topic::ShardChannel)
                | LocalCommand::Unsubscribe(Topic::ShardChannel),
            ) => {}
            RouteKind::Unsupported(why) => assert!(why.len() > 10, "{}", command.name),
            _ => assert_eq!(command.keys, Keys::None, "{}", command.name),
        }
    }
}

#[test]
fn only_six_commands_are_split() {
    let split = |command: &&Command| matches!(command.route, RouteKind::Split(_));
    let names: Vec<_> = COMMANDS
        .iter()
        .filter(split)
        .map(|command| command.name)
        .collect();
    assert_eq!(names, ["del", "exists", "mget", "mset", "touch", "unlink"]);
    assert_eq!(command("mget").route, RouteKind::Split(Merge::Array));
    assert_eq!(command("mset").route, RouteKind::Split(Merge::Ok));
    assert_eq!(command("ping").route, RouteKind::Local(LocalCommand::Ping));
}

#[test]
fn a_read_may_be_repeated_and_few_writes() {
    let writes: Vec<_> = COMMANDS
        .iter()
        .filter(|command| command.access == Access::Write && command.repeat != Repeat::Unsafe)
        .map(|command| command.name)
        .collect();
    assert_eq!(
        writes,
        [
            "hmset",
            "lset",
            "mset",
            "pfmerge",
            "psetex",
            "set",
            "setex",
            "setrange",
            "sinterstore",
            "sunionstore"
        ]
    );
    assert!(
        COMMANDS
            .iter()
            .all(|command| command.access == Access::Write || command.repeat == Repeat::Safe)
    );
    assert!(command("set").repeat_safe(3));
    assert!(!command("set").repeat_safe(4), "SET k v NX");
    assert!(command("get").repeat_safe(2));
    assert!(!command("incr").repeat_safe(2));
}

#[test]
fn arity_is_exact_or_a_minimum() {
    let allowed = |name: &str| [1, 2, 3, 4].map(|argc| command(name).arity_ok(argc));
    assert_eq!(allowed("get"), [false, true, false, false]);
    assert_eq!(allowed("set"), [false, false, true, true]);
}

#[test]
fn one_key_at_a_fixed_place_is_known_without_the_request() {
    for name in ["get", "set", "incr", "hset", "xadd", "expire"] {
        assert_eq!(command(name).first_key(), Some(1), "{name}");
    }
    for name in [
        "mget", "del", "eval", "xread", "sort", "object", "rename", "ping",
    ] {
        assert_eq!(command(name).first_key(), None, "{name}");
    }
}

#[test]
fn keys_are_where_the_server_looks_for_them() {
    for (request, expected) in [
        ("get a", "a"),
        ("mget a b c", "a b c"),
        ("mset a 1 b 2", "a b"),
        ("rename a b", "a b"),
        ("bitop and d a b", "d a b"),
        ("blpop a b 0", "a b"),
        ("eval x 2 a b c", "a b"),
        ("fcall_ro f 0 a", ""),
        ("zunionstore d 2 a b weights 1 2", "d a b"),
        ("zdiff 1 a withscores", "a"),
        ("sintercard 2 a b limit 1", "a b"),
        ("lmpop 1 a left", "a"),
        ("msetex 2 a 1 b 2 ex 10", "a b"),
        ("xread count 1 streams a b 0 0", "a b"),
        ("xreadgroup group g c noack streams a >", "a"),
        ("xreadgroup group streams c streams a >", "a"),
        ("sort a by nosort get # limit 0 1 desc alpha store b", "a b"),
        ("sort a store b store c", "a b c"),
        ("sort a by w_* get # get o_*->f", "a"),
        ("georadius a 1 2 3 m count 1 any withdist store b", "a b"),
        ("georadiusbymember a m 3 km storedist b", "a b"),
        ("object encoding a", "a"),
        ("xgroup create a g $ mkstream", "a"),
        ("memory usage a samples 1", "a"),
        ("xinfo stream a full", "a"),
    ] {
        let expected: Vec<&str> = expected.split_whitespace().collect();
        assert_eq!(keys(request), Ok(expected.clone()), "{request}");
        let shouted: Vec<String> = expected.iter().map(|key| key.to_uppercase()).collect();
        let found =
            keys(&request.to_uppercase()).map(|keys| keys.into_iter().map(str::to_owned).collect());
        assert_eq!(found, Ok(shouted), "{request}");
    }
}

#[test]
fn what_has_no_key_is_refused() {
    let line = error("object help");
    let why = "'object' is not supported by Shoal with this subcommand";
    assert!(line.starts_with(why), "{line}");
}

#[test]
fn a_subcommand_is_found_in_any_case_and_by_its_full_name() {
    let config = command("config");
    let get = config.subcommand(b"GeT").expect("CONFIG GET");
    assert_eq!((get.name, get.family()), ("config|get", "config"));
    assert_eq!(config.subcommand(b"gets"), None);
    assert_eq!(command("get").subcommand(b"x"), None);
    for row in rows() {
        assert_eq!(named(row.name), Some(row));
    }
    assert_eq!(named("CONFIG"), None);
    assert_eq!(named("config|nothing"), None);
}

#[test]
fn what_harms_servers_has_to_be_allowed() {
    let guarded: Vec<&str> = rows()
        .filter(|row| row.guarded)
        .map(|row| row.name)
        .collect();
    assert_eq!(guarded, ["config|rewrite", "config|set", "debug"]);
}

#[test]
fn a_browser_is_known_by_its_first_word() {
    assert!(is_http(b"POST") && is_http(b"Host:"));
    assert!(!is_http(b"GET") && !is_http(b"HOST"));
}

proptest! {
    #[test]
    fn any_name_is_found_only_if_it_is_in_the_table(name in prop::collection::vec(any::<u8>(), 0..24)) {
        let listed = COMMANDS.iter().find(|command| command.name.as_bytes().eq_ignore_ascii_case(&name));
        prop_assert_eq!(lookup(&name), listed);
    }

    /// Whatever the arguments: positions lie behind the name and within the request, or it is an
    /// error.
    #[test]
    fn key_positions_lie_within_the_request(
        at in 0..COMMANDS.len(),
        words in prop::collection::vec("STREAMS|STORE|BY|GET|BLOCK|COUNT|LIMIT|usage|create|-?[0-9]{1,2}|[a-z*]{0,3}", 0..9),
    ) {
        let command = &COMMANDS[at];
        let (mut buf, mut args) = (Vec::new(), Vec::new());
        for word in [command.name].into_iter().chain(words.iter().map(String::as_str)) {
            args.push((buf.len() as u32, (buf.len() + word.len()) as u32));
            buf.extend_from_slice(word.as_bytes());
        }
        let mut found = vec![7];
        if command.arity_ok(args.len()) && command.key_positions(&buf, &args, &mut found).is_ok() {
            prop_assert!(found.iter().all(|&at| at > 0 && (at as usize) < args.len()), "{:?}", found);
            let routed = matches!(command.route, RouteKind::Single | RouteKind::Split(_));
            prop_assert!(!routed || !found.is_empty());
            if let Some(first) = command.first_key() {
                prop_assert_eq!(found, [first as u32]);
            }
        }
    }
}
