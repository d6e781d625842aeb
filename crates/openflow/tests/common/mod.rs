//! What the tests of text share: a private Open vSwitch, and generators.

pub mod generate;
pub mod ovs;
