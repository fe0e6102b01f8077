//! What a node signs when it registers and when it leaves: one place for the agent that signs and the server that
//! verifies. The calls themselves are operations of the API.

use crate::id::NodeId;
use crate::time::Timestamp;

/// Returns the message a registering node signs with its key to prove that it has it. It names the activation, so that
/// the proof serves no other registration.
pub fn register_message(activation_id: &str) -> Vec<u8> {
    [b"munjigi register node v1\0", activation_id.as_bytes()].concat()
}

/// Returns the message a leaving node signs. It names the moment, so that it cannot be used later: context, id, a zero
/// byte, microseconds in big-endian.
pub fn leave_message(node: &NodeId, time: Timestamp) -> Vec<u8> {
    [b"munjigi leave node v1\0", node.as_str().as_bytes(), b"\0", &time.0.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_apart_and_name_what_they_are_for() {
        let node = NodeId::from_public_key(&[1; 32]);
        let at = Timestamp::from_secs(7);
        assert_eq!(register_message("a-1"), b"munjigi register node v1\0a-1");
        let leave = [b"munjigi leave node v1\0", node.as_str().as_bytes(), b"\0\0\0\0\0\0\x6a\xcf\xc0"].concat();
        assert_eq!(leave_message(&node, at), leave);
    }
}
