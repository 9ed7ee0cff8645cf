//! The contract with users: the resource, its conditions and reasons, and the generated schema.

pub mod conditions;
pub mod crd;
pub mod v1alpha1;
