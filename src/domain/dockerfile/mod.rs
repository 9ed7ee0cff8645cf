//! The Dockerfile language, as BuildKit reads it: text to instructions with positions, expansion of words, ignore files.

pub mod ast;
pub mod expand;
pub mod ignore;
pub mod lint;
pub mod mount;
pub mod parse;
pub mod problem;

pub use ast::{Dockerfile, Instruction, Stage, Word};
pub use parse::parse;
pub use problem::{Located, Position, Problem, Warning};
