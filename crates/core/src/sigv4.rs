//! Signature Version 4: verification of requests and the signing of our own.
