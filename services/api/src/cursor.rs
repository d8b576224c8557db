//! Pages of a list. A cursor is opaque to the client; inside it is the key of the last item shown,
//! so that items that come or go between two pages are neither shown twice nor skipped.

use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::{Kind, Problem};

/// Items of a page if the client does not say.
const DEFAULT: usize = 50;
/// Items of a page at most.
const MOST: usize = 500;
/// Longest cursor that is read, in bytes.
const CURSOR_BYTES: usize = 512;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Give it as `cursor` to get the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The same page with other items.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(change).collect(),
            next_cursor: self.next_cursor,
        }
    }
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    limit: usize,
    after: Option<String>,
}

impl Ask {
    /// Reads `?limit=` and `?cursor=`.
    ///
    /// # Errors
    /// A problem that names the parameter.
    pub fn new(limit: Option<usize>, cursor: Option<&str>) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(DEFAULT);
        if !(1..=MOST).contains(&limit) {
            let detail = format!("limit: use 1 to {MOST}");
            return Err(Problem::new(Kind::BadRequest, detail));
        }
        let after = cursor.map(|cursor| {
            let bytes = (cursor.len() <= CURSOR_BYTES).then(|| hex::decode(cursor).ok());
            let text = bytes.flatten().and_then(|raw| String::from_utf8(raw).ok());
            text.ok_or_else(|| {
                Problem::new(
                    Kind::BadRequest,
                    "cursor: give `next_cursor` of the page before, unchanged, or none for the first page",
                )
            })
        });
        Ok(Self {
            limit,
            after: after.transpose()?,
        })
    }

    /// How many items at most.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Key of the last item of the page before.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Cuts the page out of items that come in the list's order. `key` is unique and orders the list
    /// in ascending order.
    pub fn cut<T>(&self, items: impl Iterator<Item = T>, key: impl Fn(&T) -> String) -> Page<T> {
        let fresh =
            items.filter(|item| self.after().is_none_or(|after| key(item).as_str() > after));
        let mut items: Vec<T> = fresh.take(self.limit + 1).collect();
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let last = items.last().filter(|_| more).map(&key);
        Page {
            items,
            next_cursor: last.map(hex::encode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(limit: usize, items: &[&str]) -> Vec<Vec<String>> {
        let mut cursor = None;
        let mut pages = Vec::new();
        loop {
            let ask = Ask::new(Some(limit), cursor.as_deref()).expect("legal");
            let owned = items.iter().map(|item| (*item).to_owned());
            let page = ask.cut(owned, Clone::clone);
            pages.push(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return pages;
            }
        }
    }

    #[test]
    fn pages_show_every_item_once_and_the_last_has_no_cursor() {
        assert_eq!(pages(2, &["a", "b", "c"]), [vec!["a", "b"], vec!["c"]]);
        assert_eq!(pages(2, &["a", "b"]), [vec!["a", "b"]]);
        assert_eq!(pages(2, &[]), [Vec::<String>::new()]);
    }

    #[test]
    fn an_item_that_comes_between_two_pages_moves_nothing() {
        let first = Ask::new(Some(1), None).expect("legal");
        let page = first.cut(["b", "c"].into_iter(), |item| (*item).to_owned());
        let second = Ask::new(Some(1), page.next_cursor.as_deref()).expect("legal");
        let page = second.cut(["a", "b", "c"].into_iter(), |item| (*item).to_owned());
        assert_eq!(page.items, ["c"]);
    }

    #[test]
    fn a_cursor_of_somebody_elses_making_and_a_limit_of_zero_are_refused() {
        for cursor in ["zz", "f", "ff", &"61".repeat(300)] {
            assert_eq!(
                Ask::new(None, Some(cursor)).expect_err("refused").status(),
                400
            );
        }
        assert!(Ask::new(Some(0), None).is_err());
        assert!(Ask::new(Some(501), None).is_err());
    }
}
