use http::HeaderValue;
use http::header::HeaderName;
use proptest::prelude::*;

use super::*;
use crate::header::{HeaderEdit, HeaderRead};

fn written(head: &RequestHead, edit: impl FnOnce(&mut FieldEditor<'_>)) -> String {
    let mut edits = FieldEdits::default();
    let mut editor = head.forward(&mut edits, head.body());
    edit(&mut editor);
    let mut out = Vec::new();
    write_request(head.method(), head.peer_target(), &editor, &mut out);
    text(out)
}

#[test]
fn forwarded_request_has_the_host_of_its_target_and_no_field_of_its_connection() {
    let sent = "GET HTTP://A.test:80?b HTTP/1.1\r\nHost: b\r\nConnection: close, X-A, Host\r\nX-A: 1\r\n\
        TE: trailers\r\nKeep-Alive: a\r\nProxy-Connection: a\r\nUpgrade: a\r\nX-B: 2\r\n\r\n";
    let expected = "GET /?b HTTP/1.1\r\nX-B: 2\r\nHost: A.test:80\r\n\r\n";
    assert_eq!(written(&request(sent).unwrap(), |_| {}), expected);
}

#[test]
fn connection_option_removes_no_field_that_must_reach_the_peer() {
    let kept = "Host: a\r\nContent-Length: 1\r\nX-Forwarded-For: a\r\nCookie: a\r\nVia: a\r\nTraceparent: a\r\n";
    let options = "host, content-length, x-forwarded-for, cookie, via, traceparent, ,x-a";
    let sent = format!("GET / HTTP/1.1\r\n{kept}X-A: 1\r\nConnection: {options}\r\n\r\n");
    let expected = format!("GET / HTTP/1.1\r\n{kept}\r\n");
    assert_eq!(written(&request(&sent).unwrap(), |_| {}), expected);
}

#[test]
fn request_of_http10_without_host_is_sent_with_one() {
    let head = request("GET / HTTP/1.0\r\nA: b\r\n\r\n").unwrap();
    assert_eq!(
        written(&head, |_| {}),
        "GET / HTTP/1.1\r\nHost: \r\nA: b\r\n\r\n"
    );
    let with_host = written(&head, |fields| fields.set("Host", "peer").unwrap());
    assert_eq!(with_host, "GET / HTTP/1.1\r\nA: b\r\nHost: peer\r\n\r\n");
}

#[test]
fn framing_of_a_request_is_written_as_one_field() {
    let framing = |fields: &str| {
        let head = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).unwrap();
        written(&head, |fields| fields.remove("host")).replace("GET / HTTP/1.1\r\nHost: \r\n", "")
    };
    assert_eq!(framing(""), "\r\n");
    assert_eq!(
        framing("content-length: 5\r\n"),
        "content-length: 5\r\n\r\n"
    );
    assert_eq!(
        framing("Content-Length: 05\r\n"),
        "Content-Length: 5\r\n\r\n"
    );
    assert_eq!(
        framing("Content-Length: 5, 5\r\n"),
        "Content-Length: 5\r\n\r\n"
    );
    assert_eq!(
        framing("transfer-encoding: CHUNKED\r\n"),
        "Transfer-Encoding: chunked\r\n\r\n"
    );
}

#[test]
fn body_may_be_sent_with_another_framing_than_received() {
    let head = response(
        "HTTP/1.1 200 a\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n",
        &Method::GET,
    )
    .unwrap();
    let mut edits = FieldEdits::default();
    let mut out = Vec::new();
    let editor = head.forward(&mut edits, BodyLength::UntilClose);
    write_response(head.status(), None, &editor, &mut out);
    assert_eq!(text(out), "HTTP/1.1 200 OK\r\nA: b\r\n\r\n");
}

#[test]
fn invalid_names_and_values_are_not_added() {
    let head = request("GET / HTTP/1.0\r\nA: b\r\n\r\n").unwrap();
    let mut edits = FieldEdits::default();
    let mut editor = edits.edit(head.fields());
    for value in ["a\r\nb", "a\n", "\0", "\u{7f}", " a", "a\t"] {
        assert_eq!(editor.set("a", value), Err(InvalidField), "{value:?}");
        assert_eq!(editor.append("a", value), Err(InvalidField), "{value:?}");
    }
    for name in ["", "a b", "a:", "a\r\n", "\u{e9}"] {
        assert_eq!(editor.append(name, "a"), Err(InvalidField), "{name:?}");
    }
    assert_eq!(editor.get("a"), Some(b"b".as_slice()));
    assert_eq!(editor.append("a", "\u{e9}\tb"), Ok(()));
}

#[test]
fn edits_go_on_until_they_are_cleared() {
    let head = request("GET / HTTP/1.0\r\nA: b\r\n\r\n").unwrap();
    let mut edits = FieldEdits::default();
    edits.edit(head.fields()).remove("a");
    edits.edit(head.fields()).append("x", "1").unwrap();
    let fields = |edits: &mut FieldEdits| {
        let editor = edits.edit(head.fields());
        editor.iter().map(|it| it.name.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(fields(&mut edits), [b"x"]);
    edits.clear();
    assert_eq!(fields(&mut edits), [b"A"]);
}

#[test]
fn phases_read_and_edit_fields_of_http1() {
    fn run(fields: &mut impl HeaderEdit) {
        let name = HeaderName::from_static("x-a");
        assert_eq!(fields.value(&name).unwrap(), "1");
        fields.append(&name, HeaderValue::from_static("2"));
        assert_eq!(fields.get_all(&name).next_back(), Some(b"2".as_slice()));
        fields.set(
            &HeaderName::from_static("x-b"),
            HeaderValue::from_static("3"),
        );
        assert_eq!(fields.value(&HeaderName::from_static("x-b")).unwrap(), "3");
        fields.remove_where(|name| name.eq_ignore_ascii_case(b"x-a"));
        assert!(!fields.contains(&name));
        fields.set_ref(&name, &HeaderValue::from_static("4"));
        fields.remove(&HeaderName::from_static("x-c"));
    }
    let head = request("GET / HTTP/1.0\r\nX-A: 1\r\nX-C: 1\r\n\r\n").unwrap();
    assert_eq!(
        head.fields()
            .value(&HeaderName::from_static("x-c"))
            .unwrap(),
        "1"
    );
    let mut edits = FieldEdits::default();
    let mut editor = edits.edit(head.fields());
    run(&mut editor);
    let fields: Vec<_> = editor.iter().map(|it| it.name).collect();
    assert_eq!(fields, [b"x-b", b"x-a"]);
}

#[derive(Clone, Debug)]
enum Edit {
    Set(String, String),
    Append(String, String),
    Remove(String),
}

fn edit() -> impl Strategy<Value = Edit> {
    let name = || prop::sample::select(vec!["a", "A", "host", "X-a", "ab", "Content-Length"]);
    let value = || "[a-c]([ -~]?[a-c])?|";
    prop_oneof![
        (name(), value()).prop_map(|(name, value)| Edit::Set(name.to_owned(), value)),
        (name(), value()).prop_map(|(name, value)| Edit::Append(name.to_owned(), value)),
        name().prop_map(|name| Edit::Remove(name.to_owned())),
    ]
}

/// The reference: a list of all fields.
fn apply(fields: &mut Vec<(String, String)>, edit: &Edit) {
    let (removed, added) = match edit {
        Edit::Set(name, value) => (Some(name), Some((name, value))),
        Edit::Append(name, value) => (None, Some((name, value))),
        Edit::Remove(name) => (Some(name), None),
    };
    if let Some(removed) = removed {
        fields.retain(|(name, _)| !name.eq_ignore_ascii_case(removed));
    }
    if let Some((name, value)) = added {
        fields.push((name.clone(), value.clone()));
    }
}

proptest! {
    #[test]
    fn edited_fields_are_read_and_written_as_those_of_a_list(
        received in prop::collection::vec(("(a|A|x-a|b)", "( |\t|)", "[a-c]{0,3}", "( |)"), 0..5),
        edits in prop::collection::vec(edit(), 0..8),
    ) {
        let lines: Vec<_> = received.iter().map(|(name, before, value, after)| format!("{name}:{before}{value}{after}\r\n")).collect();
        let lines = lines.concat();
        let head = request(&format!("GET / HTTP/1.0\r\n{lines}\r\n")).unwrap();
        let mut expected: Vec<_> = received.into_iter().map(|(name, _, value, _)| (name, value)).collect();
        let mut memory = FieldEdits::default();
        let mut editor = memory.edit(head.fields());
        for edit in &edits {
            apply(&mut expected, edit);
            match edit {
                Edit::Set(name, value) => editor.set(name, value).unwrap(),
                Edit::Append(name, value) => editor.append(name, value).unwrap(),
                Edit::Remove(name) => editor.remove(name),
            }
        }
        let list = |editor: &FieldEditor<'_>| -> Vec<(String, String)> {
            let fields = editor.iter();
            fields.map(|it| (text(it.name.to_vec()), text(it.value.to_vec()))).collect()
        };
        prop_assert_eq!(&list(&editor), &expected);
        for name in ["a", "HOST", "x-A", "b", "c"] {
            let first = expected.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            prop_assert_eq!(editor.get(name), first.map(|(_, value)| value.as_bytes()));
            prop_assert_eq!(editor.contains(name), first.is_some());
        }
        let mut out = Vec::new();
        write_response(http::StatusCode::OK, None, &editor, &mut out);
        let lines: Vec<_> = expected.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        prop_assert_eq!(text(out), format!("HTTP/1.1 200 OK\r\n{}\r\n", lines.concat()));
    }
}
