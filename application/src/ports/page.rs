/// The maximum size of a page. A store applies it in its query, so that it reads at most one row that does not
/// fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// The maximum number of items.
    pub rows: usize,
    /// The maximum sum of the sizes of the items. A single item that is larger is a page of its own, so paging
    /// always advances.
    pub bytes: usize,
}

impl PageLimit {
    /// At most `rows` items of any size.
    pub const fn rows(rows: usize) -> Self {
        Self { rows, bytes: usize::MAX }
    }

    /// The page of the first items that fit. `size` returns the size of an item in bytes.
    pub fn page_of<'a, T: Clone + 'a>(
        self,
        items: impl IntoIterator<Item = &'a T>,
        size: impl Fn(&T) -> usize,
    ) -> Page<T> {
        let mut page = Page::default();
        let mut bytes = 0;
        for item in items {
            bytes += size(item);
            let fits =
                page.items.len() < self.rows && (bytes <= self.bytes || page.items.is_empty());
            if !fits {
                page.more = true;
                break;
            }
            page.items.push(item.clone());
        }
        page
    }
}

/// One page of a result, in the order of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether more items follow.
    pub more: bool,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), more: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_ends_before_the_item_that_exceeds_its_rows_or_bytes() {
        let items = ["first", "again", "third"];
        for (limit, expected, more) in [
            (PageLimit::rows(2), 2, true),
            (PageLimit::rows(3), 3, false),
            (PageLimit { rows: 9, bytes: 10 }, 2, true),
            (PageLimit { rows: 9, bytes: 9 }, 1, true),
            (PageLimit { rows: 9, bytes: 15 }, 3, false),
            // An item that exceeds the limit is alone on its page.
            (PageLimit { rows: 9, bytes: 1 }, 1, true),
            (PageLimit::rows(0), 0, true),
        ] {
            let page = limit.page_of(&items, |item| item.len());
            assert_eq!(page, Page { items: items[..expected].to_vec(), more }, "{limit:?}");
        }
        assert_eq!(PageLimit::rows(2).page_of(&[] as &[&str], |item| item.len()), Page::default());
    }
}
