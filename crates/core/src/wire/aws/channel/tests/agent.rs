//! Our ends that play the client, towards AWS's agent as it is.

use super::Random;
use super::model::Reference;
use super::ours::Ours;
use super::world::{CALM, Weather, World};
use crate::wire::aws::{ChannelLimits, PayloadType, Role};

fn agent(seed: u64) -> Reference {
    Reference::new(Role::Agent, Random::new(seed + 7))
}

#[test]
fn sessions_with_the_agent_lose_and_double_nothing_over_sockets_that_break() {
    for seed in 0..1500 {
        let mut random = Random::new(seed);
        let (up_length, down_length) = (random.below(40_000), random.below(40_000));
        let (up, down) = (random.bytes(up_length), random.bytes(down_length));
        let mut agent = agent(seed).sending(&down);
        agent.ready_at = Some(random.below(1_000));
        let limits = [ChannelLimits::towards_agent(), ChannelLimits::towards_aws()][random.below(2) as usize];
        let client = Ours::new(Role::Client, limits, Random::new(seed)).sending(&up, 5_000);
        let weather = Weather {
            delay: random.below(50),
            rate: [0, 100, 1000][random.below(3) as usize],
            breaks: 50 + random.below(1500),
            ..CALM
        };
        let mut world = World::new(client, agent, weather, random.clone());
        let (up_length, down_length) = (up.len(), down.len());
        let done = |client: &Ours, agent: &Reference| {
            client.is_done() && agent.sink.len() >= up_length && client.sink.len() >= down_length
        };
        // The agent acknowledges again whatever it is asked, so that nothing stays open here.
        assert!(world.run(3_600_000, done), "seed {seed} does not end");
        assert!(world.b.sink == up && world.a.sink == down, "seed {seed}");
        assert_eq!(world.b.refused_early, 0);
    }
}

#[test]
fn input_before_the_terminal_stands_is_not_lost_and_does_not_pile_up() {
    let mut agent = agent(1);
    agent.ready_at = Some(5_000);
    let mut world = World::new(
        Ours::new(Role::Client, ChannelLimits::towards_agent(), Random::new(1)),
        agent,
        CALM,
        Random::new(1),
    );
    world.a.say(PayloadType::Size, r#"{"cols":80,"rows":24}"#);
    for _ in 0..50 {
        world.a.say(PayloadType::Output, "ls\r");
    }
    assert!(world.run(7_000, |client, _| client.is_done()));
    assert_eq!(world.b.most_early, 0);
    assert!(world.b.sink.ends_with(b"ls\rls\r"));
}

#[test]
fn towards_aws_messages_have_at_most_1024_bytes_and_a_millisecond_between_them() {
    let input = Random::new(2).bytes(200_000);
    let mut agent = agent(2);
    agent.ready_at = Some(0);
    let client = Ours::new(Role::Client, ChannelLimits::towards_aws(), Random::new(2)).sending(&input, 10_000);
    let mut world = World::new(client, agent, CALM, Random::new(2));
    assert!(world.run(600_000, |client, _| client.is_done()));
    assert!(world.b.sink == input);
    let least = input.len() as u64 / 1024;
    assert!((least..least + 2_000).contains(&world.now), "{} ms", world.now);
}
