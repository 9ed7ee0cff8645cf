//! COPY and ADD: what is taken from where, and what it becomes.

use crate::domain::{
    dockerfile::{
        Located, Position, Word,
        ast::{AddInstruction, CopyFiles, CopyInstruction, CopySource, Heredoc},
    },
    recipe::{CopyItem, Destination, Docker, Owner, TextFile},
    tree,
    value::ImagePath,
};

use super::{
    graph::{self, Origin},
    stage::{Action, COPY_BYTES, Work, rooted},
};

/// What the flags of one instruction say of all its files.
struct Flags {
    mode: Option<u32>,
    /// Numeric; none keeps the files' own.
    owner: Option<Owner>,
    /// By a name that only the container knows.
    named: Option<String>,
    exclude: Vec<String>,
    docker: Docker,
}

impl Work<'_> {
    pub(super) fn copy(&mut self, at: Position, copy: &CopyInstruction) {
        let origin = match &copy.from {
            None => Origin::Context,
            Some(word) => {
                // Where it leads nowhere the graph has said so.
                match graph::origin(&self.open.dockerfile, word, self.index, &mut Vec::new()) {
                    Some(origin) => origin,
                    None => return,
                }
            }
        };
        self.files(at, origin, (&copy.files, Docker::Copy));
    }

    pub(super) fn add(&mut self, at: Position, add: &AddInstruction) {
        for source in &add.files.sources {
            let CopySource::Path(word) = &source.value else { continue };
            let Some(text) = self.word(&Located::new(word.clone(), source.at)) else { continue };
            let remote =
                ["http://", "https://", "git@", "git://", "ssh://"].iter().any(|start| text.starts_with(start));
            if remote {
                let message = "ADD of an address is not supported: download it in a RUN of a builder stage and check its digest there";
                self.problem(source.at, &text, message);
            }
        }
        let docker = if add.unpack == Some(false) { Docker::Copy } else { Docker::Add };
        self.files(at, Origin::Context, (&add.files, docker));
    }

    fn files(&mut self, at: Position, origin: Origin, (files, docker): (&CopyFiles, Docker)) {
        if origin == Origin::Context && self.open.plan.outline.source.is_none() && has_paths(files) {
            return self.problem(at, "COPY", "there is no build context: give spec.source");
        }
        let from_context = origin == Origin::Context;
        let (Some(flags), Some(destination)) = (self.flags(files, from_context), self.destination(files)) else {
            return;
        };
        let flags = Flags { docker, ..flags };
        let mut items = Vec::new();
        let mut texts = Vec::new();
        for source in &files.sources {
            match &source.value {
                CopySource::Path(word) => {
                    let word = Located::new(word.clone(), source.at);
                    items.extend(self.item(&origin, &word, files, &destination, &flags));
                }
                CopySource::Heredoc(heredoc) => texts.extend(self.text(heredoc, source.at, &destination, &flags)),
            }
        }
        // What a copy makes is known to later ones.
        self.built.know(if destination.directory { Some(destination.path.clone()) } else { destination.path.parent() });
        if !items.is_empty() {
            let action = Action::Copy { origin, items, owner: flags.named.clone(), transient: false };
            self.built.actions.push(Located::new(action, at));
        }
        if !texts.is_empty() {
            self.built.actions.push(Located::new(Action::Write(texts, flags.named), at));
        }
    }

    fn flags(&mut self, files: &CopyFiles, from_context: bool) -> Option<Flags> {
        let mode = match &files.mode {
            None => None,
            Some(word) => {
                let text = self.word(word)?;
                let Some(mode) = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777) else {
                    let message =
                        format!("`{text}` is not supported, expected octal permission bits, for example --chmod=0755");
                    self.problem(word.at, word.value.raw(), message);
                    return None;
                };
                Some(mode)
            }
        };
        // Files of the context belong to nobody in particular; those of a stage keep their owners (as BuildKit has it).
        let default = from_context.then(Owner::default);
        let (owner, named) = match &files.owner {
            None => (default, None),
            Some(word) => {
                let text = self.word(word)?;
                match numeric(&text) {
                    Some(owner) => (Some(owner), None),
                    None => (default, Some(text)),
                }
            }
        };
        let exclude = files.exclude.iter().map(|pattern| pattern.value.clone()).collect();
        Some(Flags { mode, owner, named, exclude, docker: Docker::Copy })
    }

    /// A destination is a directory if it is written as one, if it is known to be one, or if there are several sources.
    fn destination(&mut self, files: &CopyFiles) -> Option<Destination> {
        let word = &files.destination;
        let text = self.word(word)?;
        let path = self.path(word, &text)?;
        let written = text.is_empty() || text.ends_with('/') || text == "." || text.ends_with("/.");
        let known = self.built.known.contains(&path) || tree::is_usual(path.relative().as_bytes());
        Some(Destination { path, directory: written || known || files.sources.len() > 1 })
    }

    fn item(
        &mut self,
        origin: &Origin,
        word: &Located<Word>,
        files: &CopyFiles,
        destination: &Destination,
        flags: &Flags,
    ) -> Option<CopyItem> {
        let text = self.word(word)?;
        if !self.spend(word.at, COPY_BYTES) {
            return None;
        }
        // Both are read from the top of the context or of the stage's file system; `..` stops there, as in Docker.
        let absolute = format!("/{text}");
        let (above, below) = absolute.split_once("/./").filter(|_| files.parents).unwrap_or(("", &absolute));
        let parts = |path: &str| path.split('/').filter(|part| !matches!(*part, "" | ".")).count();
        let source: ImagePath = match rooted(&format!("{above}/{below}")).parse() {
            Ok(source) => source,
            Err(error) => {
                let error: crate::domain::value::PathError = error;
                self.problem(word.at, word.value.raw(), error.to_string());
                return None;
            }
        };
        let source = if *origin == Origin::Context { source.relative().to_owned() } else { source.to_string() };
        Some(CopyItem {
            source,
            destination: destination.clone(),
            mode: flags.mode,
            owner: flags.owner,
            exclude: flags.exclude.clone(),
            parents: files.parents.then(|| parts(above)),
            docker: Some(flags.docker),
        })
    }

    fn text(&mut self, heredoc: &Heredoc, at: Position, destination: &Destination, flags: &Flags) -> Option<TextFile> {
        let text = heredoc.text();
        let content =
            if heredoc.expand { self.built.scope.content(&Located::new(&text, at), self.problems)? } else { text };
        let path =
            if destination.directory { destination.path.join(&heredoc.name) } else { Ok(destination.path.clone()) };
        let path = path.map_err(|error| self.problem(at, &heredoc.name, error.to_string())).ok()?;
        Some(TextFile { path, content, mode: flags.mode.unwrap_or(0o644), owner: flags.owner.unwrap_or_default() })
    }
}

fn has_paths(files: &CopyFiles) -> bool {
    files.sources.iter().any(|source| matches!(source.value, CopySource::Path(_)))
}

/// `uid[:gid]`; without a group it is the user's number, as COPY --chown has it. `root` is the same everywhere.
fn numeric(text: &str) -> Option<Owner> {
    let id = |text: &str| if text == "root" { Some(0) } else { text.parse().ok() };
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Some(Owner { uid: id(uid)?, gid: id(gid)? })
}
