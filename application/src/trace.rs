//! The trace context of the current task, from the inbound adapter to the published event. It is stored
//! task-locally, so that use cases, which do not need it themselves, do not have to pass it on.

use std::future::Future;

tokio::task_local! {
    static CURRENT: TraceParent;
}

/// A trace id and the id of the calling span (W3C Trace Context, `traceparent`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(Box<str>);

/// The text is not a [`TraceParent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of version 00")]
pub struct InvalidTraceParent;

impl TraceParent {
    /// Parses version 00: `00-<32 hex>-<16 hex>-<2 hex>` in lower case. Rejects an id that is all zeros.
    pub fn parse(raw: &str) -> Result<Self, InvalidTraceParent> {
        let mut parts = raw.split('-');
        let mut next_is_hex = |length: usize, may_be_zero: bool| {
            parts.next().is_some_and(|part| {
                part.len() == length
                    && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                    && (may_be_zero || part.bytes().any(|b| b != b'0'))
            })
        };
        let is_version_00 = raw.starts_with("00-") && next_is_hex(2, true);
        if is_version_00
            && next_is_hex(32, false)
            && next_is_hex(16, false)
            && next_is_hex(2, true)
            && parts.next().is_none()
        {
            Ok(Self(raw.into()))
        } else {
            Err(InvalidTraceParent)
        }
    }

    /// The value of the header `traceparent`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Runs `work` within the trace `parent`. With `None`, `work` runs within the current trace, if there is one.
pub async fn scope<F: Future>(parent: Option<TraceParent>, work: F) -> F::Output {
    match parent {
        Some(parent) => CURRENT.scope(parent, work).await,
        None => work.await,
    }
}

/// The trace of the current task, if it has one.
pub fn current() -> Option<TraceParent> {
    CURRENT.try_with(Clone::clone).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[tokio::test]
    async fn current_returns_the_trace_of_the_scope() {
        let parent = TraceParent::parse(PARENT).unwrap();
        assert_eq!(parent.as_str(), PARENT);
        let seen = scope(Some(parent.clone()), async { current() }).await;
        assert_eq!(seen, Some(parent));
        assert_eq!(scope(None, async { current() }).await, None);
    }

    #[test]
    fn malformed_traceparent_is_rejected() {
        for raw in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(TraceParent::parse(raw), Err(InvalidTraceParent), "{raw}");
        }
    }
}
