//! boltz-operator.
