//! How fast a principal starts sessions, and on how many nodes (T-92): whoever has stolen a key shall not be everywhere
//! before somebody looks.
//!
//! Every start of every door passes here once it is allowed. What is counted is in memory: after a restart all begin anew.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use munjigi_core::id::NodeId;
use tokio::time::Instant;

use crate::lock;

/// The time that is looked back on.
const WINDOW: Duration = Duration::from_secs(60);
/// Principals that are remembered before those are forgotten who have started nothing lately.
const FORGET_AT: usize = 1024;

/// How much is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PaceLimits {
    /// Starts in a minute.
    pub(crate) starts: usize,
    /// Different nodes in a minute.
    pub(crate) nodes: usize,
}

/// Why a start has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooFast {
    /// Too many starts.
    #[error("no more than {most} sessions of one principal may start in a minute; try again in {} s", seconds(.wait))]
    Starts {
        /// As many are allowed.
        most: usize,
        /// When there is room again.
        wait: Duration,
    },
    /// Too many nodes.
    #[error(
        "no more than {most} different nodes may be entered by one principal in a minute; try again in {} s",
        seconds(.wait)
    )]
    Nodes {
        /// As many are allowed.
        most: usize,
        /// When there is room again.
        wait: Duration,
    },
}

/// Refused, and whether that is worth an alarm: only the first in a minute is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Why.
    pub(crate) why: TooFast,
    /// Whether nobody has been told yet.
    pub(crate) is_news: bool,
}

/// What principals have started lately.
#[derive(Default)]
pub(crate) struct Pace {
    principals: Mutex<HashMap<String, Recent>>,
}

/// The starts of one principal in the last minute.
#[derive(Default)]
struct Recent {
    starts: VecDeque<(Instant, NodeId)>,
    /// How many of them are on each node.
    nodes: HashMap<NodeId, usize>,
    alarmed: Option<Instant>,
}

impl Pace {
    /// Counts a start, or refuses it.
    pub(crate) fn start(&self, who: &str, node: &NodeId, limits: PaceLimits, now: Instant) -> Result<(), Refused> {
        let mut principals = lock(&self.principals);
        if principals.len() >= FORGET_AT && !principals.contains_key(who) {
            principals.retain(|_, recent| recent.starts.back().is_some_and(|(at, _)| now < *at + WINDOW));
        }
        let recent = principals.entry(who.to_owned()).or_default();
        recent.forget(now);
        match recent.judge(node, limits, now) {
            None => {
                recent.starts.push_back((now, node.clone()));
                *recent.nodes.entry(node.clone()).or_default() += 1;
                Ok(())
            }
            Some(why) => {
                let is_news = recent.alarmed.is_none_or(|at| at + WINDOW <= now);
                if is_news {
                    recent.alarmed = Some(now);
                }
                Err(Refused { why, is_news })
            }
        }
    }
}

impl Recent {
    fn forget(&mut self, now: Instant) {
        while let Some((_, node)) = self.starts.pop_front_if(|(at, _)| *at + WINDOW <= now) {
            if let Some(count) = self.nodes.get_mut(&node) {
                *count -= 1;
                if *count == 0 {
                    self.nodes.remove(&node);
                }
            }
        }
    }

    fn judge(&self, node: &NodeId, limits: PaceLimits, now: Instant) -> Option<TooFast> {
        let until = |at: Option<Instant>| at.map_or(WINDOW, |at| (at + WINDOW).saturating_duration_since(now));
        if self.starts.len() >= limits.starts {
            let first = self.starts.front().map(|(at, _)| *at);
            return Some(TooFast::Starts { most: limits.starts, wait: until(first) });
        }
        if self.nodes.len() >= limits.nodes && !self.nodes.contains_key(node) {
            // The node that was entered last longest ago makes room.
            let last: HashMap<_, _> = self.starts.iter().map(|(at, node)| (node, *at)).collect();
            return Some(TooFast::Nodes { most: limits.nodes, wait: until(last.into_values().min()) });
        }
        None
    }
}

/// Returns whole seconds, of which there is always one.
fn seconds(wait: &Duration) -> u64 {
    wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PaceLimits = PaceLimits { starts: 4, nodes: 2 };

    fn node(number: u8) -> NodeId {
        NodeId::parse(&format!("mi-{number:017x}")).unwrap()
    }

    #[test]
    fn starts_and_nodes_of_the_last_minute_count_and_older_ones_do_not() {
        let (pace, begin) = (Pace::default(), Instant::now());
        // Second, principal, node, and why it is refused: the limit and the seconds to wait.
        let starts = |wait| Some(TooFast::Starts { most: 4, wait: Duration::from_secs(wait) });
        let nodes = |wait| Some(TooFast::Nodes { most: 2, wait: Duration::from_secs(wait) });
        for (second, who, number, refused) in [
            (0, "alice", 1, None),
            (10, "alice", 2, None),
            (11, "alice", 3, nodes(49)),
            (12, "bob", 3, None),
            (20, "alice", 1, None),
            // The first node was entered again.
            (21, "alice", 3, nodes(49)),
            (30, "alice", 2, None),
            (31, "alice", 1, starts(29)),
            (31, "alice", 3, starts(29)),
            (59, "alice", 1, starts(1)),
            (60, "alice", 1, None),
            (61, "alice", 1, starts(9)),
            // Both nodes are of this minute still.
            (70, "alice", 3, nodes(20)),
            (90, "alice", 3, None),
        ] {
            let now = begin + Duration::from_secs(second);
            let why = pace.start(who, &node(number), LIMITS, now).err().map(|refused| refused.why);
            assert_eq!(why, refused, "second {second}, {who}, node {number}");
        }
    }

    #[test]
    fn one_alarm_a_minute_is_enough() {
        let (pace, begin) = (Pace::default(), Instant::now());
        let limits = PaceLimits { starts: 1, nodes: 1 };
        let mut news = Vec::new();
        for second in (0..150).step_by(10) {
            let at = begin + Duration::from_secs(second);
            if pace.start("alice", &node(1), limits, at).is_err_and(|refused| refused.is_news) {
                news.push(second);
            }
        }
        assert_eq!(news, [10, 70, 130]);
    }

    #[test]
    fn who_starts_nothing_is_forgotten() {
        let (pace, begin) = (Pace::default(), Instant::now());
        for number in 0..FORGET_AT {
            pace.start(&format!("user-{number}"), &node(1), LIMITS, begin).unwrap();
        }
        pace.start("one-more", &node(1), LIMITS, begin + WINDOW).unwrap();
        assert_eq!(lock(&pace.principals).len(), 1);
    }

    #[test]
    fn a_refusal_says_what_is_too_much_and_how_long_to_wait() {
        let why = TooFast::Nodes { most: 20, wait: Duration::from_millis(1500) };
        assert!(why.to_string().contains("20 different nodes") && why.to_string().ends_with("in 2 s"), "{why}");
        let why = TooFast::Starts { most: 60, wait: Duration::ZERO };
        assert!(why.to_string().contains("60 sessions") && why.to_string().ends_with("in 1 s"), "{why}");
    }
}
