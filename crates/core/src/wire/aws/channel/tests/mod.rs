//! The channel against itself, against models of AWS's programs, and over bad links.

mod basics;
