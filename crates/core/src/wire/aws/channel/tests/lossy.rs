//! Two of our ends over links that lose, double, delay and reorder, or break: no byte is lost, doubled or reordered.

use super::Random;
use super::ours::Ours;
use super::world::{Weather, World};
use crate::wire::aws::{ChannelLimits, Role};

/// Small enough that a short run meets every bound.
const TIGHT: ChannelLimits = ChannelLimits {
    payload: 64,
    window_first: 256,
    window_least: 128,
    window_most: 1024,
    queue: 128,
    gap_ms: 0,
    receive: 2500,
    receive_messages: 12,
};

fn run(seed: u64, weather: impl FnOnce(&mut Random) -> Weather) {
    let mut random = Random::new(seed);
    let weather = weather(&mut random);
    let mut limits = ChannelLimits { gap_ms: random.below(3), ..TIGHT };
    if weather.breaks > 0 {
        // On a socket the window alone holds the sender back: all of it finds room here, as between real ends.
        (limits.receive, limits.receive_messages) = (64 * 1024, 1_000);
    }
    let (down_length, up_length) = (random.below(1500), random.below(800));
    let (down, up) = (random.bytes(down_length), random.bytes(up_length));
    let mut door = Ours::new(Role::Agent, limits, Random::new(seed + 1)).sending(&down, 120);
    let mut plugin = Ours::new(Role::Client, limits, Random::new(seed + 2)).sending(&up, 90);
    (door.dawdles, plugin.dawdles) = (random.below(2) * 300, random.below(2) * 300);
    let mut world = World::new(door, plugin, weather, random);
    let arrived = |door: &Ours, plugin: &Ours| door.sink.len() >= up.len() && plugin.sink.len() >= down.len();
    let done = |door: &Ours, plugin: &Ours| door.is_done() && plugin.is_done() && arrived(door, plugin);
    if !world.run(3_600_000, done) {
        world.keep_up();
        let ends = world.run(7_200_000, done);
        assert!(
            ends,
            "seed {seed} does not end: {} of {}, {} of {}",
            world.a.sink.len(),
            up.len(),
            world.b.sink.len(),
            down.len()
        );
    }
    assert!(world.a.sink == up, "seed {seed}: input is not what was sent");
    assert!(world.b.sink == down, "seed {seed}: output is not what was sent");
}

/// Runs the seeds on two threads.
fn run_all(seeds: u64, weather: fn(&mut Random) -> Weather) {
    std::thread::scope(|scope| {
        for odd in 0..2 {
            scope.spawn(move || (0..seeds / 2).for_each(|half| run(1 + half * 2 + odd, weather)));
        }
    });
}

#[test]
fn ten_thousand_lossy_reordering_doubling_slow_links_lose_double_and_reorder_no_byte() {
    run_all(10_000, |random| Weather {
        lost: random.below(300),
        doubled: random.below(300),
        delay: random.below(80),
        jitter: random.below(300),
        rate: [0, 5, 20, 100][random.below(4) as usize],
        ordered: false,
        breaks: 0,
    });
}

#[test]
fn two_thousand_links_whose_sockets_break_lose_double_and_reorder_no_byte() {
    run_all(2_000, |random| Weather {
        lost: 0,
        doubled: 0,
        delay: random.below(60),
        jitter: random.below(40),
        rate: [0, 20, 100][random.below(3) as usize],
        ordered: true,
        breaks: 100 + random.below(2_000),
    });
}
