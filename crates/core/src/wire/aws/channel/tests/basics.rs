//! Numbers, acknowledgements and order, one message at a time.

use super::super::*;
use super::NOON;
use crate::wire::aws::message::Reader;

fn channel(role: Role) -> Channel {
    Channel::new(role, [7; 16], ChannelLimits::towards_plugin())
}

fn transmit(channel: &mut Channel, now: u64) -> Vec<AgentMessage> {
    let frames = std::iter::from_fn(|| channel.next_transmission(Millis(now), NOON + now));
    frames.map(|frame| AgentMessage::decode(frame, Reader::Client).unwrap()).collect()
}

fn delivered(channel: &mut Channel) -> Vec<Bytes> {
    std::iter::from_fn(|| channel.next_delivery()).map(|(_, payload)| payload).collect()
}

fn input(sequence: i64, text: &'static str) -> AgentMessage {
    let id = MessageId([sequence as u8; 16]);
    AgentMessage {
        sequence,
        payload_type: PayloadType::Output,
        ..AgentMessage::new(MessageType::InputStreamData, id, NOON, text)
    }
}

fn acknowledged(messages: &[AgentMessage]) -> Vec<i64> {
    let number = |message: &AgentMessage| {
        assert_eq!(message.kind, MessageType::Acknowledge);
        assert_eq!((message.sequence, message.flags, message.payload_type), (0, 3, PayloadType::None));
        parse::<Acknowledge>("ack", &message.payload).unwrap().acknowledged_message_sequence_number
    };
    messages.iter().map(number).collect()
}

#[test]
fn a_message_is_acknowledged_when_it_is_taken_and_not_before() {
    let mut door = channel(Role::Agent);
    door.receive(input(0, "a"), Millis(0)).unwrap();
    assert!(transmit(&mut door, 0).is_empty());
    door.receive(input(0, "a"), Millis(100)).unwrap();
    assert!(transmit(&mut door, 100).is_empty());
    assert_eq!(delivered(&mut door), ["a"]);
    assert_eq!(acknowledged(&transmit(&mut door, 100)), [0]);
}

#[test]
fn a_number_that_was_taken_is_acknowledged_again_each_time() {
    let mut door = channel(Role::Agent);
    door.receive(input(0, "a"), Millis(0)).unwrap();
    assert_eq!(delivered(&mut door), ["a"]);
    for _ in 0..3 {
        door.receive(input(0, "a"), Millis(0)).unwrap();
    }
    assert_eq!(acknowledged(&transmit(&mut door, 0)), [0, 0, 0, 0]);
    assert!(delivered(&mut door).is_empty());
}

#[test]
fn what_comes_early_is_acknowledged_at_once_and_delivered_in_order() {
    let mut door = channel(Role::Agent);
    door.receive(input(2, "c"), Millis(0)).unwrap();
    door.receive(input(1, "b"), Millis(0)).unwrap();
    door.receive(input(2, "c"), Millis(0)).unwrap();
    assert_eq!(acknowledged(&transmit(&mut door, 0)), [2, 1, 2]);
    assert!(delivered(&mut door).is_empty());
    door.receive(input(0, "a"), Millis(0)).unwrap();
    assert_eq!(delivered(&mut door), ["a", "b", "c"]);
    assert_eq!(acknowledged(&transmit(&mut door, 0)), [0]);
}

#[test]
fn a_message_that_nobody_takes_is_acknowledged_after_a_minute_and_still_delivered() {
    let mut door = channel(Role::Agent);
    door.receive(input(0, "a"), Millis(0)).unwrap();
    door.receive(input(1, "b"), Millis(10)).unwrap();
    assert_eq!(door.next_timeout(), Some(Millis(60_000)));
    assert!(transmit(&mut door, 59_999).is_empty());
    assert_eq!(acknowledged(&transmit(&mut door, 60_000)), [0]);
    assert_eq!(acknowledged(&transmit(&mut door, 60_010)), [1]);
    door.receive(input(1, "b"), Millis(60_100)).unwrap();
    assert_eq!(acknowledged(&transmit(&mut door, 60_100)), [1]);
    assert_eq!(delivered(&mut door), ["a", "b"]);
    assert!(transmit(&mut door, 70_000).is_empty());
    assert_eq!(door.next_timeout(), None);
}

#[test]
fn stream_data_carries_the_numbers_types_and_flags_of_its_role() {
    for (role, kind, first_flags) in
        [(Role::Agent, MessageType::OutputStreamData, 1), (Role::Client, MessageType::InputStreamData, 0)]
    {
        let mut channel = channel(role);
        for sequence in 0..3 {
            channel.queue(PayloadType::Output, "x".into()).unwrap();
            let sent = transmit(&mut channel, 0);
            assert_eq!(sent.len(), 1);
            assert_eq!((&sent[0].kind, sent[0].sequence), (&kind, sequence));
            assert_eq!(sent[0].flags, if sequence == 0 { first_flags } else { 0 });
            assert_eq!(sent[0].created_ms, NOON);
            channel.receive(ack(sequence), Millis(1)).unwrap();
        }
        assert_eq!(channel.unacknowledged(), 0);
    }
}

fn ack(sequence: i64) -> AgentMessage {
    let payload = json(&Acknowledge::new(&MessageType::OutputStreamData, MessageId::default(), sequence));
    AgentMessage::new(MessageType::Acknowledge, MessageId::default(), NOON, payload)
}

#[test]
fn a_message_goes_out_again_until_it_is_acknowledged_with_growing_pauses() {
    let mut door = channel(Role::Agent);
    door.queue(PayloadType::Output, "x".into()).unwrap();
    let first = transmit(&mut door, 0);
    let mut times = vec![];
    for _ in 0..5 {
        let due = door.next_timeout().unwrap();
        assert!(transmit(&mut door, due.0 - 1).is_empty());
        assert_eq!(transmit(&mut door, due.0), first);
        times.push(due.0);
    }
    assert_eq!(times, [200, 600, 1400, 2400, 3400]);
    door.receive(ack(0), Millis(3400)).unwrap();
    assert_eq!(door.next_timeout(), None);
}

#[test]
fn nothing_goes_out_while_the_socket_is_away_and_everything_open_after_it() {
    let mut door = channel(Role::Agent);
    door.queue(PayloadType::Output, "a".into()).unwrap();
    assert_eq!(transmit(&mut door, 0).len(), 1);
    door.receive(ack(0), Millis(5)).unwrap();
    for text in ["b", "c"] {
        door.queue(PayloadType::Output, text.into()).unwrap();
    }
    let sent = transmit(&mut door, 10);
    assert_eq!(sent.len(), 2);
    door.pause();
    door.queue(PayloadType::Output, "d".into()).unwrap();
    assert!(transmit(&mut door, 100_000).is_empty());
    assert_eq!(door.next_timeout(), None);
    door.resume(Millis(200_000));
    let again = transmit(&mut door, 200_000);
    assert_eq!(again[..2], sent[..]);
    assert_eq!((again[2].sequence, again[2].payload.as_ref()), (3, b"d".as_ref()));
}

#[test]
fn foreign_messages_and_bad_acknowledgements_are_named_and_change_nothing() {
    let mut door = channel(Role::Agent);
    let foreign = AgentMessage { kind: MessageType::OutputStreamData, ..input(0, "x") };
    assert!(matches!(door.receive(foreign, Millis(0)), Err(ChannelError::Foreign(_))));
    let bad = AgentMessage { kind: MessageType::Acknowledge, ..input(0, "{}") };
    assert!(matches!(door.receive(bad, Millis(0)), Err(ChannelError::Acknowledgement(_))));
    for unknown in [0, 7, -1, i64::MAX, i64::MIN] {
        door.receive(ack(unknown), Millis(0)).unwrap();
    }
    assert!(transmit(&mut door, 0).is_empty());
    for odd in [-1, i64::MIN, i64::MAX] {
        door.receive(input(odd, "x"), Millis(0)).unwrap();
    }
    assert!(delivered(&mut door).is_empty());
}

#[test]
fn bytes_are_divided_between_characters_and_other_payloads_never() {
    let mut plugin = Channel::new(Role::Client, [1; 16], ChannelLimits::towards_agent());
    let text = "한글".repeat(600);
    plugin.queue(PayloadType::Output, text.clone().into()).unwrap();
    plugin.queue(PayloadType::HandshakeResponse, vec![b' '; 5000].into()).unwrap();
    let mut sent = vec![];
    for sequence in 0..5 {
        sent.extend(transmit(&mut plugin, 0));
        plugin.receive(ack(sequence), Millis(0)).unwrap();
    }
    sent.extend(transmit(&mut plugin, 0));
    let (handshake, pieces) = sent.split_last().unwrap();
    assert_eq!(handshake.payload.len(), 5000);
    let pieces: Vec<&str> = pieces.iter().map(|piece| std::str::from_utf8(&piece.payload).unwrap()).collect();
    assert!(pieces.iter().all(|piece| piece.len() <= 1024));
    assert_eq!(pieces.concat(), text);
}

#[test]
fn message_ids_are_random_uuids_that_differ() {
    let mut ids = MessageIds(5);
    let made: std::collections::HashSet<String> = (0..10_000).map(|_| ids.next().to_string()).collect();
    assert_eq!(made.len(), 10_000);
    assert!(made.iter().all(|id| id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19])));
}
