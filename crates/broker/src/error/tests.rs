use super::*;

/// `docs/errors.md` is what users read: it lists every reason, once, with its code, in this order.
#[test]
fn the_documented_list_is_the_codes_list() {
    let documented: Vec<(String, String)> = include_str!("../../../../docs/errors.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 6, "four columns: {line}");
            assert!(cells[3].ends_with('.') && cells[4].ends_with('.'), "sentences: {line}");
            (cells[1].replace('`', ""), cells[2].replace('`', ""))
        })
        .collect();
    let coded: Vec<(String, String)> = Reason::ALL
        .iter()
        .map(|reason| (reason.as_str().to_owned(), reason.code().as_str().to_owned()))
        .collect();
    assert_eq!(documented, coded);
}

#[test]
fn every_reason_is_in_the_list_once() {
    for (index, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index, "{reason} has its place");
    }
}

#[test]
fn an_error_says_the_same_to_people_and_to_programs() {
    let error = Error::field("max_wait_ms", -5, "it cannot be negative");
    assert_eq!(error.to_string(), "the field max_wait_ms is -5, but it cannot be negative");
    assert_eq!(error.metadata(), [("field", "max_wait_ms".to_owned()), ("value", "-5".to_owned())]);
    assert_eq!((error.reason(), error.code().number()), (Reason::RequestInvalid, 3));
}

#[test]
fn text_from_outside_is_shortened() {
    let error = Error::topic_not_found(&"ü".repeat(100_000));
    assert!(error.message().len() < 1_000);
    assert!(error.metadata()[0].1.ends_with('…'));
}
