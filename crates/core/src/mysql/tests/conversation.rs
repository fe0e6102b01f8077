//! Talks between a client and a server, as they are recorded.

use super::super::Violation;
use super::super::capability::{DEPRECATE_EOF, LOCAL_FILES, PROGRESS};
use super::super::packet::{HEADER_BYTES, Head};
use super::*;

const CLIENT: bool = true;
const SERVER: bool = false;

#[test]
fn queries_are_numbered_and_their_rows_counted_with_both_kinds_of_ends() {
    for (agreed, middle, end) in [(0, vec![EOF], EOF), (DEPRECATE_EOF, vec![], END)] {
        let rows = [vec![&[1][..], COLUMN], middle, vec![b"\x011", b"\x012", b"\xfb", b"\x00", end]].concat();
        let lines = [
            (CLIENT, command(3, b"SELECT a FROM t")),
            (SERVER, packets(1, &rows)),
            (CLIENT, command(3, b"DELETE FROM t")),
            (SERVER, packets(1, &[OK])),
            (CLIENT, command(3, b"SELECT nothing")),
            (SERVER, packets(1, &[NO_TABLE])),
            (CLIENT, command(14, b"")),
            (SERVER, packets(1, &[OK])),
            (CLIENT, command(9, b"")),
            (SERVER, packets(1, &[b"Uptime: 3  Threads: 1"])),
            (CLIENT, command(2, b"shop")),
            (SERVER, packets(1, &[OK])),
            (CLIENT, command(1, b"")),
        ];
        let talk = said(agreed, &lines);
        use StatementKind::{Command, Query};
        use StatementOutcome::{Done, Failed};
        let shown = [
            (Query, 2, 0, "SELECT a FROM t"),
            (Query, 3, 0, "DELETE FROM t"),
            (Query, 4, 0, "SELECT nothing"),
            (Command, 5, 0, "USE shop"),
        ];
        assert_eq!(talk.shown(), shown);
        let ends =
            [(2, Done, Some(4), ""), (3, Done, Some(3), ""), (4, Failed, None, "1146 (42S02)"), (5, Done, None, "")];
        assert_eq!(talk.ends(), ends);
        assert!(talk.ended.iter().all(|end| end.connection == 5));
        assert!(talk.conversation.has_quit());
        // Everything passed as it was.
        let of = |who| lines.iter().filter(|line| line.0 == who).flat_map(|line| line.1.clone()).collect::<Vec<_>>();
        assert_eq!((talk.to_server, talk.to_client), (of(CLIENT), of(SERVER)));
    }
}

#[test]
fn several_statements_have_one_text_and_their_rows_together() {
    let lines = [
        (CLIENT, command(3, b"DELETE FROM a; SELECT 1; SELECT broken")),
        (SERVER, packets(1, &[OK_AND_MORE, &[1], COLUMN, EOF, b"\x011", EOF_AND_MORE])),
        (SERVER, packets(7, &[NO_TABLE])),
    ];
    let talk = said(0, &lines);
    assert_eq!(talk.ends(), [(2, StatementOutcome::Failed, Some(3), "1146 (42S02)")]);
}

#[test]
fn prepared_statements_are_recorded_when_prepared_and_each_time_they_run() {
    let described = [&[0, 9, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0][..], COLUMN, COLUMN, EOF, COLUMN, EOF];
    let cursor = &[0xfe, 0, 0, 0x42, 0][..];
    let last_rows = &[0xfe, 0, 0, 0x82, 0][..];
    let lines = [
        (CLIENT, command(0x16, b"SELECT a FROM t WHERE a > ? AND password = 'x' LIMIT ?")),
        (SERVER, packets(1, &described)),
        (CLIENT, command(0x17, &[9, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 8, 0])),
        (SERVER, packets(1, &[&[1], COLUMN, EOF, b"\0\0\x01", b"\0\0\x02", EOF])),
        (CLIENT, [command(0x18, &[9, 0, 0, 0, 0, 0, b'x']), command(0x1a, &[9, 0, 0, 0])].concat()),
        (SERVER, packets(1, &[OK])),
        // With a cursor.
        (CLIENT, command(0x17, &[9, 0, 0, 0, 1, 1, 0, 0, 0])),
        (SERVER, packets(1, &[&[1], COLUMN, cursor])),
        (CLIENT, command(0x1c, &[9, 0, 0, 0, 2, 0, 0, 0])),
        (SERVER, packets(1, &[b"\0\0\x01", b"\0\0\x02", cursor])),
        (CLIENT, command(0x1c, &[9, 0, 0, 0, 2, 0, 0, 0])),
        (SERVER, packets(1, &[b"\0\0\x03", last_rows])),
        (CLIENT, [command(0x19, &[9, 0, 0, 0]), command(0x17, &[9, 0, 0, 0, 0, 1, 0, 0, 0])].concat()),
        (SERVER, packets(1, &[b"\xff\xdb\x04#HY000Unknown prepared statement"])),
        // MariaDB's clients do not wait for the number.
        (CLIENT, [command(0x16, b"DO 1"), command(0x17, &[255, 255, 255, 255, 0, 1, 0, 0, 0])].concat()),
        (SERVER, [packets(1, &[&[0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]), packets(1, &[OK])].concat()),
    ];
    let talk = said(0, &lines);
    use StatementKind::{Command, Execute, Prepare};
    let text = "SELECT a FROM t WHERE a > ? AND password = '***' LIMIT ?";
    let shown = [
        (Prepare, 2, 0, text),
        (Execute, 3, 2, text),
        (Execute, 4, 2, text),
        (Command, 5, 2, "(further rows)"),
        (Command, 6, 2, "(further rows)"),
        (Execute, 7, 0, "(prepared statement 9, which is not known)"),
        (Prepare, 8, 0, "DO 1"),
        (Execute, 9, 8, "DO 1"),
    ];
    assert_eq!(talk.shown(), shown);
    assert!(talk.statements[1].masked);
    use StatementOutcome::{Done, Failed, Suspended};
    let ends = [
        (2, Done, None, ""),
        (3, Done, Some(2), ""),
        (4, Suspended, None, ""),
        (5, Suspended, Some(2), ""),
        (6, Done, Some(1), ""),
        (7, Failed, None, "1243 (HY000)"),
        (8, Done, None, ""),
        (9, Done, Some(3), ""),
    ];
    assert_eq!(talk.ends(), ends);
}

#[test]
fn bound_values_are_recorded_only_where_they_are_asked_for() {
    for asked in [false, true] {
        let mut talk = Talk::new(0, 3);
        talk.conversation = Conversation::new(0, 5, 1).record_parameters(asked);
        talk.client(&command(0x16, b"DO ? + ?")).unwrap();
        let described = [&[0, 9, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0][..], COLUMN, COLUMN, EOF];
        talk.server(&packets(1, &described)).unwrap();
        talk.client(&command(0x18, &[9, 0, 0, 0, 1, 0, b'x'])).unwrap();
        let execution = [9, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 8, 0, 252, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        talk.client(&command(0x17, &execution)).unwrap();
        talk.server(&packets(1, &[OK])).unwrap();
        let values = asked.then(|| vec![Some("7".to_owned()), Some("(sent ahead)".to_owned())]);
        assert_eq!(talk.statements[1].parameters, values);
    }
}

#[test]
fn what_is_not_let_through_is_answered_in_its_turn_and_never_reaches_the_server() {
    let lines = [
        (CLIENT, [command(3, b"DO 1"), command(0x11, b"root\0\0"), command(3, b"DO 2"), command(0xfe, b"")].concat()),
        (SERVER, packets(1, &[OK])),
        (SERVER, packets(1, &[OK])),
    ];
    let talk = said(0, &lines);
    assert_eq!(talk.to_server, [command(3, b"DO 1"), command(3, b"DO 2")].concat());
    let mut answers = talk.to_client.as_slice();
    let mut kinds = Vec::new();
    while let Some(head) = Head::read(answers) {
        let (packet, rest) = answers.split_at(HEADER_BYTES + head.length);
        kinds.push((head.sequence, packet[HEADER_BYTES]));
        answers = rest;
    }
    assert_eq!(kinds, [(1, 0), (1, 0xff), (1, 0), (1, 0xff)]);
    use StatementOutcome::{Done, Failed};
    let failed = |number| (number, Failed, None, "1047 (08S01)");
    assert_eq!(talk.ends(), [(2, Done, Some(3), ""), failed(3), (4, Done, Some(3), ""), failed(5)]);
    assert_eq!(talk.shown()[1].3, "(changing the user (COM_CHANGE_USER))");
}

#[test]
fn files_of_the_client_pass_only_where_that_was_agreed_on() {
    let load = || command(3, b"LOAD DATA LOCAL INFILE 'a' INTO TABLE t");
    let lines = [
        (CLIENT, load()),
        (SERVER, packets(1, &[b"\xfba"])),
        // The data looks like a command, and is none.
        (CLIENT, packets(2, &[b"\x03DROP TABLE t", b""])),
        (SERVER, packets(5, &[OK])),
        (CLIENT, command(3, b"DO 1")),
        (SERVER, packets(1, &[OK])),
    ];
    let talk = said(LOCAL_FILES, &lines);
    assert_eq!(talk.shown().len(), 2);
    assert_eq!(talk.ends()[0], (2, StatementOutcome::Done, Some(3), ""));

    let violation = |agreed, client: &[u8], server: &[u8]| {
        let mut talk = Talk::new(agreed, 1);
        talk.client(client).and_then(|()| talk.server(server)).unwrap_err()
    };
    let asked = packets(1, &[b"\xfba"]);
    assert_eq!(violation(0, &load(), &asked), Violation::FileNotAllowed);
    let early = [load(), command(3, b"DO 1")].concat();
    assert_eq!(violation(LOCAL_FILES, &early, &asked), Violation::FileOutOfTurn);
    let answered = [asked, packets(2, &[OK])].concat();
    assert_eq!(violation(LOCAL_FILES, &load(), &answered), Violation::FileNotTaken);
    assert_eq!(violation(0, &[], &packets(0, &[OK])), Violation::Unasked);
    assert_eq!(violation(0, &packets(0, &[b""]), &[]), Violation::client("command"));
}

#[test]
fn progress_is_no_end_and_a_last_word_of_the_server_passes() {
    let progress = b"\xff\xff\xff\x01\x01\x02\x10\x00\x00\x05stage";
    let lines = [
        (CLIENT, command(3, b"ALTER TABLE t ENGINE=InnoDB")),
        (SERVER, packets(1, &[progress, progress, OK])),
        (SERVER, packets(0, &[b"\xff\xbf\x0f#08S01The client was disconnected because of inactivity"])),
    ];
    let talk = said(PROGRESS, &lines);
    assert_eq!(talk.ends(), [(2, StatementOutcome::Done, Some(3), "")]);
}

#[test]
fn long_messages_pass_without_being_kept() {
    let mut talk = Talk::new(DEPRECATE_EOF, 1 << 20);
    let text = [b"INSERT INTO t VALUES ('".to_vec(), vec![b'x'; 40 << 20]].concat();
    let mut long = Vec::new();
    for piece in [&text[..0xff_fffe], &text[0xff_fffe..0x1ff_fffd], &text[0x1ff_fffd..]] {
        let first = if long.is_empty() { &[3][..] } else { &[] };
        let length = (first.len() + piece.len()).to_le_bytes();
        long.extend_from_slice(&[length[0], length[1], length[2], 0]);
        long.extend_from_slice(first);
        long.extend_from_slice(piece);
    }
    talk.client(&long).unwrap();
    assert!(talk.to_server == long, "the message changed");
    assert!(talk.statements[0].cut && talk.statements[0].text.len() == 48 * 1024);
    assert_eq!(talk.statements[0].bytes, 0xff_fffe);
    talk.server(&packets(1, &[OK])).unwrap();
    // A row that begins as an end of rows would, were it shorter.
    talk.client(&command(3, b"SELECT a FROM t")).unwrap();
    let mut row = vec![0xff, 0xff, 0xff, 3, 0xfe];
    row.resize(4 + 0xff_ffff, b'x');
    row.extend_from_slice(&[1, 0, 0, 4, 0xfe]);
    talk.server(&[packets(1, &[&[1], COLUMN]), row, packets(5, &[END])].concat()).unwrap();
    assert_eq!(talk.ends()[1], (3, StatementOutcome::Done, Some(1), ""));
}

#[test]
fn so_many_commands_may_wait_and_no_more() {
    let mut talk = Talk::new(0, 1000);
    let commands = command(3, b"DO 1").repeat(40);
    talk.client(&commands).unwrap();
    assert_eq!(talk.to_server.len(), commands.len() * 16 / 40);
    talk.server(&packets(1, &[OK]).repeat(30)).unwrap_err();
    let mut talk = Talk::new(0, 1000);
    talk.client(&commands).unwrap();
    for _ in 0..40 {
        talk.server(&packets(1, &[OK])).unwrap();
    }
    assert_eq!((talk.to_server.len(), talk.ended.len()), (commands.len(), 40));
    talk.client(&command(3, b"DO 2")).unwrap();
    talk.conversation.abandon();
    assert_eq!(talk.conversation.ended().map(|end| end.outcome), Some(StatementOutcome::Lost));
}
