//! Listings that come a page at a time.

use std::future::Future;

use crate::Error;

/// All items of a listing. `ask` gives the items of the page with this token, and the token of the next page, which is
/// empty at the end.
pub(crate) async fn all_pages<T, F>(what: &str, ask: impl Fn(String) -> F) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<(Vec<T>, String), Error>>,
{
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let (items, next) = ask(token.clone()).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        if next == token {
            return Err(Error::nonsense(format!("a page of {what} names itself as the next one")));
        }
        token = next;
    }
}
