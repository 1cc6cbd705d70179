//! boltz-operator.
fn main() {}
