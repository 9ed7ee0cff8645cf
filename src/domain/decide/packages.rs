//! What a base of packages adds to a pass: which packages it is now, and what has changed since the last image.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::v1alpha1::{BuildReason, Progress, Status, SuiteStatus},
    domain::{
        debian::base::{PackageSet, SeenRelease, changes},
        plan::{Draft, Plan},
    },
};

use super::{Asked, Pass, Question, Trouble};

/// How many packages status lists.
pub(super) const LISTED: usize = 300;

impl Pass<'_> {
    /// The packages of the plan's base; none where it has another one.
    pub(super) fn packages(&self, plan: &Plan, progress: &Progress) -> Asked<Result<Option<Arc<PackageSet>>, Trouble>> {
        let Some(base) = &plan.packages else { return Ok(Ok(None)) };
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
        let Draft::Complete(plan) = draft else { return Ok(false) };
        if !progress.resolved {
            return Ok(false);
        }
        let set = self.packages(plan, progress)?;
        let pinned = progress.packages.as_deref();
        Ok(matches!(set, Ok(Some(set)) if Some(set.digest().to_string().as_str()) != pinned))
    }

    /// Whether the base, or what is put onto it, is made of other packages than the last image's.
    pub(super) fn has_other_packages(&self) -> bool {
        let before = self.status.base.as_ref().map(|base| base.packages.as_slice()).unwrap_or_default();
        matches!(&self.facts.packages, Some(Ok(set)) if listed(set) != before)
    }

    /// Why the base is another one: the packages that changed.
    pub(super) fn changed_packages(&self) -> String {
        let before = self.status.base.as_ref().map(|base| base.packages.as_slice()).unwrap_or_default();
        let after = match &self.facts.packages {
            Some(Ok(set)) => listed(set),
            _ => Vec::new(),
        };
        match changes(before, &after).as_str() {
            "" => "the base's packages changed".to_owned(),
            changes => format!("the base's packages changed: {changes}"),
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
pub(super) fn listed(set: &PackageSet) -> Vec<String> {
    set.names().into_iter().take(LISTED).collect()
}

/// The suites as status has them.
pub(super) fn releases(set: &PackageSet) -> Vec<SuiteStatus> {
    let one = |SeenRelease { suite, date }: &SeenRelease| SuiteStatus { suite: suite.clone(), time: Time(*date) };
    set.releases.iter().map(one).collect()
}
