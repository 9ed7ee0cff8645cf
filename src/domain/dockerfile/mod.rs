//! The Dockerfile language, as BuildKit reads it: text to instructions with positions, expansion of words, ignore files.

pub mod ast;
pub mod mount;
pub mod problem;

pub use ast::{Dockerfile, Instruction, Stage, Word};
pub use problem::{Located, Position, Problem};
