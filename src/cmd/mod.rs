//! One file per subcommand: wires domain to shell, reads top to bottom.

pub mod agent;
pub mod build;
pub mod convert;
pub mod images;
pub mod install;
pub mod lint;
pub mod list;
pub mod operator;
pub mod package;
pub mod plan;
pub mod store;
pub mod table;
pub mod wrapper;
