//! A peer that sends anything at all.

use super::super::*;
use super::{NOON, Random};
use crate::wire::aws::message::PREFIX;

#[test]
fn a_quarter_million_hostile_messages_neither_panic_nor_grow() {
    let limits = ChannelLimits { receive: 8 * 1024, receive_messages: 64, ..ChannelLimits::towards_plugin() };
    let mut random = Random::new(11);
    for role in [Role::Agent, Role::Client] {
        let mut channel = Channel::new(role, [9; 16], limits);
        let mut next = 0;
        let mut delivered = 0_u64;
        for case in 0..1_u64 << 17 {
            let now = Millis(case * random.below(3));
            channel.receive(any_message(&mut random, role, next), now).ok();
            match random.below(40) {
                0 => channel.pause(),
                1 => channel.resume(now),
                2..6 => {
                    let length = random.below(5000) as usize;
                    let kind = PayloadType::from_number(random.below(14) as u32);
                    let _ = channel.queue(kind, vec![0; length].into());
                }
                6..12 => {
                    delivered += std::iter::from_fn(|| channel.next_delivery()).count() as u64;
                }
                12..20 => {
                    for _ in 0..random.below(100) {
                        let Some(frame) = channel.next_transmission(now, NOON) else { break };
                        assert!(frame.len() <= PREFIX + limits.payload.max(5000));
                    }
                    channel.next_timeout();
                }
                _ => {}
            }
            let (kept, early, acknowledgements) = channel.incoming.kept();
            next = channel.incoming.next();
            assert!(kept <= 2 * limits.receive_messages && early <= limits.receive_messages, "{kept} {early}");
            assert!(acknowledgements <= 16 * 1024);
            assert!(channel.unacknowledged() < 20_000);
        }
        assert!(delivered > 1000, "{delivered}");
    }
}

fn any_message(random: &mut Random, role: Role, next: i64) -> AgentMessage {
    let numbers = [0, 1, -1, i64::MAX, i64::MIN, i64::MAX - 1];
    let sequence = match random.below(8) {
        0 => numbers[random.below(6) as usize],
        1 => random.next() as i64,
        2..4 => random.below(2_000) as i64,
        _ => next + random.below(3) as i64,
    };
    let id = MessageId::default();
    if random.below(3) == 0 {
        let mut payload = json(&Acknowledge::new(&role.sends(), id, sequence)).to_vec();
        if random.below(4) == 0 {
            let at = random.below(payload.len() as u64) as usize;
            payload[at] = random.next() as u8;
        }
        return AgentMessage::new(MessageType::Acknowledge, id, NOON, payload);
    }
    let kind = if random.below(10) == 0 { role.sends() } else { role.receives() };
    let length = random.below(600);
    let payload = random.bytes(length);
    let payload_type = PayloadType::from_number(random.below(14) as u32);
    AgentMessage { sequence, payload_type, ..AgentMessage::new(kind, id, NOON, payload) }
}
