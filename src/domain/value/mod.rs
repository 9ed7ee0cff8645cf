//! Parsed values: inside the program no digest, reference, platform or path travels as a bare string.

mod address;
mod credential;
mod descriptor;
mod digest;
mod path;
mod platform;
mod reference;
mod size;

pub use address::{AddressPolicy, AddressRange, ParseAddressRangeError, Refusal};
pub use credential::Secret;
pub use descriptor::Descriptor;
pub use digest::{Digest, DigestHasher, ParseDigestError};
pub use path::{ImagePath, PathError};
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference, Repository};
pub use size::human_size;
