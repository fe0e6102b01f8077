//! Our door towards AWS's plugin as it is.

use bytes::Bytes;

use super::model::Reference;
use super::ours::Ours;
use super::world::{CALM, Weather, World};
use super::{NOON, Random};
use crate::wire::aws::{ChannelLimits, MessageType, PayloadType, Role};

const HANDSHAKE: [(PayloadType, &str); 2] =
    [(PayloadType::HandshakeRequest, "request"), (PayloadType::HandshakeComplete, "complete")];

fn door(seed: u64) -> Ours {
    Ours::new(Role::Agent, ChannelLimits::towards_plugin(), Random::new(seed))
}

fn plugin(seed: u64) -> Reference {
    Reference::new(Role::Client, Random::new(seed + 7))
}

/// A door that does the handshake first.
fn with_handshake(mut door: Ours) -> Ours {
    for (kind, payload) in HANDSHAKE.iter().rev() {
        door.source.push((*kind, Bytes::from_static(payload.as_bytes())));
    }
    door
}

#[test]
fn output_right_after_the_handshake_arrives_whenever_the_handler_stands() {
    for (seed, installs_after) in (0..200).map(|seed| (seed, seed * 7 % 900)) {
        let output = Random::new(seed).bytes(300_000);
        let mut plugin = plugin(seed);
        plugin.installs_after = Some(installs_after);
        let mut world =
            World::new(with_handshake(door(seed).sending(&output, 70_000)), plugin, CALM, Random::new(seed));
        assert!(world.run(60_000, |door, _| door.is_done()), "seed {seed}");
        assert!(world.b.sink == output, "seed {seed}");
        assert_eq!(world.b.handshakes, HANDSHAKE.map(|(kind, _)| kind));
        // One message at a time until the first is taken: nothing piles up behind a refused one.
        assert_eq!(world.b.most_early, 0, "seed {seed}");
        // And it is offered again soon after.
        assert!(world.now < installs_after * 2 + 500, "seed {seed}: {} after {installs_after}", world.now);
    }
}

#[test]
fn a_port_client_without_a_local_connection_gets_everything_once_it_has_one() {
    let output = Random::new(1).bytes(100_000);
    let mut plugin = plugin(1);
    plugin.installs_after = Some(600_000);
    let mut world = World::new(with_handshake(door(1).sending(&output, 40_000)), plugin, CALM, Random::new(1));
    assert!(!world.run(599_000, |door, _| door.is_done()));
    let waiting = world.carried[0];
    assert!(waiting < 700 * (33 * 1024), "{waiting} bytes while nobody could take them");
    assert!(world.run(605_000, |door, _| door.is_done()));
    assert!(world.b.sink == output);
}

#[test]
fn sessions_over_sockets_that_break_lose_and_double_nothing_and_do_not_stall() {
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let (down_length, up_length) = (random.below(150_000), random.below(20_000));
        let (mut down, up) = (random.bytes(down_length), random.bytes(up_length));
        let mut plugin = plugin(seed).sending(&up);
        // A session without any output has no handler there that would read its input.
        let mut door = door(seed).sending(&down, 50_000);
        door.source.push((PayloadType::Output, "$ ".into()));
        if seed % 2 == 0 {
            door = with_handshake(door);
            plugin.installs_after = Some(random.below(300));
        }
        let weather = Weather {
            delay: random.below(50),
            rate: [0, 500, 5000][random.below(3) as usize],
            breaks: 300 + random.below(1500),
            ..CALM
        };
        let mut world = World::new(door, plugin, weather, random.clone());
        // The plugin never acknowledges twice, so the door may stay with a number whose acknowledgement was lost: what
        // counts is that everything arrives.
        down.splice(0..0, *b"$ ");
        let (down_length, up_length) = (down.len(), up.len());
        let arrived =
            |door: &Ours, plugin: &Reference| plugin.sink.len() >= down_length && door.sink.len() >= up_length;
        assert!(world.run(600_000, arrived), "seed {seed} does not end: {} of {down_length}", world.b.sink.len());
        assert!(world.b.sink == down && world.a.sink == up, "seed {seed}");
        assert_eq!((world.b.misread, world.b.refused_early), (0, 0), "seed {seed}");
        assert!(!world.b.gave_up, "seed {seed}");
    }
}

#[test]
fn a_number_whose_acknowledgement_was_lost_is_given_up_once_newer_ones_are_acknowledged() {
    let mut world = World::new(door(3), plugin(3), Weather { delay: 20, ..CALM }, Random::new(3));
    world.a.say(PayloadType::Output, "first");
    world.run(100, |_, _| false);
    world.a.say(PayloadType::Output, "taken");
    world.run(125, |_, _| false);
    assert_eq!((world.b.sink.as_slice(), world.a.channel.unacknowledged()), (b"firsttaken".as_slice(), 1));
    // The acknowledgement is on its way when the socket breaks.
    world.change();
    world.change();
    world.run(60_000, |_, _| false);
    assert_eq!(world.a.channel.unacknowledged(), 1);
    world.a.say(PayloadType::Output, "more");
    world.run(60_100, |_, _| false);
    assert_eq!(world.a.channel.unacknowledged(), 0);
    assert_eq!(world.b.sink, b"firsttakenmore");
}

#[test]
fn a_lost_acknowledgement_of_the_handshake_does_not_stop_the_session() {
    for first in 1..60 {
        let mut plugin = plugin(first);
        plugin.installs_after = Some(20);
        let mut world =
            World::new(with_handshake(door(first)), plugin, Weather { delay: 10, ..CALM }, Random::new(first));
        world.a.say(PayloadType::Output, "prompt");
        world.run(first, |_, _| false);
        world.change();
        world.change();
        assert!(world.run(60_000, |_, plugin| plugin.sink == b"prompt"), "broken after {first} ms");
        assert_eq!((world.b.misread, world.b.handshakes.len()), (0, 2));
    }
}

#[test]
fn what_the_plugin_keeps_is_never_more_than_it_can_keep() {
    let output = Random::new(5).bytes(6_000_000);
    // A hundredth of its real buffer.
    let plugin = plugin(5).with_early_limit(100);
    let weather = Weather { delay: 30, rate: 5_000, breaks: 500, ..CALM };
    let mut world = World::new(door(5).sending(&output, 60_000), plugin, weather, Random::new(5));
    assert!(world.run(600_000, |_, plugin| plugin.sink.len() == output.len()), "{}", world.b.sink.len());
    assert!(world.b.sink == output);
    assert_eq!(world.b.refused_early, 0);
}

#[test]
fn ten_megabytes_from_a_client_without_a_window_lose_nothing_while_the_program_reads_nothing() {
    let input = Random::new(6).bytes(9_000 * 1024);
    let mut plugin = plugin(6).sending(&input);
    plugin.ready_at = Some(0);
    let mut world = World::new(door(6), plugin, CALM, Random::new(6));
    world.a.dawdles = u64::MAX;
    assert!(!world.run(100_000, |_, _| false));
    assert_eq!((world.b.dropped, world.b.source.len()), (0, 0));
    world.a.dawdles = 0;
    world.run(1_000_000, |door, _| door.sink.len() == input.len());
    assert!(world.a.sink == input);
}

#[test]
fn a_program_that_does_not_read_for_ten_minutes_does_not_make_the_plugin_give_up() {
    let mut plugin = plugin(8).sending(b"typed ahead");
    plugin.ready_at = Some(0);
    let mut world = World::new(door(8), plugin, CALM, Random::new(8));
    world.a.dawdles = u64::MAX;
    world.run(600_000, |_, _| false);
    assert!(!world.b.gave_up);
    assert!(world.b.is_done());
}

#[test]
fn the_end_follows_the_last_acknowledgement() {
    let output = Random::new(9).bytes(200_000);
    let mut world = World::new(door(9).sending(&output, 9_000), plugin(9), CALM, Random::new(9));
    assert!(world.run(60_000, |door, _| door.is_done()));
    let closed = world.a.channel.control(MessageType::ChannelClosed, "{}".into(), NOON).unwrap();
    super::world::End::receive(&mut world.b, closed, crate::wire::aws::Millis(world.now));
    assert!(world.b.closed && world.b.sink == output);
}
