//! What travels in a stream of the link: frames and messages of client, server and agent.
