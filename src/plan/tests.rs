//! Table and virtual-time tests of the plan.
