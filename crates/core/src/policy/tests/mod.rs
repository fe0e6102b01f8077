//! Tests of the engine as a whole.

mod vectors;
