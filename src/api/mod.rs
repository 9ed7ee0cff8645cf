//! The contract with users: the resource, its conditions and reasons.
