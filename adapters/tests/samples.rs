//! Checks each sample in `contracts/samples` against the code that writes or reads it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use belfry_adapters::inbound::amqp::{
    Envelope, InboxQueries, MessageHandler, MessageMapping, Pattern, StoreCommands,
};
use belfry_adapters::wire::{EventForm, NotificationForm, PageForm, PushForm, Rfc3339};
use belfry_application::push::{Push, Selection, SyncState};
use belfry_application::revoked_tokens::RevokedTokens;
use belfry_application::testing::{InMemoryStore, ManualClock, SequentialIds, epoch, id, user};
use belfry_application::use_cases::{Command, HandleCommands, InboxPage, RevokeTokens};
use belfry_domain::{
    Change, Data, DomainEvent, Draft, InboxState, Link, Message, Notification, NotificationKind,
    Priority, Revision, Timestamp, Title, UnreadCount,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contracts")
}

fn sample_text(name: &str) -> String {
    let file = folder().join("samples").join(format!("{name}.json"));
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[track_caller]
fn is_sample(name: &str, written: &Value) {
    let sample: Value = serde_json::from_str(&sample_text(name)).expect("the sample is JSON");
    assert_eq!(sample, *written, "{name}");
}

fn at(text: &str) -> Timestamp {
    Rfc3339::parse(text).expect("an RFC 3339 time").0
}

const ID: &str = "0198c9a2-4b1e-7c3d-8f00-0123456789ab";
const EPOCH: &str = "0198c9a0-0000-7000-8000-000000000001";

fn notification() -> Notification {
    let draft = Draft {
        id: id(ID),
        user: user("u42"),
        kind: NotificationKind::parse("order.shipped").expect("it is valid"),
        title: Title::parse("Your order is on its way").expect("it is valid"),
        message: Message::parse("It left the warehouse this morning.").expect("it is valid"),
        data: Some(Data::from_valid_json(r#"{"orderId":7}"#).expect("it is valid")),
        link: Some(Link::parse("/orders/7").expect("it is valid")),
        priority: Priority::Normal,
        dedupe_key: None,
        created_at: at("2026-11-23T08:15:30.123Z"),
        expires_at: None,
    };
    draft.into_notification(Revision::new(17))
}

fn read_at() -> Timestamp {
    at("2026-11-23T09:00:00Z")
}

#[test]
fn notification_and_page_match_their_samples() {
    let notification = notification();
    is_sample("notification", &json!(NotificationForm::from(&notification)));
    let state = InboxState { revision: Revision::new(17), unread: UnreadCount::new(3) };
    let next = Some(Revision::new(17));
    let page = InboxPage { items: vec![notification], next, state, epoch: epoch(EPOCH) };
    is_sample("page", &json!(PageForm::from(&page)));
}

#[test]
fn socket_events_match_their_samples() {
    let (count, revision) = (UnreadCount::new(3), Revision::new(17));
    let (after, last) = (Revision::new(18), Revision::new(19));
    let these = Selection::Ids(vec![id(ID)]);
    let sync = SyncState {
        epoch: epoch(EPOCH),
        revision,
        unread: Some(count),
        recovered: true,
        missed: 1,
    };
    let expired =
        Push::Exception { code: "token_expired", message: "the token has expired".into() };
    for (name, push) in [
        ("", Push::Sync(sync)),
        ("", Push::New(Arc::new(notification()))),
        ("", Push::UnreadCount { count, revision }),
        ("", Push::MarkedRead { selection: these, read_at: read_at(), revision: after }),
        (
            "-all",
            Push::MarkedRead { selection: Selection::All, read_at: read_at(), revision: after },
        ),
        ("", Push::Deleted { ids: vec![id(ID)], revision: last }),
        ("", Push::Expiring { expires_at: at("2026-11-23T10:00:00Z") }),
        ("", expired),
    ] {
        let form = PushForm::from(&push);
        let name = format!("socket-{}{name}", form.event.replace(':', "-"));
        is_sample(&name, &serde_json::from_str(form.payload.get()).unwrap());
    }
}

#[test]
fn published_events_match_their_samples() {
    for (change, unread, revision) in [
        (Change::Created(Box::new(notification())), 3, 17),
        (Change::MarkedRead { ids: vec![id(ID)], read_at: read_at() }, 2, 18),
        (Change::AllRead { read_at: read_at() }, 0, 18),
        (Change::Deleted { ids: vec![id(ID)] }, 2, 19),
        (Change::Erased { epoch: epoch(EPOCH) }, 0, 20),
    ] {
        let event = DomainEvent {
            user: user("u42"),
            revision: Revision::new(revision),
            unread: UnreadCount::new(unread),
            change,
        };
        let written = serde_json::from_str(&EventForm::write(&event)).unwrap();
        is_sample(&format!("amqp-out-{}", event.name()), &written);
    }
}

/// The command of a message with this pattern and data.
fn command(pattern: Pattern, data: &RawValue) -> Command {
    let store = Arc::new(InMemoryStore::new(epoch(EPOCH)));
    let clock = Arc::new(ManualClock::at(0));
    let queries = InboxQueries::new(store.clone());
    let revoked = Arc::new(RevokedTokens::empty());
    let revoke_tokens = RevokeTokens::new(store.clone(), revoked, clock.clone());
    let commands = HandleCommands::new(store, clock.clone(), revoke_tokens);
    let handling = StoreCommands::new(commands, queries, Arc::new(SequentialIds::default()), clock);
    let envelope = Envelope {
        pattern,
        name: String::new(),
        data,
        message_id: None,
        trace: None,
        is_request: false,
        is_forwarded: false,
        accepted_at: None,
    };
    let message = handling.decode(&envelope, &MessageMapping::default());
    let message = message.unwrap_or_else(|error| panic!("{data}: {error}"));
    let mut commands: Vec<_> = message.into_commands().collect();
    assert_eq!(commands.len(), 1, "{data}");
    commands.remove(0)
}

fn sample_command(name: &str) -> Command {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(alias = "type")]
        pattern: &'a str,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let text = sample_text(name);
    let Body { pattern, data } = serde_json::from_str(&text).expect("a pattern and data");
    let pattern = match pattern.rsplit('.').next() {
        Some("create" | "created") => Pattern::Create,
        Some("mark_read" | "marked_read") => Pattern::MarkRead,
        Some("mark_all_read") => Pattern::MarkAllRead,
        Some("revoke_tokens") => Pattern::RevokeTokens,
        _ => panic!("{name}: {pattern}"),
    };
    command(pattern, data)
}

#[test]
fn ingest_samples_are_read_as_commands() {
    let created = |command: Command| match command {
        Command::Create(draft) => (draft.user.to_string(), draft.id.to_string()),
        other => panic!("{other:?}"),
    };
    let pair = |user: &str, id: &str| (user.to_owned(), id.to_owned());
    assert_eq!(
        created(sample_command("amqp-in-notification.create")),
        pair("u42", "order-7-shipped")
    );
    assert_eq!(created(sample_command("amqp-in-notification.created")), pair("u42", "n1"));
    assert_eq!(created(sample_command("amqp-in-cloudevent")), pair("u42", "id-1"));
    let bare = sample_text("amqp-in-bare");
    let bare = command(Pattern::Create, serde_json::from_str(&bare).unwrap());
    assert_eq!(created(bare), pair("u42", "order-7-shipped"));

    for name in ["amqp-in-notification.mark_read", "amqp-in-notification.marked_read"] {
        let expected = Command::MarkRead { user: user("u42"), ids: vec![id("order-7-shipped")] };
        assert_eq!(sample_command(name), expected, "{name}");
    }
    let all = sample_command("amqp-in-notification.mark_all_read");
    assert_eq!(all, Command::MarkAllRead { user: user("u42") });

    let issued_before = Some(at("2026-11-23T10:00:00Z"));
    let expected = Command::RevokeTokens { user: user("u42"), issued_before };
    assert_eq!(sample_command("amqp-in-user.revoke_tokens"), expected);
}

#[test]
fn every_sample_is_in_the_contract_and_in_these_tests() {
    let contract =
        fs::read_to_string(folder().join("asyncapi.yaml")).expect("asyncapi.yaml is readable");
    let samples =
        fs::read_dir(folder().join("samples")).expect("the samples are readable").flatten();
    let samples: BTreeSet<_> =
        samples.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    for sample in &samples {
        assert!(
            contract.contains(&format!("./samples/{sample}")),
            "asyncapi.yaml does not reference {sample}"
        );
    }
    for (n, _) in contract.match_indices("./samples/") {
        let rest = &contract[n + "./samples/".len()..];
        let name = rest.split(['"', '\'', '\n', '#']).next().unwrap_or_default();
        assert!(samples.contains(name), "asyncapi.yaml references a missing sample: {name}");
    }
    assert_eq!(samples.len(), 23, "add a check for the new sample here");
}
