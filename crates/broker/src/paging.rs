//! How long a page of a list is.

/// The most entries in a page, and the default.
const MAX_PAGE: usize = 1_000;

/// How many entries a page has at most, of which `asked` are wanted; 0 is the default.
pub(crate) fn page_size(asked: usize) -> usize {
    if asked == 0 { MAX_PAGE } else { asked.min(MAX_PAGE) }
}
