//! Start grants: what one is, its canonical bytes, signing and verification (T-20 to T-24).
