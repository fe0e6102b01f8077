//! Talks of which one side sends anything at all.

use super::super::capability::{DEPRECATE_EOF, LOCAL_FILES, PROGRESS};
use super::super::packet::HEADER_BYTES;
use super::*;

/// Feeds altered bytes of one side in pieces, and checks what must hold whatever they are.
fn hostile(talk: &mut Talk, bytes: &[u8], is_client: bool) {
    let result = if is_client { talk.client(bytes) } else { talk.server(bytes) };
    assert!(talk.conversation.ended().is_none() || result.is_err());
    assert!(talk.statements.len() >= talk.ended.len());
    if result.is_ok() && !is_client {
        let passed = talk.to_client.len().min(bytes.len());
        assert_eq!(talk.to_client[..passed], bytes[..passed], "what passes is what came");
        assert!(talk.server.len() <= HEADER_BYTES + 600 || talk.server.len() == bytes.len() - passed);
    }
}

#[test]
fn a_quarter_million_mutated_talks_of_a_client_stay_bounded() {
    let seed = [
        command(3, b"SELECT 1"),
        command(0x16, b"SELECT ?"),
        command(0x17, &[9, 0, 0, 0, 0, 1, 0, 0, 0]),
        command(0x11, b"root"),
        command(0x1c, &[9, 0, 0, 0, 1, 0, 0, 0]),
        command(0x19, &[9, 0, 0, 0]),
        command(1, b""),
    ]
    .concat();
    crate::mutate::each(&seed, 0x636c_6e74, |bytes| {
        let mut talk = Talk::new(0, 1 + bytes.len() % 17);
        hostile(&mut talk, bytes, true);
        assert!(talk.to_server.len() <= bytes.len());
    });
}

#[test]
fn a_quarter_million_mutated_talks_of_a_server_stay_bounded() {
    let described = [&[0, 9, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0][..], COLUMN, EOF, COLUMN, EOF];
    let seed = [
        packets(1, &[OK_AND_MORE, &[1], COLUMN, EOF, b"\x011", EOF]),
        packets(1, &described),
        packets(1, &[&[1], COLUMN, EOF, b"\0\0\x01", EOF]),
        packets(1, &[NO_TABLE]),
        packets(1, &[b"\xfba"]),
    ]
    .concat();
    let commands = [
        command(3, b"DO 1; SELECT 1"),
        command(0x16, b"SELECT ?"),
        command(0x17, &[9, 0, 0, 0, 0, 1, 0, 0, 0]),
        command(4, b"t\0"),
        command(3, b"LOAD DATA LOCAL INFILE 'a' INTO TABLE t"),
    ]
    .concat();
    crate::mutate::each(&seed, 0x7372_7672, |bytes| {
        let agreed = if bytes.len() % 2 == 0 { LOCAL_FILES } else { DEPRECATE_EOF | PROGRESS };
        let mut talk = Talk::new(agreed, 1 + bytes.len() % 29);
        talk.client(&commands).unwrap();
        hostile(&mut talk, bytes, false);
    });
}
