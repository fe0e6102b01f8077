//! What a node signs when it registers and when it leaves: one place for the agent that signs and the server that
//! verifies. The calls themselves are operations of the API.

use crate::id::NodeId;
use crate::time::Timestamp;

/// Returns the message a registering node signs with its key to prove that it has it. It names the activation, so that
/// the proof serves no other registration.
pub fn register_message(activation_id: &str) -> Vec<u8> {
    [b"munjigi register node v1\0", activation_id.as_bytes()].concat()
}

/// Returns the message a leaving node signs. It names the moment (whole seconds), so that it cannot be used later.
pub fn leave_message(node: &NodeId, time: Timestamp) -> Vec<u8> {
    format!("munjigi leave node v1\0{node}\0{}", time.as_secs()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_apart_and_name_what_they_are_for() {
        let node = NodeId::from_public_key(&[1; 32]);
        let at = Timestamp::from_secs(7);
        assert_eq!(register_message("a-1"), b"munjigi register node v1\0a-1");
        assert_eq!(leave_message(&node, at), format!("munjigi leave node v1\0{node}\x007").into_bytes());
        assert_ne!(leave_message(&node, at), leave_message(&node, Timestamp::from_secs(8)));
    }
}
