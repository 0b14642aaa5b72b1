use belfry_application::use_cases::ListInbox;

use super::{Integer, InvalidForm};

/// Checks the maximum number of notifications on a page that a client requests. `raw` is the field `limit`; `None`
/// means the default.
pub fn page_limit(raw: Option<Integer>) -> Result<usize, InvalidForm> {
    const DEFAULT: usize = 20;
    let max = ListInbox::MAX_LIMIT;
    match raw.map(Integer::to) {
        None => Ok(DEFAULT),
        Some(Some(limit)) if (1..=max).contains(&limit) => Ok(limit),
        Some(_) => Err(InvalidForm::new("limit", format_args!("must be a number from 1 to {max}"))),
    }
}
