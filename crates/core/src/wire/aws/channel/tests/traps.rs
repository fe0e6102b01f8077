//! The things that are easy to get wrong, one test each where the channel or its codec can get them wrong; those of the
//! API and of sockets are tested where they live.

use bytes::Bytes;

use super::super::*;
use super::model::Reference;
use super::ours::Ours;
use super::world::{CALM, World};
use super::{NOON, Random};
use crate::wire::aws::message::Reader;
use crate::wire::aws::payload::{AgentFeatures, exit_code};
use crate::wire::aws::smux::{Mux, MuxLimits, Side};

fn door() -> Channel {
    Channel::new(Role::Agent, [1; 16], ChannelLimits::towards_plugin())
}

fn sent(channel: &mut Channel, now: u64) -> Vec<Bytes> {
    std::iter::from_fn(|| channel.next_transmission(Millis(now), NOON)).collect()
}

#[test]
fn trap_1_the_header_says_116_and_the_payload_is_at_120() {
    let mut door = door();
    door.queue(PayloadType::Output, "x".into()).unwrap();
    let frame = sent(&mut door, 0).remove(0);
    assert_eq!((&frame[..4], &frame[116..]), ([0, 0, 0, 116].as_slice(), [0, 0, 0, 1, b'x'].as_slice()));
}

#[test]
fn trap_2_ids_are_swapped_in_headers_and_canonical_in_acknowledgements() {
    let mut plugin = Channel::new(Role::Client, [2; 16], ChannelLimits::towards_aws());
    plugin.queue(PayloadType::Output, "x".into()).unwrap();
    let frame = sent(&mut plugin, 0).remove(0);
    let mut door = door();
    door.receive(AgentMessage::decode(frame.clone(), Reader::Agent).unwrap(), Millis(0)).unwrap();
    door.next_delivery().unwrap();
    let ack = sent(&mut door, 0).remove(0);
    let text = String::from_utf8(ack[120..].to_vec()).unwrap();
    let canonical = [&frame[72..80], &frame[64..72]].concat();
    assert!(text.contains(&MessageId(canonical.try_into().unwrap()).to_string()), "{text}");
}

#[test]
fn trap_3_what_is_refused_right_after_the_handshake_does_not_block_what_follows() {
    let mut plugin = Reference::new(Role::Client, Random::new(1));
    plugin.installs_after = Some(50);
    let mut ours = Ours::new(Role::Agent, ChannelLimits::towards_plugin(), Random::new(1));
    ours.say(PayloadType::HandshakeRequest, "{}");
    ours.say(PayloadType::HandshakeComplete, "{}");
    for _ in 0..20 {
        ours.say(PayloadType::Output, "line\n");
    }
    let mut world = World::new(ours, plugin, CALM, Random::new(1));
    assert!(world.run(1_000, |ours, _| ours.is_done()));
    assert_eq!(world.b.sink, b"line\n".repeat(20));
}

#[test]
fn trap_4_an_old_message_without_acknowledgement_keeps_nothing_newer_back() {
    let mut door = door();
    let acknowledge = |door: &mut Channel, sequence, now| {
        let payload = json(&Acknowledge::new(&MessageType::OutputStreamData, MessageId::default(), sequence));
        let ack = AgentMessage::new(MessageType::Acknowledge, MessageId::default(), NOON, payload);
        door.receive(ack, Millis(now)).unwrap();
    };
    door.queue(PayloadType::Output, "a".into()).unwrap();
    sent(&mut door, 0);
    acknowledge(&mut door, 0, 1);
    // All of the window is taken, and all its acknowledgements are lost with the socket.
    while door.room() >= 32 * 1024 {
        door.queue(PayloadType::Output, vec![1; 32 * 1024].into()).unwrap();
    }
    let lost = sent(&mut door, 2).len();
    assert!(lost >= 3);
    door.pause();
    door.resume(Millis(10));
    let mut now = 10;
    let mut newest = 0;
    let mut queued = 0;
    while queued < 200 {
        for frame in sent(&mut door, now) {
            let message = AgentMessage::decode(frame, Reader::Client).unwrap();
            if message.sequence > lost as i64 {
                newest = newest.max(message.sequence);
                acknowledge(&mut door, message.sequence, now + 1);
            }
        }
        while queued < 200 && door.queue(PayloadType::Output, vec![2; 1000].into()).is_ok() {
            queued += 1;
        }
        now += 50;
        assert!(now < 60_000, "stuck at {newest}");
    }
    while door.unacknowledged() > 0 {
        door.queue(PayloadType::Output, "tail".into()).unwrap();
        for frame in sent(&mut door, now) {
            let message = AgentMessage::decode(frame, Reader::Client).unwrap();
            if message.sequence > lost as i64 {
                acknowledge(&mut door, message.sequence, now + 1);
            }
        }
        now += 500;
        assert!(now < 120_000, "{} stay open", door.unacknowledged());
    }
}

#[test]
fn trap_5_an_agent_version_needs_exactly_four_numbers() {
    assert!(AgentFeatures::of("3.3.0.0").multiplexing);
    for version in ["3.3.0", "3.3", "4", "3.3.0.0.0", "3.3.0.0-munjigi"] {
        assert!(!AgentFeatures::of(version).multiplexing, "{version}");
        assert!(!AgentFeatures::of(version).terminate_flag, "{version}");
    }
}

#[test]
fn trap_7_a_lost_socket_keeps_numbers_and_open_messages() {
    let mut door = door();
    door.queue(PayloadType::Output, "before".into()).unwrap();
    let before = sent(&mut door, 0);
    door.pause();
    door.resume(Millis(3_600_000));
    assert_eq!(sent(&mut door, 3_600_000), before);
}

#[test]
fn trap_8_an_exit_status_is_text_in_a_message_of_its_own_type() {
    let mut door = door();
    door.queue(PayloadType::ExitCode, exit_code(3)).unwrap();
    let frame = sent(&mut door, 0).remove(0);
    let message = AgentMessage::decode(frame, Reader::Client).unwrap();
    assert_eq!((message.payload_type.number(), message.payload.as_ref()), (12, b"EXIT_CODE: 3".as_ref()));
}

#[test]
fn trap_9_the_agents_state_takes_no_number_and_is_not_acknowledged() {
    let mut agent = door();
    let state = agent.control(MessageType::AgentSessionState, r#"{"SchemaVersion":1}"#.into(), NOON).unwrap();
    let message = AgentMessage::decode(state, Reader::Agent).unwrap();
    assert_eq!((message.sequence, message.flags), (0, 3));
    let mut server = Channel::new(Role::Client, [2; 16], ChannelLimits::towards_agent());
    assert!(matches!(server.receive(message, Millis(0)), Err(ChannelError::Foreign(_))));
    assert!(sent(&mut server, 0).is_empty());
    agent.queue(PayloadType::Output, "x".into()).unwrap();
    let first = AgentMessage::decode(sent(&mut agent, 0).remove(0), Reader::Agent).unwrap();
    assert_eq!((first.sequence, first.flags), (0, 1));
    server.receive(first, Millis(0)).unwrap();
    assert!(server.next_delivery().is_some());
}

#[test]
fn trap_11_a_single_line_feed_is_carried_as_it_is_and_so_is_a_return() {
    // The plugin changes it before sending; neither end here guesses what it was.
    for text in ["\n", "\r"] {
        let mut plugin = Channel::new(Role::Client, [2; 16], ChannelLimits::towards_aws());
        plugin.queue(PayloadType::Output, text.into()).unwrap();
        let mut door = door();
        let frame = sent(&mut plugin, 0).remove(0);
        door.receive(AgentMessage::decode(frame, Reader::Agent).unwrap(), Millis(0)).unwrap();
        assert_eq!(door.next_delivery(), Some((PayloadType::Output, text.into())));
    }
}

#[test]
fn trap_12_the_first_stream_is_3_and_numbers_of_smux_are_little_endian() {
    let mut mux = Mux::new(Side::Client, MuxLimits::default());
    let id = mux.open().unwrap();
    mux.write(id, vec![0; 258].into()).unwrap();
    let bytes = mux.next_output(1024).unwrap();
    assert_eq!(bytes[..16], [1, 0, 0, 0, 3, 0, 0, 0, 1, 2, 2, 1, 3, 0, 0, 0]);
}
