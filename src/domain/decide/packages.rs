//! What a base of packages adds to a pass: which packages it is now, and what has changed since the last image.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::v1alpha1::{BuildReason, Progress, Status, SuiteStatus},
    domain::{
        debian::base::{PackageSet, PackagesBase, SeenRelease, changes},
        plan::Draft,
    },
};

use super::{Asked, Pass, Question, Trouble};

/// How many packages status lists.
pub(super) const LISTED: usize = 300;

impl Pass<'_> {
    /// The packages that the image or its debug image has; none where there are none.
    pub(super) fn packages(
        &self,
        draft: &Draft,
        progress: &Progress,
    ) -> Asked<Result<Option<Arc<PackageSet>>, Trouble>> {
        let Some(base) = draft.packages() else { return Ok(Ok(None)) };
        match &self.facts.packages {
            Some(Ok(set)) => Ok(Ok(Some(Arc::clone(set)))),
            Some(Err(trouble)) => Ok(Err(trouble.clone())),
            None => {
                let pinned = progress.packages.as_ref().and_then(|digest| digest.parse().ok());
                let anew = !progress.resolved && self.is_requested();
                Err(vec![Question::Packages { base: Box::new(base.clone()), pinned, anew }])
            }
        }
    }

    /// Whether an annotation that was not handled yet asks for a build.
    pub(super) fn is_requested(&self) -> bool {
        let progress = self.status.progress.as_ref();
        let begun = progress.is_some_and(|progress| progress.reason == BuildReason::Requested && !progress.resolved);
        begun || self.has_new_request()
    }

    /// A build goes on with the packages that it began with; those that a restarted operator cannot find again are others by now.
    pub(super) fn has_moved(&self, draft: &Draft, progress: &Progress) -> Asked<bool> {
        if !progress.resolved {
            return Ok(false);
        }
        let set = self.packages(draft, progress)?;
        let pinned = progress.packages.as_deref();
        Ok(matches!(set, Ok(Some(set)) if Some(set.digest().to_string().as_str()) != pinned))
    }

    /// Why the base, or what is put onto it, is another one than the last image's: the packages that changed. None where it is the
    /// same.
    pub(super) fn changed_packages(&self, draft: &Draft) -> Option<String> {
        let (Some(base), Some(Ok(set))) = (draft.packages(), &self.facts.packages) else { return None };
        let base_before = self.status.base.iter().flat_map(|base| &base.packages);
        let debug_before = self.status.image.iter().filter_map(|image| Some(&image.debug.as_ref()?.package));
        let own = changes(&base_before.cloned().collect::<Vec<_>>(), &listed(base, set));
        let tools = changes(&debug_before.cloned().collect::<Vec<_>>(), &Vec::from_iter(debug_package(base, set)));
        match (own.as_str(), tools.as_str()) {
            ("", "") => None,
            ("", tools) => Some(format!("the debug image's tools changed: {tools}")),
            (own, _) => Some(format!("the base's packages changed: {own}")),
        }
    }

    /// Remembers how new the suites were that were read.
    pub(super) fn saw_releases(&self, status: &mut Status) {
        if let (Some(base), Some(Ok(set))) = (&mut status.base, &self.facts.packages) {
            base.releases = releases(set);
        }
    }
}

/// The packages as status lists them.
pub(super) fn listed(base: &PackagesBase, set: &PackageSet) -> Vec<String> {
    set.names(base).into_iter().take(LISTED).collect()
}

/// What the tools of the debug image are of, as status has it; none without one.
pub(super) fn debug_package(base: &PackagesBase, set: &PackageSet) -> Option<String> {
    set.debug(base).map(ToString::to_string)
}

/// The suites as status has them.
pub(super) fn releases(set: &PackageSet) -> Vec<SuiteStatus> {
    let one = |SeenRelease { suite, date }: &SeenRelease| SuiteStatus { suite: suite.clone(), time: Time(*date) };
    set.releases.iter().map(one).collect()
}
