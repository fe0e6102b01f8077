//! The session: kinds, states, limits and the reasons for which one ends.
