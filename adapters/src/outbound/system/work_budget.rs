use std::time::Duration;

use async_trait::async_trait;
use belfry_application::ports::WorkBudget;
use belfry_domain::UserId;

use crate::limits::{Cost, UserWork};

#[async_trait]
impl WorkBudget for UserWork {
    async fn available(&self, user: &UserId) {
        loop {
            match self.time_to_available(user) {
                Duration::ZERO => return,
                wait => tokio::time::sleep(wait).await,
            }
        }
    }

    fn charge(&self, user: &UserId, notifications: usize, text_bytes: usize) {
        let cost = Cost::of_notifications(notifications) + Cost::of_text(text_bytes);
        Self::charge(self, user, cost);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use belfry_application::testing::user;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::limits::PerSecond;

    #[tokio::test]
    async fn budget_is_available_again_when_the_user_s_debt_is_paid() {
        let (work, ada) = (UserWork::new(PerSecond::new(1_000), 8), user("ada"));
        let available = |name| work.time_to_available(&user(name)).is_zero();
        assert!(work.available(&ada).now_or_never().is_some(), "the full budget is available");
        // A tenth of a second more than the burst.
        WorkBudget::charge(&work, &ada, 1_000, 2_000 * 4_096);
        let charged = Instant::now();
        assert!(!available("ada") && available("bob"));
        work.available(&ada).await;
        assert!(charged.elapsed() >= Duration::from_millis(90), "{:?}", charged.elapsed());
    }
}
