//! The recording format: records, chunks, hash chain, encryption and exports, as bytes.
