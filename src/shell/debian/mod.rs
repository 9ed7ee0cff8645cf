//! Debian archives: reads what they have for a resolution, and composes a base of their packages. Decides neither.

mod archive;
mod compose;
mod deb;
mod error;
mod fetch;

pub use archive::{Environment, resolve};
pub use compose::{Base, Compose, compose};
pub use error::BaseError;

/// Runs work that waits for disks beside everything else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BaseError> + Send + 'static,
) -> Result<T, BaseError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(BaseError::File(std::io::Error::other("its thread ended early"))))
}
