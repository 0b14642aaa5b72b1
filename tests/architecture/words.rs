//! Words that the code must not use: private metaphors, names that a standard term has replaced, and phrases that
//! make a sentence hard to read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::source::{Token, TokenKind, tokens};
use crate::{assert_none, sources};

/// How a retired word is recognised.
#[derive(Clone, Copy)]
enum Form {
    /// Anywhere in a comment, and as a part of any name: `door` in `SocketIoDoor` and `open_door`.
    Word,
    /// Exactly this identifier, anywhere in the code.
    Name,
    /// Exactly this identifier, where it defines an item. Other uses of the word are allowed.
    Definition,
}

use Form::{Definition, Name, Word};

/// Each retired word with the term that replaces it.
const RETIRED: [(Form, &str, &str); 110] = [
    // Sockets
    (Word, "door", "endpoint, inbound adapter, ConnectHandler or SocketIoServer"),
    (Word, "doors", "endpoints or inbound adapters"),
    (Word, "knock", "ConnectRequest or probe"),
    (Word, "knocks", "probes"),
    (Definition, "Arrival", "Admitted"),
    (Name, "TurnedAway", "ConnectError"),
    (Name, "PutOff", "Unavailable"),
    (Name, "let_in", "authenticate"),
    (Name, "come_in", "connect_namespace"),
    (Definition, "enter", "on_connect"),
    (Word, "seat", "NamespaceSocket"),
    (Word, "seats", "namespace sockets"),
    (Name, "Shown", "RequestCredentials"),
    (Name, "Covered", "PrepaidHandshake"),
    (Name, "Inflow", "MessageLimiter or DeliveryBatcher"),
    (Name, "UnderWay", "InFlightPermit"),
    (Name, "Excess", "LimitExceeded or ExcessPolicy"),
    (Definition, "Place", "ConnectionPermit, SessionReservation or NamespaceState"),
    (Name, "keep_place", "reserve"),
    (Name, "give_back", "release"),
    (Name, "take_place", "occupy"),
    (Name, "Outlet", "FrameWriter"),
    (Definition, "Line", "SharedSocket or OutputLine"),
    (Name, "ProtocolSide", "ProtocolStream"),
    (Name, "by_library", "defer_to_library"),
    (Name, "say_last", "close_after"),
    (Name, "hang_up", "abort"),
    (Name, "LastWord", "FinalPacket"),
    (Name, "Parting", "Closing"),
    (Name, "Paced", "ThrottledStream"),
    (Name, "first_head", "initial_request_head"),
    (Name, "lean", "without_unused_buffers"),
    (Name, "leanest", "without_unused_buffers"),
    (Name, "Heard", "Frame"),
    // Messages and the broker
    (Word, "sieve", "BatchExecutor"),
    (Name, "strikes", "failures"),
    (Word, "lane", "OrderingKey or ConfirmChannel"),
    (Word, "lanes", "ordering keys or channels"),
    (Name, "Handling", "MessageHandler"),
    (Definition, "Order", "Command"),
    (Name, "Letter", "FailedMessage"),
    (Name, "Letters", "FailureRouter"),
    (Definition, "letters", "failure_router"),
    (Definition, "Link", "BrokerConnection"),
    (Definition, "Role", "ConnectedTask"),
    (Definition, "Up", "ConnectionStatus"),
    (Definition, "Lost", "ConnectionError"),
    (Word, "errand", "OneShotConnection"),
    (Name, "Needs", "RequiredTopology or EventDeps"),
    (Name, "Outgoing", "Publish"),
    (Definition, "Sent", "Confirmation"),
    (Name, "NotSent", "PublishError"),
    (Name, "Pauses", "Backoff"),
    (Word, "mending", "frame_sanitizer"),
    (Word, "mended", "sanitized"),
    (Name, "measures", "metrics"),
    (Definition, "hits", "exceeded"),
    (Definition, "hit", "record_exceeded"),
    (Name, "Lately", "LogThrottle"),
    (Name, "takers", "consumers"),
    (Name, "Hearing", "EventSource"),
    (Name, "greeting", "startup_banner"),
    // Sessions and use cases
    (Name, "Announcement", "PushBatch or Delivery"),
    (Name, "Which", "Selection"),
    (Name, "keep_time", "run_expiry"),
    (Name, "end_what_is_over", "close_expired"),
    (Name, "remind", "schedule_expiry"),
    (Name, "next_look", "next_check"),
    (Name, "falls_behind", "mark_lagging"),
    (Name, "catch_up_those_behind", "catch_up_lagging"),
    (Name, "welcome", "start"),
    (Name, "dismiss", "drain"),
    (Name, "send_away", "disconnect"),
    (Name, "asks_back", "should_reconnect"),
    (Definition, "Seen", "ResumePoint"),
    (Definition, "Once", "Idempotent or IdempotencyKey"),
    (Name, "Twin", "Duplicate"),
    (Name, "Standing", "InboxPlan"),
    (Name, "Intake", "CreatePlan or DraftLimits"),
    (Definition, "intake", "create_plan or draft_limits"),
    (Word, "story", "use case or log"),
    (Word, "stories", "use cases or logs"),
    (Name, "of_devices", "socket_use_cases"),
    (Name, "of_callers", "rest_use_cases"),
    // Stores
    (Name, "Lead", "OutboxLease"),
    (Name, "LedHere", "LeaderFlag"),
    (Definition, "Waker", "CommitNotifier"),
    (Definition, "spare", "clear"),
    (Name, "apart", "separate_pool"),
    // HTTP and tokens
    (Name, "Doing", "Authorized"),
    (Name, "Posted", "JsonBody"),
    (Word, "stranger", "anonymous"),
    (Definition, "observe", "request_telemetry"),
    (Name, "WebJwks", "JwksClient"),
    (Name, "Unopened", "UnverifiedToken"),
    (Definition, "pieces", "microbenchmarks"),
    // Tests
    (Name, "Siege", "AttackScenario"),
    (Name, "bear", "run_during"),
    (Name, "endure", "inject"),
    (Name, "nurse", "reconnect_stuck"),
    (Name, "Strike", "FaultInjector"),
    (Name, "Guests", "Clients"),
    (Name, "Crowd", "Clients"),
    (Name, "deeds", "attempts"),
    (Name, "Keeper", "ServerSupervisor"),
    (Name, "keeper", "server_supervisor"),
    (Definition, "floor", "bare_bridge"),
    // Deliver, publish, emit, log, return; deliver and receive
    (Name, "Told", "the delivered or published type, by its name"),
    (Name, "told", "delivered, published or logged"),
    (Name, "tell", "deliver, publish, emit, log or return"),
];

/// Files that may use a retired word, with the word and its meaning there.
const EXCEPTIONS: [(&str, &str, &str); 1] =
    [("domain/src/notification/fields.rs", "Link", "the link of a notification")];

/// Phrases that comments of the product must not use. Instead, a comment names the actor and uses a precise verb.
const PHRASES: [&str; 6] = ["whoever", "somebody", "nobody", "is told", "told", "tell"];

/// Files that may still use such phrases, with the number of uses. The numbers may only become smaller.
const ALLOWED: [(&str, usize); 0] = [];

/// The retired words by spelling, with how each is recognised and what replaces it.
type Retired = BTreeMap<&'static str, (Form, &'static str)>;

/// Retired words in the files, and exceptions that no file needs.
fn retired_words(files: &[(PathBuf, String)], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let retired: Retired =
        RETIRED.iter().map(|(form, word, instead)| (*word, (*form, *instead))).collect();
    let mut breaches = Vec::new();
    let mut needed = vec![false; exceptions.len()];
    for (path, text) in files {
        let tokens = tokens(text);
        for (at, token) in tokens.iter().enumerate() {
            for word in retired_in(&retired, &tokens, at) {
                let excepted = exceptions
                    .iter()
                    .position(|(file, what, _)| path.as_os_str() == *file && *what == word);
                match excepted {
                    Some(exception) => needed[exception] = true,
                    None => breaches.push(format!(
                        "{}:{}: {word} is retired: {}",
                        path.display(),
                        token.line,
                        retired[word].1
                    )),
                }
            }
        }
    }
    for ((file, word, _), needed) in exceptions.iter().zip(needed) {
        if !needed {
            breaches.push(format!("the exception for {word} in {file} is not needed any more"));
        }
    }
    breaches
}

/// The retired words in the token at index `at`.
fn retired_in(retired: &Retired, tokens: &[Token], at: usize) -> BTreeSet<&'static str> {
    const DEFINING: [&str; 7] = ["enum", "fn", "mod", "struct", "trait", "type", "union"];
    let find =
        |spelling: &str| retired.get_key_value(spelling).map(|(word, (form, _))| (*word, *form));
    let as_word = |spelling: &str| match find(&spelling.to_lowercase()) {
        Some((word, Word)) => Some(word),
        _ => None,
    };
    match &tokens[at].kind {
        TokenKind::Comment(text) => {
            text.split(|c: char| !c.is_alphanumeric()).filter_map(as_word).collect()
        }
        TokenKind::Name(name) => {
            let before = at.checked_sub(1).and_then(|before| tokens[before].name());
            let is_defined = before.is_some_and(|keyword| DEFINING.contains(&keyword));
            let whole = match find(name) {
                Some((word, Name)) => Some(word),
                Some((word, Definition)) if is_defined => Some(word),
                _ => None,
            };
            parts_of(name).filter_map(as_word).chain(whole).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// The words of a name: `Socket`, `Io` and `Door` of `SocketIoDoor`.
fn parts_of(name: &str) -> impl Iterator<Item = &str> {
    name.split('_').flat_map(|part| {
        let starts: Vec<usize> = part
            .char_indices()
            .filter(|(at, c)| *at == 0 || c.is_uppercase())
            .map(|(at, _)| at)
            .chain([part.len()])
            .collect();
        (1..starts.len()).map(move |n| &part[starts[n - 1]..starts[n]])
    })
}

/// Where comments use one of the phrases: the line and the phrase.
fn phrases_in(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for token in tokens(text) {
        let Some(comment) = token.comment() else {
            continue;
        };
        let words: Vec<String> = comment
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        let spaced = format!(" {} ", words.join(" "));
        // "is told" also contains "told", but is reported once.
        let phrase = PHRASES.into_iter().find(|phrase| spaced.contains(&format!(" {phrase} ")));
        found.extend(phrase.map(|phrase| (token.line, phrase)));
    }
    found
}

/// Banned phrases in the files beyond their allowance, and allowances that are too high.
fn banned_phrases(files: &[(PathBuf, String)], allowed: &[(&str, usize)]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, text) in files {
        let found = phrases_in(text);
        let name = path.to_str().unwrap_or_default();
        let allowed = allowed.iter().find(|(file, _)| *file == name).map_or(0, |(_, count)| *count);
        if found.len() > allowed {
            breaches.extend(found.iter().map(|(line, phrase)| format!("{name}:{line}: {phrase}")));
        } else if found.len() < allowed {
            breaches.push(format!("{name}: lower the allowance from {allowed} to {}", found.len()));
        }
    }
    let gone =
        allowed.iter().filter(|(file, _)| !files.iter().any(|(path, _)| path.as_os_str() == *file));
    breaches.extend(gone.map(|(file, _)| format!("{file}: the allowance is not needed any more")));
    breaches
}

fn product() -> Vec<(PathBuf, String)> {
    ["domain", "application", "adapters", "bootstrap"].into_iter().flat_map(sources).collect()
}

#[test]
fn no_retired_word_is_used() {
    let tests = ["architecture", "benches", "contract", "e2e", "fuzz/targets", "harness"];
    let tests = tests.into_iter().chain(["integration", "load"]);
    let tests = tests.flat_map(|folder| sources(&format!("tests/{folder}")));
    let mut files: Vec<_> = product().into_iter().chain(tests).collect();
    // This file names the words in order to explain them.
    files.retain(|(path, _)| path != Path::new("tests/architecture/words.rs"));
    assert_none(&retired_words(&files, &EXCEPTIONS));
}

#[test]
fn comments_of_the_product_use_no_banned_phrase() {
    assert_none(&banned_phrases(&product(), &ALLOWED));
}

fn file(text: &str) -> [(PathBuf, String); 1] {
    [(PathBuf::from("a.rs"), text.to_owned())]
}

#[test]
fn a_retired_word_is_found_in_comments_names_and_definitions() {
    let text =
        "/// Opens the door.\nfn open_door() -> SocketIoDoor {}\nstruct Place;\nuse a::Twin;";
    let door = "door is retired: endpoint, inbound adapter, ConnectHandler or SocketIoServer";
    let expected = [
        format!("a.rs:1: {door}"),
        format!("a.rs:2: {door}"),
        format!("a.rs:2: {door}"),
        "a.rs:3: Place is retired: ConnectionPermit, SessionReservation or NamespaceState"
            .to_owned(),
        "a.rs:4: Twin is retired: Duplicate".to_owned(),
    ];
    assert_eq!(retired_words(&file(text), &[]), expected);
}

#[test]
fn similar_words_and_other_uses_are_allowed() {
    let text = "// Place the order of dead letters indoors; a link.\n\
                fn place(order: Ordering, x: link::Link) { let s = \"the door\"; span.enter(); }";
    assert_none(&retired_words(&file(text), &[]));
}

#[test]
fn an_exception_that_is_not_needed_is_found() {
    let exceptions = [("a.rs", "Link", "for this test")];
    assert_none(&retired_words(&file("struct Link;"), &exceptions));
    let expected = ["the exception for Link in a.rs is not needed any more"];
    assert_eq!(retired_words(&file(""), &exceptions), expected);
}

#[test]
fn banned_phrases_are_found_in_comments_only() {
    let text = "/// Whoever asks is told.\n// It is told,\n// so tell it\nlet nobody = \"told\";";
    let expected = ["a.rs:1: whoever", "a.rs:2: is told", "a.rs:3: tell"];
    assert_eq!(banned_phrases(&file(text), &[]), expected);
    assert_none(&banned_phrases(&file(text), &[("a.rs", 3)]));
    assert_none(&banned_phrases(&file("// A teller told_them; intellect."), &[]));
}

#[test]
fn an_allowance_that_is_too_high_is_found() {
    let allowed = [("a.rs", 2), ("gone.rs", 1)];
    let expected =
        ["a.rs: lower the allowance from 2 to 1", "gone.rs: the allowance is not needed any more"];
    assert_eq!(banned_phrases(&file("// told"), &allowed), expected);
}
