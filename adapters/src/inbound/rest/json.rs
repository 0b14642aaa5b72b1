//! Parsing of JSON bodies. Errors never repeat values from the body.

use serde::Deserialize;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use super::problem::{FieldError, Problem, ProblemKind};

/// Parses a body. A syntax error is reported with line and column, a wrong type with a JSON Pointer.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    if body.trim_ascii_start().starts_with(b"[") {
        // serde would accept an array for a struct, with the fields in order.
        return Err(FieldError {
            pointer: ROOT.to_owned(),
            detail: "expected an object".to_owned(),
        }
        .into());
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        problem(&error.into_inner(), pointer)
    })?;
    json.end().map_err(|error| problem(&error, ROOT.to_owned()))?;
    Ok(value)
}

/// JSON Pointer of the whole document, as a URI fragment.
const ROOT: &str = "#";

fn problem(error: &serde_json::Error, pointer: String) -> Problem {
    match error.classify() {
        Category::Data => {
            Problem::invalid_body(vec![FieldError { pointer, detail: detail(error) }])
        }
        // serde_json's messages for these errors are fixed texts that repeat nothing from the body.
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::new(ProblemKind::JsonMalformed, error.to_string())
        }
    }
}

/// serde's message without the position and without the value that was found. The value may be a secret that was
/// sent in the wrong field.
fn detail(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => message.to_owned(),
    }
}

/// The path as a JSON Pointer. It contains only field names that the API knows, so it repeats nothing from
/// the body.
fn pointer(path: &Path) -> String {
    path.iter().fold(ROOT.to_owned(), |pointer, segment| match segment {
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
        let problem = parse::<DraftForm>(body).expect_err("the body is invalid");
        let body = problem.into_response().into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn malformed_json_is_reported_with_line_and_column() {
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
    async fn wrong_type_is_reported_with_pointer_and_without_value() {
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
    fn data_is_kept_byte_by_byte() {
        let form: DraftForm = parse(br#"{"data":{"a":[1.50, "\u00e4"]}}"#).unwrap();
        assert_eq!(form.data.unwrap().get(), r#"{"a":[1.50, "\u00e4"]}"#);
    }

    #[test]
    fn too_deeply_nested_body_is_rejected() {
        let body = format!(r#"{{"title":{}"#, "[".repeat(100_000));
        assert!(parse::<DraftForm>(body.as_bytes()).is_err());
    }
}
