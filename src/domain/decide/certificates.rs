//! What `image.certificates` adds to a pass: the certificates as they are now.

use super::{Asked, Pass, Question, Trouble};

impl Pass<'_> {
    /// The certificates that the spec names, a PEM text; none where it names none.
    pub(super) fn certificates(&self) -> Asked<Result<Option<&str>, Trouble>> {
        if self.image.spec.image.certificates.is_empty() {
            return Ok(Ok(None));
        }
        match &self.facts.certificates {
            Some(Ok(text)) => Ok(Ok(Some(text))),
            Some(Err(trouble)) => Ok(Err(trouble.clone())),
            None => Err(vec![Question::Certificates]),
        }
    }
}
