use std::sync::Arc;

use belfry_application::push::ForwardedPush;
use belfry_domain::{Link, LinkSchemes};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct LinkForm<'a> {
    #[serde(borrow)]
    link: Option<&'a RawValue>,
}

/// Replaces the link of a notification with `null` if the link is invalid or its scheme is not allowed. The rest
/// of the JSON stays unchanged. The notification is forwarded without its link, because a device needs the
/// notification more than the link.
///
/// If a notification has several fields `link`, all are removed. A client would use the last one, but `serde`
/// rejects a repeated field, so that one cannot be checked.
pub(super) fn without_rejected_link(push: ForwardedPush, schemes: &LinkSchemes) -> ForwardedPush {
    let ForwardedPush::New(json) = &push else { return push };
    // Most notifications have no link and need not be parsed. A backslash may be part of an escaped `link`,
    // such as `l\u0069nk`.
    if !json.contains("link") && !json.contains('\\') {
        return push;
    }
    match serde_json::from_str::<LinkForm<'_>>(json) {
        Ok(LinkForm { link: Some(link) }) if !is_accepted(link, schemes) => {
            ForwardedPush::New(with_null_for(link, json))
        }
        Ok(_) => push,
        Err(_) => ForwardedPush::New(without_links(json)),
    }
}

/// Whether the link is valid and its scheme is allowed, by the rules of store mode, which ignores whitespace around it.
/// Also `true` if it is not a string, because no client can follow it.
fn is_accepted(link: &RawValue, schemes: &LinkSchemes) -> bool {
    let Ok(text) = serde_json::from_str::<String>(link.get()) else { return true };
    Link::parse(text.trim()).is_ok_and(|link| schemes.check(&link).is_ok())
}

/// The JSON with `null` in place of `value`, which must be a slice of `json`.
fn with_null_for(value: &RawValue, json: &str) -> Arc<str> {
    let start = value.get().as_ptr().addr() - json.as_ptr().addr();
    let end = start + value.get().len();
    [&json[..start], "null", &json[end..]].concat().into()
}

/// The object without any member named `link`; the order of the others may change.
fn without_links(json: &str) -> Arc<str> {
    type Members<'a> = std::collections::BTreeMap<String, &'a RawValue>;
    let members = serde_json::from_str::<Members<'_>>(json).map(|mut members| {
        members.remove("link");
        members
    });
    let text = members.and_then(|members| serde_json::to_string(&members));
    text.map_or_else(|_| json.into(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(json: &str) -> String {
        let push = ForwardedPush::New(json.into());
        match without_rejected_link(push, &LinkSchemes::default()) {
            ForwardedPush::New(json) => json.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn notification_with_an_accepted_link_or_none_is_unchanged() {
        for json in [
            r#"{"id":1.50,  "a":"\u00e4" }"#,
            r#"{"title":"Hi", "link":"/orders/7"}"#,
            r#"{"link":"https:\/\/example.org"}"#,
            r#"{"link":" https://example.org\n"}"#,
            r#"{"link":null}"#,
            r#"{"link":7}"#,
            r#"{"data":{"link":"myapp:7"}}"#,
        ] {
            assert_eq!(forwarded(json), json);
        }
    }

    #[test]
    fn rejected_link_is_replaced_by_null_and_the_rest_is_unchanged() {
        for link in [
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "java\\u0073cript:alert(1)",
            "java\\tscript:alert(1)",
            " javascript:alert(1)",
            "\\u0001javascript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "intent://x",
            "myapp:7",
            "",
        ] {
            let json = format!(r#"{{"id":1.50, "link" : "{link}",  "data":{{"link":"{link}"}}}}"#);
            let expected = format!(r#"{{"id":1.50, "link" : null,  "data":{{"link":"{link}"}}}}"#);
            assert_eq!(forwarded(&json), expected);
        }
        assert_eq!(forwarded(r#"{"l\u0069nk":"file:x"}"#), r#"{"l\u0069nk":null}"#);
    }

    #[test]
    fn repeated_link_is_removed() {
        let json = r#"{"link":"/ok","title":"Hi","link":"javascript:alert(1)"}"#;
        assert_eq!(forwarded(json), r#"{"title":"Hi"}"#);
    }
}
