//! How quick the channel is, and how much it keeps, towards a plugin that has no window.

use bytes::Bytes;

use super::Random;
use super::model::Reference;
use super::ours::Ours;
use super::world::{CALM, Weather, World};
use crate::wire::aws::{ChannelLimits, PayloadType, Role};

const FRAME: usize = 32 * 1024;

/// How many milliseconds so many frames take to the plugin.
fn time(frames: usize, weather: Weather) -> (u64, World<Ours, Reference>) {
    let mut door = Ours::new(Role::Agent, ChannelLimits::towards_plugin(), Random::new(1));
    door.source = vec![(PayloadType::Output, Bytes::from(vec![7; FRAME])); frames];
    let plugin = Reference::new(Role::Client, Random::new(2));
    let mut world = World::new(door, plugin, weather, Random::new(3));
    assert!(world.run(3_600_000, |door, _| door.is_done()));
    assert_eq!(world.b.sink.len(), frames * FRAME);
    (world.now, world)
}

#[test]
fn at_a_round_trip_of_20_ms_far_more_than_5_megabytes_go_down_in_a_second() {
    let (milliseconds, _) = time(640, Weather { delay: 10, ..CALM });
    let rate = 640 * FRAME as u64 / milliseconds / 1000;
    assert!(rate >= 20, "{rate} MB/s");
}

#[test]
fn a_quick_link_is_filled_at_a_round_trip_of_100_ms() {
    // 10 MB/s, and 1 MiB in flight at most.
    let (milliseconds, world) = time(960, Weather { delay: 50, rate: 10_000, ..CALM });
    assert!(milliseconds < 960 * FRAME as u64 / 7_000, "{milliseconds} ms");
    assert!(world.carried[0] < 970 * (FRAME as u64 + 120));
}

#[test]
fn a_slow_link_carries_everything_about_once_and_a_key_does_not_wait_long() {
    // 125 kB/s: a window of 1 MiB would be eight seconds of output behind which Ctrl-C has no effect to be seen.
    let (milliseconds, mut world) = time(100, Weather { delay: 20, rate: 125, ..CALM });
    let least = 100 * FRAME as u64 / 125;
    assert!(milliseconds < least * 5 / 4, "{milliseconds} of {least} ms");
    assert!(world.carried[0] < 110 * FRAME as u64, "{} bytes sent", world.carried[0]);
    for _ in 0..40 {
        world.a.say(PayloadType::Output, vec![8; FRAME]);
    }
    world.run(world.now + 5_000, |_, _| false);
    let queued = world.a.channel.room();
    assert!(ChannelLimits::towards_plugin().window_least + 64 * 1024 - queued <= 160 * 1024);
    let seen = world.b.sink.len();
    let before = world.now;
    world.a.source.clear();
    world.a.say(PayloadType::Output, "^C");
    assert!(world.run(before + 60_000, |_, plugin| plugin.sink.ends_with(b"^C")));
    assert!(world.now - before < 2_000, "{} ms, {} bytes", world.now - before, world.b.sink.len() - seen);
}

#[test]
fn a_plugin_that_takes_nothing_costs_no_more_than_window_and_queue() {
    let limits = ChannelLimits::towards_plugin();
    let mut door = Ours::new(Role::Agent, limits, Random::new(1));
    door.source = vec![(PayloadType::Output, Bytes::from(vec![7; FRAME])); 1000];
    let mut plugin = Reference::new(Role::Client, Random::new(2));
    plugin.installs_after = Some(0);
    let mut world = World::new(door, plugin, CALM, Random::new(3));
    world.run(600_000, |_, _| false);
    let taken = 1000 - world.a.source.len();
    assert!(taken * FRAME <= limits.window_first + limits.queue, "{taken} frames");
}

#[test]
fn single_bytes_that_nobody_takes_are_bounded_by_their_number() {
    let mut door = Ours::new(Role::Agent, ChannelLimits::towards_plugin(), Random::new(1)).channel;
    let queued = (0..1_000_000).take_while(|_| door.queue(PayloadType::Output, "x".into()).is_ok()).count();
    assert_eq!(door.unacknowledged(), queued);
    assert!(queued < 1_000, "{queued}");
}
