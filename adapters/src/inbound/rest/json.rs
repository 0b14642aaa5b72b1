//! Reading JSON, and saying what is wrong with it without repeating it.

use serde::Deserialize;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use super::problem::{FieldError, Kind, Problem};

/// Reads a body. What is not JSON is said with its line and column, what is of a wrong type with its
/// place in the document.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    if body.trim_ascii_start().starts_with(b"[") {
        // An array would be taken for an object whose keys were left out.
        return Err(FieldError {
            pointer: ALL.to_owned(),
            detail: "expected an object".to_owned(),
        }
        .into());
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        problem(&error.into_inner(), pointer)
    })?;
    json.end().map_err(|error| problem(&error, ALL.to_owned()))?;
    Ok(value)
}

/// The whole document.
const ALL: &str = "#";

fn problem(error: &serde_json::Error, pointer: String) -> Problem {
    match error.classify() {
        Category::Data => Problem::body(vec![FieldError { pointer, detail: detail(error) }]),
        // What these say is fixed text: nothing of the body is in it.
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::new(Kind::JsonMalformed, error.to_string())
        }
    }
}

/// What was expected. What was found instead comes before it in serde's message, and is left out: it
/// may be a secret in the wrong place.
fn detail(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => message.to_owned(),
    }
}

/// Only names of fields that we know can be in such a path.
fn pointer(path: &Path) -> String {
    path.iter().fold(ALL.to_owned(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } => format!("{pointer}/{key}"),
        Segment::Enum { .. } | Segment::Unknown => pointer,
    })
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;
    use crate::wire::DraftForm;

    async fn problem(body: &[u8]) -> Value {
        let problem = read::<DraftForm>(body).expect_err("it is wrong");
        let body = problem.into_response().into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn what_is_not_json_is_said_with_line_and_column() {
        for (body, detail) in [
            (&b""[..], "EOF while parsing a value at line 1 column 0"),
            (b"{\n\"title\": s3cret}", "expected value at line 2 column 10"),
            (b"{\"title\":\"x\"} s3cret", "trailing characters at line 1 column 15"),
            (b"{\"title\":\"\xff\xfe\"}", "invalid unicode code point at line 1 column 11"),
        ] {
            let problem = problem(body).await;
            assert_eq!(problem["code"], "json_malformed");
            assert_eq!(problem["detail"], detail);
        }
    }

    #[tokio::test]
    async fn a_wrong_type_is_said_with_its_place_and_without_what_was_found() {
        for (body, pointer, detail) in [
            (r#"{"title":{"s3cret":1}}"#, "#/title", "expected a string"),
            (r#"{"title":424242}"#, "#/title", "expected a string"),
            (r#"{"userId":{"s3cret":1}}"#, "#/userId", "expected a string or a whole number"),
            (r#"{"userId":1.5}"#, "#/userId", "expected a string or a whole number"),
            (r#"{"createdAt":"s3cret"}"#, "#/createdAt", "not an RFC 3339 date and time"),
            (r#"["s3cret"]"#, "#", "expected an object"),
            (r#""s3cret, expected peace""#, "#", "expected an object"),
        ] {
            let problem = problem(body.as_bytes()).await;
            assert_eq!(problem["code"], "body_invalid", "{body}");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
            assert_eq!(problem["errors"][0]["detail"], detail, "{body}");
        }
    }

    #[test]
    fn data_comes_through_byte_by_byte() {
        let form: DraftForm = read(br#"{"data":{"a":[1.50, "\u00e4"]}}"#).unwrap();
        assert_eq!(form.data.unwrap().get(), r#"{"a":[1.50, "\u00e4"]}"#);
    }

    #[test]
    fn depth_is_bounded() {
        let body = format!(r#"{{"title":{}"#, "[".repeat(100_000));
        assert!(read::<DraftForm>(body.as_bytes()).is_err());
    }
}
