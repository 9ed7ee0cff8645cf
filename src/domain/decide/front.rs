//! What a Dockerfile adds to a pass: its text, the images that it names, the plan that it makes.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    api::{
        conditions::Reason,
        v1alpha1::{BuildReason, Progress},
    },
    domain::{
        plan::{DockerfileError, DockerfilePlan, Draft, OpenDockerfile, Plan},
        value::Reference,
    },
};

use super::{Asked, Pass, Question, Trouble, image_pins};

/// Images, and where each is named.
pub(super) type Images = Vec<(Reference, String)>;

impl Pass<'_> {
    /// The images that have to be pinned before anything can be built, with where each is named.
    pub(super) fn images(&self, draft: &Draft, revision: Option<&str>) -> Asked<Result<Images, Trouble>> {
        let placed = |images: Vec<Reference>, place: &dyn Fn(&Reference) -> String| {
            images.into_iter().map(|image| (image.clone(), place(&image))).collect()
        };
        Ok(match draft {
            Draft::Complete(plan) => Ok(placed(plan.images(), &|image| plan.place_of(image))),
            Draft::Dockerfile(plan) => {
                self.open(plan, revision)?.map(|open| placed(open.images(), &|image| open.place_of(image)))
            }
        })
    }

    /// The whole plan of a build whose images are pinned.
    pub(super) fn complete<'a>(&self, draft: &'a Draft, progress: &Progress) -> Asked<Result<Cow<'a, Plan>, Trouble>> {
        let set = match self.packages(draft, progress)? {
            Ok(set) => set,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let plan = match self.plan(draft, progress)? {
            Ok(plan) => plan,
            Err(trouble) => return Ok(Err(trouble)),
        };
        Ok(Ok(match set {
            Some(set) => Cow::Owned(plan.into_owned().with_packages(&set)),
            None => plan,
        }))
    }

    /// The plan without its packages.
    fn plan<'a>(&self, draft: &'a Draft, progress: &Progress) -> Asked<Result<Cow<'a, Plan>, Trouble>> {
        let plan = match draft {
            Draft::Complete(plan) => return Ok(Ok(Cow::Borrowed(plan))),
            Draft::Dockerfile(plan) => plan,
        };
        let open = match self.open(plan, progress.revision.as_deref())? {
            Ok(open) => open,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let pins = image_pins(progress);
        let (mut questions, mut configs) = (Vec::new(), BTreeMap::new());
        for reference in open.images() {
            let Some(digest) = pins.get(&reference) else { continue };
            let pinned = reference.repository().pinned(*digest);
            match self.facts.configs.get(&pinned) {
                Some(Ok(config)) => drop(configs.insert(reference, config.clone())),
                Some(Err(trouble)) => return Ok(Err(trouble.clone())),
                None => questions.push(Question::Config(pinned)),
            }
        }
        if !questions.is_empty() {
            return Err(questions);
        }
        Ok(open.plan(&configs).map(Cow::Owned).map_err(|error| trouble(&error)))
    }

    /// A look at the source that finds a Dockerfile which cannot be built is a build that failed, not a look that did.
    pub(super) fn found_broken(&self, progress: Progress, trouble: &Trouble) -> Progress {
        let broken = matches!(trouble.reason, Reason::DockerfileInvalid | Reason::FinalStageNotMinimal);
        let last = self.status.last_build.as_ref().and_then(|last| last.revision.as_ref());
        match &progress.revision {
            Some(revision) if broken && progress.poll && Some(revision) != last => {
                let message = format!("the source is at {revision}");
                Progress { reason: BuildReason::SourceChanged, message, poll: false, ..progress }
            }
            _ => progress,
        }
    }

    fn open<'a>(&self, plan: &'a DockerfilePlan, revision: Option<&str>) -> Asked<Result<OpenDockerfile<'a>, Trouble>> {
        let paths = plan.paths();
        let nothing = BTreeMap::new();
        let files = match &self.facts.files {
            Some(Ok(files)) => files,
            Some(Err(trouble)) => return Ok(Err(trouble.clone())),
            None if paths.is_empty() => &nothing,
            None => {
                let revision = revision.unwrap_or_default().to_owned();
                return Err(vec![Question::Files { revision, paths }]);
            }
        };
        Ok(plan.open(files).map_err(|error| trouble(&error)))
    }
}

fn trouble(error: &DockerfileError) -> Trouble {
    let reason = match error {
        DockerfileError::Missing { .. } | DockerfileError::Invalid { .. } => Reason::DockerfileInvalid,
        DockerfileError::NotMinimal { .. } => Reason::FinalStageNotMinimal,
    };
    Trouble { reason, message: error.to_string() }
}
