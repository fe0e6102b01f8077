//! What a version of AWS's agent or client can do, by the version text in the handshake.

/// What a client may use with an agent; the agent's version must be greater than the one that each field names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentFeatures {
    /// Ends a session on the flag instead of the API call (2.3.722.0).
    pub terminate_flag: bool,
    /// Speaks smux in port sessions (3.0.196.0).
    pub multiplexing: bool,
    /// Needs no smux keep-alive (3.1.1511.0).
    pub no_keep_alive: bool,
}

impl AgentFeatures {
    /// Judges as AWS's client does: text with other than four numeric components counts as too old.
    pub fn of(version: &str) -> Self {
        let components = components(version).filter(|parts| parts.len() == 4).unwrap_or_default();
        let greater = |than: [u64; 4]| components.as_slice() > than.as_slice();
        Self {
            terminate_flag: greater([2, 3, 722, 0]),
            multiplexing: greater([3, 0, 196, 0]),
            no_keep_alive: greater([3, 1, 1511, 0]),
        }
    }
}

/// What an agent may use with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientFeatures {
    /// Speaks smux in port sessions (1.1.70 and later).
    pub multiplexing: bool,
    /// Needs no smux keep-alive (later than 1.2.331.0).
    pub no_keep_alive: bool,
    /// Knows separate output and error (later than 1.2.295).
    pub separate_output: bool,
}

impl ClientFeatures {
    /// Judges as AWS's agent does: components that are missing count as 0, text without numbers as too old.
    pub fn of(version: &str) -> Self {
        let mut parts = components(version).unwrap_or_default();
        parts.resize(parts.len().max(4), 0);
        let parts = parts.as_slice();
        Self {
            multiplexing: parts >= [1, 1, 70, 0].as_slice(),
            no_keep_alive: parts > [1, 2, 331, 0].as_slice(),
            separate_output: parts > [1, 2, 295, u64::MAX].as_slice(),
        }
    }
}

fn components(version: &str) -> Option<Vec<u64>> {
    version.split('.').take(8).map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_version_without_four_numbers_has_no_features() {
        let none = AgentFeatures { terminate_flag: false, multiplexing: false, no_keep_alive: false };
        for version in ["", "3.4", "3.3.0", "3.3.0.0.1", "3.3.0.x", "9.9.9.-1", "munjigi", "2.3.722.0", "..."] {
            assert_eq!(AgentFeatures::of(version), none, "{version}");
        }
    }

    #[test]
    fn each_feature_begins_after_its_version() {
        let of = |version| {
            let AgentFeatures { terminate_flag, multiplexing, no_keep_alive } = AgentFeatures::of(version);
            [terminate_flag, multiplexing, no_keep_alive]
        };
        assert_eq!(of("2.3.723.0"), [true, false, false]);
        assert_eq!(of("3.0.196.0"), [true, false, false]);
        assert_eq!(of("3.0.196.1"), [true, true, false]);
        assert_eq!(of("3.1.1511.0"), [true, true, false]);
        assert_eq!(of("3.1.1512.0"), [true, true, true]);
        assert_eq!(of("10.0.0.0"), [true, true, true]);
    }

    #[test]
    fn a_client_version_may_have_fewer_numbers() {
        let of = |version| {
            let ClientFeatures { multiplexing, no_keep_alive, separate_output } = ClientFeatures::of(version);
            [multiplexing, no_keep_alive, separate_output]
        };
        assert_eq!(of("1.1.69.9"), [false; 3]);
        assert_eq!(of("1.1.70"), [true, false, false]);
        assert_eq!(of("1.2.295"), [true, false, false]);
        assert_eq!(of("1.2.312.0"), [true, false, true]);
        assert_eq!(of("1.2.331.0"), [true, false, true]);
        assert_eq!(of("1.2.650.0"), [true; 3]);
        for version in ["", "one", "1.x"] {
            assert_eq!(of(version), [false; 3], "{version}");
        }
    }
}
