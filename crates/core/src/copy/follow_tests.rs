//! What senders and receivers may say, and in which order.

use super::super::message::{Attributes, Moment, data_header};
use super::*;
use crate::mutate;

const ATTRIBUTES: Attributes = Attributes { mode: 0o644, modified: Moment { seconds: 1, nanoseconds: 2 } };

fn path(text: &str) -> EntryPath {
    EntryPath::new(text.as_bytes()).unwrap()
}

fn head(text: &str, size: u64) -> Message {
    Message::File(FileHead { path: path(text), size: Some(size), offset: 0, attributes: ATTRIBUTES })
}

fn enter(text: &str) -> Message {
    Message::Enter { path: path(text), attributes: ATTRIBUTES }
}

fn leave(text: &str) -> Message {
    Message::Leave { path: path(text), attributes: ATTRIBUTES }
}

enum Part {
    Message(Message),
    Data(&'static [u8]),
}

fn encode(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Message(message) => message.encode(&mut bytes),
            Part::Data(data) => {
                bytes.extend_from_slice(&data_header(data.len()));
                bytes.extend_from_slice(data);
            }
        }
    }
    bytes
}

fn check(parts: &[Part], expected: Result<(), CopyError>) {
    let bytes = encode(parts);
    let (mut stream, mut input) = (SenderStream::default(), bytes.as_slice());
    let result = loop {
        match stream.next(&mut input) {
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert_eq!(result, expected);
}

fn tree() -> Vec<Part> {
    let end = || Part::Message(Message::EndFile { hash: [0; 32] });
    vec![
        Part::Message(Message::Total { files: 2, bytes: 8 }),
        Part::Message(enter("d")),
        Part::Message(Message::Ask { path: path("d/b"), size: 5 }),
        Part::Message(head("d/a", 3)),
        Part::Data(b"ab"),
        Part::Message(Message::Zeros(1)),
        end(),
        Part::Message(enter("d/e")),
        Part::Message(leave("d/e")),
        Part::Message(Message::Symlink { path: path("d/s"), target: b"a".to_vec() }),
        Part::Message(head("d/b", 5)),
        Part::Data(b"abcde"),
        end(),
        Part::Message(leave("d")),
        Part::Message(Message::Finish),
    ]
}

#[test]
fn a_tree_in_order_is_taken_and_everything_else_refused() {
    check(&tree(), Ok(()));
    let rooted = [enter(""), enter("a"), leave("a"), head("b", 0), Message::EndFile { hash: [0; 32] }, leave("")];
    check(&rooted.into_iter().chain([Message::Finish]).map(Part::Message).collect::<Vec<_>>(), Ok(()));
    check(&[enter("a"), leave("a"), leave("")].map(Part::Message), Err(CopyError::Order));
    check(&[enter(""), leave(""), leave("")].map(Part::Message), Err(CopyError::Order));
    let message = Part::Message;
    check(&[message(head("a/b", 0))], Err(CopyError::Order));
    check(&[message(enter("a")), message(head("b", 0))], Err(CopyError::Order));
    check(&[message(enter("a")), message(head("a/b/c", 0))], Err(CopyError::Order));
    check(&[message(enter("a")), message(enter("a/b")), message(leave("a"))], Err(CopyError::Order));
    check(&[message(enter("a")), message(Message::Finish)], Err(CopyError::Order));
    check(&[message(Message::Finish), message(Message::Finish)], Err(CopyError::Order));
    check(&[message(head("a", 1)), Part::Data(b"ab")], Err(CopyError::Size));
    check(&[message(head("a", 1)), message(Message::EndFile { hash: [0; 32] })], Err(CopyError::Size));
    check(&[message(head("a", 1)), message(Message::Zeros(u64::MAX))], Err(CopyError::Size));
    check(&[Part::Data(b"ab")], Err(CopyError::NotNow(super::super::Kind::Data)));
    check(&[message(head("a", 1)), message(head("b", 1))], Err(CopyError::NotNow(super::super::Kind::File)));
    check(&[message(Message::Finished)], Err(CopyError::NotNow(super::super::Kind::Finished)));
}

fn answer(receiving: &mut Receiving, message: &Message) -> Result<Option<FileSeen>, CopyError> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    receiving.next(&mut bytes.as_slice()).map(|found| found.unwrap().1)
}

#[test]
fn outcomes_belong_to_the_files_in_their_order() {
    let mut receiving = Receiving::default();
    receiving.sent(&head("a", 3), None).unwrap();
    receiving.sent(&Message::EndFile { hash: [1; 32] }, Some(3)).unwrap();
    receiving.sent(&head("b", 9), None).unwrap();
    let done = |file| Message::Done(Done { file, hash: [1; 32] });
    assert_eq!(answer(&mut receiving, &done(1)), Err(CopyError::Unasked));
    let seen = answer(&mut receiving, &done(0)).unwrap().unwrap();
    assert_eq!((seen.path, seen.size, seen.sent, seen.stored), (path("a"), 3, Some([1; 32]), Some([1; 32])));
    assert_eq!(answer(&mut receiving, &Message::Finished), Err(CopyError::Unasked));
    let problem = Message::Problem { file: Some(1), path: path("b"), why: "no space".to_owned() };
    assert_eq!(answer(&mut receiving, &problem).unwrap().unwrap().why, "no space");
    assert_eq!(answer(&mut receiving, &Message::Have { offset: 0, hash: [0; 32] }), Err(CopyError::Unasked));
    assert_eq!(answer(&mut receiving, &Message::Finished), Ok(None));
    assert!(receiving.is_finished() && receiving.is_idle());
}

#[test]
fn what_is_under_way_is_bounded() {
    let mut receiving = Receiving::default();
    let mut files = 0;
    while receiving.sent(&head(&"a".repeat(255), 0), None).is_ok() {
        files += 1;
    }
    assert_eq!(files, MAX_UNDER_WAY);
    let mut receiving = Receiving::default();
    let long = format!("{}a", "directory/".repeat(400));
    while receiving.sent(&head(&long, 0), None).is_ok() {}
    assert!(receiving.path_bytes <= MAX_UNDER_WAY_BYTES && receiving.path_bytes + long.len() > MAX_UNDER_WAY_BYTES);
}

#[test]
fn a_quarter_million_hostile_streams_of_either_side_neither_panic_nor_grow() {
    mutate::each(&encode(&tree()), 5, |bytes| {
        let (mut stream, mut receiving, mut input) = (SenderStream::default(), Receiving::default(), bytes);
        while let Ok(Some(piece)) = stream.next(&mut input) {
            if let FromSender::Message(message) = piece
                && receiving.sent(&message, stream.so_far()).is_err()
            {
                break;
            }
        }
        let mut input = bytes;
        while let Ok(Some(_)) = receiving.next(&mut input) {}
    });
}
