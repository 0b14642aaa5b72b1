use super::super::event::CustomEventName;
use super::super::name::InvalidName;
use super::*;

fn with(presets: &[&str]) -> SocketNames {
    let presets = presets.iter().map(|preset| preset.parse().unwrap()).collect();
    SocketNames { presets, ..SocketNames::default() }
}

/// The names of the new notification and of the unread count.
fn names(names: &SocketNames) -> String {
    let table = SocketTable::new(names).unwrap();
    let names_of = |event| {
        let names: Vec<_> = table.events.names(event).iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    format!("{}; {}", names_of(NamedEvent::New), names_of(NamedEvent::UnreadCount))
}

#[test]
fn presets_have_the_documented_names_and_shapes() {
    let default = "notification:new as bare; notification:unread_count as {count}";
    for (presets, expected) in [
        (&[][..], default),
        (&["belfry"], default),
        (&["nestjs-default"], "notification as bare; unread_count as {count}"),
        (&["colon-case"], "notification:new as bare; notification:count as {count}"),
        (&["snake-case"], "new_notification as bare; unread_count as {count}"),
        (&["camel-case"], "newNotification as bare; unreadCount as {count}"),
        (&["kebab-case"], "new-notification as bare; unread-count as {count}"),
        (
            &["count-number", "camel-case", "wrap-data"],
            "newNotification as {data}; unreadCount as number",
        ),
        (
            &["wrap-notification", "count-unread-count"],
            "notification:new as {notification}; notification:unread_count as {unreadCount}",
        ),
    ] {
        assert_eq!(names(&with(presets)), expected, "{presets:?}");
    }
}

#[test]
fn explicit_names_replace_those_of_the_preset() {
    let mut explicit = with(&["camel-case", "count-number"]);
    explicit.events[0] = vec!["a as {data}".parse().unwrap(), "b".parse().unwrap()];
    explicit.messages[0] = vec!["read as success".parse().unwrap()];
    assert_eq!(names(&explicit), "a as {data}, b as bare; unreadCount as number");
    let messages = SocketTable::new(&explicit).unwrap().messages;
    let rule = |message, ack, is_alias| Some(MessageRule { message, ack, is_alias });
    let mark_read = ClientMessage::MarkRead;
    assert_eq!(messages.find("read"), rule(mark_read, AckShape::Success, true));
    assert_eq!(messages.find("markAsRead"), rule(mark_read, AckShape::Belfry, false));
    assert_eq!(messages.find("mark_as_read"), None);
    let count = rule(ClientMessage::CountUnread, AckShape::Number, true);
    assert_eq!(messages.find("getUnreadCount"), count);
}

#[test]
fn belfry_names_of_messages_remain_under_every_preset() {
    for preset in ["belfry", "nestjs-default", "camel-case"] {
        let messages = SocketTable::new(&with(&[preset])).unwrap().messages;
        for name in ["notification:mark_read", "notification:list", "notification:sync"] {
            let rule = messages.find(name).unwrap();
            assert_eq!((rule.ack, rule.is_alias), (AckShape::Belfry, false), "{name}");
        }
    }
}

#[test]
fn names_that_cannot_be_used_are_rejected_with_a_sentence() {
    let problem = |change: &dyn Fn(&mut SocketNames)| {
        let mut names = with(&["nestjs-default"]);
        change(&mut names);
        SocketTable::new(&names).unwrap_err().to_string()
    };
    // The numbers are the indices of `NamedEvent`.
    for (index, name, expected) in [
        (0, "unread_count", "socket.events.unread_count: the name unread_count has another"),
        (0, "exception", "socket.events.new: the name exception has another meaning"),
        (0, "x as number", "possible are bare, {notification}, {data}"),
        (1, "x as {data}", "possible are {count}, {unreadCount}, number, bare"),
    ] {
        let text = problem(&|names| names.events[index] = vec![name.parse().unwrap()]);
        assert!(text.contains(expected), "{name}: {text}");
    }
    // The numbers are the indices of `ClientMessage`.
    for (index, name, expected) in [
        (0, "notification:list", "socket.messages.mark_read: the name notification:list has"),
        (0, "getNotifications", "socket.messages.list: the name getNotifications has another"),
        (4, "x as number", "possible are belfry, success, bare, items"),
    ] {
        let text = problem(&|names| names.messages[index] = vec![name.parse().unwrap()]);
        assert!(text.contains(expected), "{name}: {text}");
    }
    assert!(problem(&|names| names.presets.push(Preset::CamelCase)).contains("several"));
    let many = |names: &mut SocketNames| {
        names.events[0] = (0..17).map(|n| format!("e{n}").parse().unwrap()).collect();
    };
    assert_eq!(problem(&many), "socket.events.new has more than 16 names");
}

#[test]
fn custom_event_cannot_have_the_name_of_an_event_of_belfry() {
    let parsed = "order:shipped".parse::<CustomEventName>().unwrap();
    assert_eq!(&**parsed.get(), "order:shipped");
    for name in ["notification:new", "notification:sync", "exception", "auth:expiring"] {
        assert_eq!(name.parse::<CustomEventName>(), Err(InvalidName::OwnEvent), "{name}");
    }
    for (name, expected) in [("disconnect", InvalidName::Reserved), ("a b", InvalidName::Malformed)]
    {
        assert_eq!(name.parse::<CustomEventName>(), Err(expected), "{name}");
    }
    let table = SocketTable::new(&with(&["camel-case"])).unwrap().events;
    assert!(table.contains("newNotification"));
    assert!(!table.contains("notification:new"));
}

#[test]
fn malformed_name_is_rejected() {
    for raw in ["", "a b", "a\"", "a\\", "ü", &"x".repeat(65), " as bare", "connect"] {
        assert!(raw.parse::<EventName>().is_err(), "{raw}");
    }
    let problem = "x as list".parse::<MessageName>().unwrap_err().to_string();
    assert!(problem.ends_with("belfry, success, bare, number, {unreadCount}, items"));
    assert!("nest".parse::<Preset>().unwrap_err().to_string().contains("nestjs-default"));
}
