//! `RUN --mount`: emulated without mount(2), which a container without privilege does not have. Files are copied for the
//! one RUN and taken away behind it, directories and secrets are made for it.

use crate::domain::{
    dockerfile::{
        Located, Position, Problem,
        mount::{Mount, MountAttributes, MountFlag},
        parse::closest,
    },
    environment::SECRET_VARIABLE,
    recipe::{CopyItem, Destination, Owner, RunMount, SecretFile},
    value::ImagePath,
};

use super::{
    graph::{self, Origin},
    stage::{Action, Work, rooted},
};

/// The variable of the build container that has a secret, by its place in the spec's list.
pub(super) fn variable(index: usize) -> String {
    format!("{SECRET_VARIABLE}{index}")
}

impl Work<'_> {
    /// What a mount is for the process; a bind becomes a copy before it.
    pub(super) fn mount(&mut self, at: Position, flag: &Located<MountFlag>) -> Option<RunMount> {
        let (scope, globals) = (&self.built.scope, &self.open.globals);
        let resolved = flag.value.resolve(|word| scope.try_word(globals, word));
        let mount = resolved.map_err(|problem| self.problems.push(problem)).ok()?;
        match mount {
            Mount::Bind { source, target, .. } => {
                self.bind(at, flag, source.as_deref(), &target);
                None
            }
            Mount::Cache { from: Some(_), .. } => {
                let message = "a cache that begins with files of a stage is not supported: leave from out";
                self.problem(flag.at, "from", message);
                None
            }
            Mount::Cache { id, target, attributes, .. } => self.cache(flag, id, &target, attributes),
            Mount::Tmpfs { target, .. } => {
                let path = self.target(flag, &target)?;
                Some(RunMount::Directory { path, mode: None, owner: Owner::default() })
            }
            Mount::Secret { id, target, env, required, attributes } => {
                let target = target.or_else(|| env.is_none().then(|| format!("/run/secrets/{id}")));
                self.secret(flag, (&id, required), target.as_deref(), (env, attributes))
            }
            Mount::Ssh { required: true, .. } => {
                let message = "there is no SSH agent in a build: use a secret mount, or https with a token";
                self.problem(flag.at, "ssh", message);
                None
            }
            // As in Docker, an optional one that nobody has given is not there.
            Mount::Ssh { .. } => None,
        }
    }

    fn bind(&mut self, at: Position, flag: &Located<MountFlag>, source: Option<&str>, target: &str) {
        let origin = match graph::mount_from(flag) {
            None => Origin::Context,
            Some(from) => {
                // Where it leads nowhere the graph has said so.
                match graph::origin(&self.open.dockerfile, &from, self.index, &mut Vec::new()) {
                    Some(origin) => origin,
                    None => return,
                }
            }
        };
        if origin == Origin::Context && self.open.plan.outline.source.is_none() {
            return self.problem(flag.at, "bind", "there is no build context: give spec.source");
        }
        let Some(path) = self.target(flag, target) else { return };
        let source = rooted(source.unwrap_or_default());
        let from_context = origin == Origin::Context;
        let item = CopyItem {
            source: if from_context { source.trim_start_matches('/').to_owned() } else { source },
            destination: Destination { path, directory: false },
            mode: None,
            owner: from_context.then(Owner::default),
            exclude: Vec::new(),
            parents: None,
            docker: None,
        };
        self.built.action(at, Action::Copy { origin, items: vec![item], owner: None, transient: true });
    }

    /// All stages of a Dockerfile share the caches of one id, which is the target unless it is given.
    fn cache(
        &mut self,
        flag: &Located<MountFlag>,
        id: Option<String>,
        target: &str,
        attributes: MountAttributes,
    ) -> Option<RunMount> {
        let path = self.target(flag, target)?;
        let name = id.unwrap_or_else(|| path.to_string());
        let known = self.built.caches.iter().position(|other| *other == name);
        let index = known.unwrap_or_else(|| {
            self.built.caches.push(name);
            self.built.caches.len() - 1
        });
        let mode = attributes.mode.unwrap_or(0o755);
        Some(RunMount::Cache { path, index, volume: false, mode, owner: owner(attributes) })
    }

    fn secret(
        &mut self,
        flag: &Located<MountFlag>,
        (id, required): (&str, bool),
        target: Option<&str>,
        (env, attributes): (Option<String>, MountAttributes),
    ) -> Option<RunMount> {
        let Some(index) = self.open.plan.spec.secrets.iter().position(|secret| secret.id == id) else {
            if required {
                self.problem(flag.at, id, format!("spec.dockerfile.secrets has no secret with the id `{id}`"));
            } else {
                let message = format!("no secret with the id `{id}` is given, the RUN does without");
                let given = self.open.plan.spec.secrets.iter().map(|secret| secret.id.as_str());
                let problem = Problem::new(flag.at, id, message).suggesting(closest(id, given));
                self.built.without_secret.push(problem);
            }
            return None;
        };
        let file = match target {
            None => None,
            Some(target) => {
                let path = self.target(flag, target)?;
                Some(SecretFile { path, mode: attributes.mode.unwrap_or(0o400), owner: owner(attributes) })
            }
        };
        self.built.secrets.insert(index);
        Some(RunMount::Secret { variable: variable(index), file, env })
    }

    fn target(&mut self, flag: &Located<MountFlag>, text: &str) -> Option<ImagePath> {
        let path = self.absolute(text);
        path.map_err(|error| self.problems.push(Problem::new(flag.at, text, error.to_string()))).ok()
    }
}

fn owner(attributes: MountAttributes) -> Owner {
    Owner { uid: attributes.uid.unwrap_or_default(), gid: attributes.gid.unwrap_or_default() }
}
