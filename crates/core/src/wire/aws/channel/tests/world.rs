//! Two ends and the link between them, with a clock that only the test moves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;

use super::Random;
use crate::wire::aws::Millis;

/// A program at one end of the link.
pub(super) trait End {
    /// A frame arrives.
    fn receive(&mut self, frame: Bytes, now: Millis);
    /// Returns the next frame to send.
    fn transmit(&mut self, now: Millis) -> Option<Bytes>;
    /// Returns when something may happen without a frame arriving.
    fn timeout(&self) -> Option<Millis>;
    /// The socket is gone.
    fn lost(&mut self);
    /// Another socket stands.
    fn restored(&mut self, now: Millis);
}

/// What a link does to frames.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    /// Of 1000 frames so many are lost.
    pub(super) lost: u64,
    /// Of 1000 frames so many arrive twice.
    pub(super) doubled: u64,
    /// Least delay in milliseconds.
    pub(super) delay: u64,
    /// Further delay, drawn for each frame; what is sent later may then arrive sooner.
    pub(super) jitter: u64,
    /// Bytes per millisecond and direction; 0: no limit.
    pub(super) rate: u64,
    /// A socket: nothing overtakes, and nothing is lost but when it breaks.
    pub(super) ordered: bool,
    /// The socket breaks about every so many milliseconds; 0: never.
    pub(super) breaks: u64,
}

pub(super) const CALM: Weather =
    Weather { lost: 0, doubled: 0, delay: 1, jitter: 0, rate: 0, ordered: true, breaks: 0 };

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    at: u64,
    number: u64,
    to_b: bool,
    frame: Bytes,
}

/// The link with its two ends.
pub(super) struct World<A, B> {
    pub(super) a: A,
    pub(super) b: B,
    pub(super) now: u64,
    /// Bytes that were put on the link towards B and towards A.
    pub(super) carried: [u64; 2],
    weather: Weather,
    random: Random,
    flying: BinaryHeap<Reverse<Flying>>,
    frames: u64,
    /// When each direction is free again, and when its last frame arrives.
    free: [u64; 2],
    last: [u64; 2],
    up: bool,
    next_change: Option<u64>,
}

impl<A: End, B: End> World<A, B> {
    pub(super) fn new(a: A, b: B, weather: Weather, random: Random) -> Self {
        let mut world = Self {
            a,
            b,
            now: 0,
            carried: [0; 2],
            weather,
            random,
            flying: BinaryHeap::new(),
            frames: 0,
            free: [0; 2],
            last: [0; 2],
            up: true,
            next_change: None,
        };
        world.plan_break();
        world
    }

    fn plan_break(&mut self) {
        let breaks = self.weather.breaks;
        self.next_change = (breaks > 0).then(|| self.now + 1 + self.random.below(2 * breaks));
    }

    /// The socket stays as it is from now on, and stands.
    pub(super) fn keep_up(&mut self) {
        self.weather.breaks = 0;
        self.next_change = None;
        if !self.up {
            self.change();
            self.next_change = None;
        }
    }

    /// Breaks a standing socket, or makes a new one.
    pub(super) fn change(&mut self) {
        self.up = !self.up;
        if self.up {
            self.a.restored(Millis(self.now));
            self.b.restored(Millis(self.now));
            self.plan_break();
        } else {
            self.flying.clear();
            self.free = [self.now; 2];
            self.last = [self.now; 2];
            self.a.lost();
            self.b.lost();
            self.next_change = Some(self.now + 1 + self.random.below(400));
        }
    }

    /// Goes on until the ends are content or the time is over; tells which.
    pub(super) fn run(&mut self, until: u64, done: impl Fn(&A, &B) -> bool) -> bool {
        loop {
            self.transmit();
            if done(&self.a, &self.b) {
                return true;
            }
            let arrival = self.flying.peek().map(|Reverse(flying)| flying.at);
            let timeouts = [self.a.timeout(), self.b.timeout()].map(|timeout| timeout.map(|Millis(at)| at));
            let next = [arrival, timeouts[0], timeouts[1], self.next_change].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return false;
            };
            // An end whose timeout has passed without effect must not stop the clock.
            self.now = next.max(self.now + u64::from(arrival != Some(self.now)));
            if self.next_change.is_some_and(|at| at <= self.now) {
                self.change();
            }
            while let Some(Reverse(flying)) = self.flying.peek()
                && flying.at <= self.now
            {
                let Some(Reverse(Flying { to_b, frame, .. })) = self.flying.pop() else { break };
                if to_b {
                    self.b.receive(frame, Millis(self.now));
                } else {
                    self.a.receive(frame, Millis(self.now));
                }
            }
        }
    }

    fn transmit(&mut self) {
        if !self.up {
            return;
        }
        while let Some(frame) = self.a.transmit(Millis(self.now)) {
            self.put(frame, true);
        }
        while let Some(frame) = self.b.transmit(Millis(self.now)) {
            self.put(frame, false);
        }
    }

    fn put(&mut self, frame: Bytes, to_b: bool) {
        let weather = self.weather;
        let direction = usize::from(!to_b);
        self.carried[direction] += frame.len() as u64;
        let mut departs = self.now;
        if weather.rate > 0 {
            departs = departs.max(self.free[direction]);
            self.free[direction] = departs + (frame.len() as u64).div_ceil(weather.rate);
            departs = self.free[direction];
        }
        let copies = 1 + u64::from(self.random.below(1000) < weather.doubled);
        for _ in 0..copies {
            if self.random.below(1000) < weather.lost {
                continue;
            }
            let mut at = departs + weather.delay + self.random.below(weather.jitter + 1);
            if weather.ordered {
                at = at.max(self.last[direction]);
                self.last[direction] = at;
            }
            self.frames += 1;
            self.flying.push(Reverse(Flying { at, number: self.frames, to_b, frame: frame.clone() }));
        }
    }
}
