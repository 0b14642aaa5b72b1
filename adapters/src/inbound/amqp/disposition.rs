use super::ingest_settings::IngestSettings;
use super::message_handler::HandlerError;
use super::reason::FailureReason;

/// How a message is handled after its command has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disposition {
    /// The command took effect. The message is acknowledged.
    Ack,
    /// The message goes to a retry queue.
    Retry,
    /// The message goes to the dead queue.
    DeadLetter(FailureReason),
}

impl Disposition {
    /// `attempts` is the number of failed attempts before this one.
    pub(super) fn of(
        result: &Result<(), HandlerError>,
        attempts: u32,
        settings: &IngestSettings,
    ) -> Self {
        let retry = |max_attempts, reason| {
            if attempts.saturating_add(1) < max_attempts {
                Self::Retry
            } else {
                Self::DeadLetter(reason)
            }
        };
        match result {
            Ok(()) => Self::Ack,
            Err(HandlerError::Rejected(_)) => Self::DeadLetter(FailureReason::Rejected),
            Err(HandlerError::TooEarly(_)) => {
                retry(settings.max_early_attempts, FailureReason::UnknownNotification)
            }
            Err(HandlerError::Unavailable(_) | HandlerError::Failed(_)) => {
                retry(settings.max_attempts, FailureReason::GaveUp)
            }
        }
    }

    /// The reason with which the message goes to a retry queue or the dead queue; `None` for [`Self::Ack`].
    pub(super) fn failure_reason(self) -> Option<FailureReason> {
        match self {
            Self::Ack => None,
            Self::Retry => Some(FailureReason::Failed),
            Self::DeadLetter(reason) => Some(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The disposition of a message that fails after `attempts` failed attempts.
    fn of_failure(attempts: u32, error: fn() -> HandlerError) -> Disposition {
        let settings = IngestSettings::default();
        Disposition::of(&Err(error()), attempts, &settings)
    }

    #[test]
    fn success_is_acknowledged_and_rejection_dead_lettered_at_once() {
        assert_eq!(Disposition::of(&Ok(()), 0, &IngestSettings::default()), Disposition::Ack);
        let rejected = of_failure(0, || HandlerError::Rejected("x".into()));
        assert_eq!(rejected, Disposition::DeadLetter(FailureReason::Rejected));
    }

    #[test]
    fn failure_is_retried_until_the_limit() {
        let failed = || HandlerError::Failed("x".into());
        assert!((0..5).all(|attempts| of_failure(attempts, failed) == Disposition::Retry));
        for attempts in [5, 6, u32::MAX] {
            let gave_up = Disposition::DeadLetter(FailureReason::GaveUp);
            assert_eq!(of_failure(attempts, failed), gave_up, "{attempts}");
        }
    }

    #[test]
    fn early_message_is_retried_until_its_own_limit() {
        let early = || HandlerError::TooEarly("x".into());
        assert!((0..3).all(|attempts| of_failure(attempts, early) == Disposition::Retry));
        let unknown = Disposition::DeadLetter(FailureReason::UnknownNotification);
        assert_eq!(of_failure(3, early), unknown);
    }
}
