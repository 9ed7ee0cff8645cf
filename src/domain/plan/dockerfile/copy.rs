//! COPY and ADD: what is taken from where, and what it becomes.

use crate::domain::{
    dockerfile::{
        Located, Position, Word,
        ast::{AddInstruction, CopyFiles, CopyInstruction, CopySource, Heredoc},
    },
    mode::Mode,
    recipe::{CopyItem, Destination, Docker, Owner, TextFile},
    remote::Remote,
    tree,
    value::ImagePath,
};

use super::{
    graph::{self, Origin},
    remote::{self, Adding},
    stage::{Action, COPY_BYTES, Work, rooted},
};

/// What is wrong with `--checksum` where nothing is fetched.
const CHECKSUM: &str = "--checksum is for addresses: leave it out";

/// What one instruction says of all its files.
struct Common {
    mode: Option<Mode>,
    /// Numeric; none keeps the files' own.
    owner: Option<Owner>,
    /// By a name that only the container knows.
    named: Option<String>,
    exclude: Vec<String>,
    parents: bool,
    destination: Destination,
    /// Only of ADD.
    adding: Option<Adding>,
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
        self.files(at, &origin, &copy.files, None);
    }

    pub(super) fn add(&mut self, at: Position, add: &AddInstruction) {
        let checksum = match &add.checksum {
            None => None,
            Some(word) => {
                let Some(checksum) = self.word(word) else { return };
                if add.files.sources.len() != 1 {
                    let message = "--checksum is for one source: give each an ADD of its own";
                    return self.problem(word.at, word.value.raw(), message);
                }
                Some(checksum)
            }
        };
        let adding = Adding { checksum, keep_git_dir: add.keep_git_dir, unpack: add.unpack };
        self.files(at, &Origin::Context, &add.files, Some(adding));
    }

    fn files(&mut self, at: Position, origin: &Origin, files: &CopyFiles, adding: Option<Adding>) {
        let own = matches!(origin, Origin::Stage(_) | Origin::Image(_));
        let Some(common) = self.common(files, own, adding) else { return };
        let mut copies: Vec<(Origin, Vec<CopyItem>)> = Vec::new();
        let mut texts = Vec::new();
        for source in &files.sources {
            match &source.value {
                CopySource::Path(word) => {
                    let word = Located::new(word.clone(), source.at);
                    let Some((from, item)) = self.source(origin, at, &word, &common) else { continue };
                    match copies.last_mut().filter(|(last, _)| *last == from) {
                        Some((_, items)) => items.push(item),
                        None => copies.push((from, vec![item])),
                    }
                }
                CopySource::Heredoc(_) if common.adding.as_ref().is_some_and(|adding| adding.checksum.is_some()) => {
                    self.problem(source.at, "<<", CHECKSUM);
                }
                CopySource::Heredoc(heredoc) => texts.extend(self.text(heredoc, source.at, &common)),
            }
        }
        // What a copy makes is known to later ones.
        let Destination { path, directory } = &common.destination;
        self.built.know(if *directory { Some(path.clone()) } else { path.parent() });
        for (origin, items) in copies {
            let action = Action::Copy { origin, items, owner: common.named.clone(), transient: false };
            self.built.actions.push(Located::new(action, at));
        }
        if !texts.is_empty() {
            self.built.actions.push(Located::new(Action::Write(texts, common.named), at));
        }
    }

    /// What a word stands for and where that comes from.
    fn source(
        &mut self,
        origin: &Origin,
        at: Position,
        word: &Located<Word>,
        common: &Common,
    ) -> Option<(Origin, CopyItem)> {
        let text = self.word(word)?;
        if !self.spend(word.at, COPY_BYTES) {
            return None;
        }
        let Some(adding) = &common.adding else {
            return Some((origin.clone(), self.item((origin, at), (word, &text), common)?));
        };
        if !remote::is_remote(&text) {
            if adding.checksum.is_some() {
                self.problem(word.at, word.value.raw(), CHECKSUM);
                return None;
            }
            return Some((origin.clone(), self.item((origin, at), (word, &text), common)?));
        }
        let remote = remote::remote(&text, adding);
        let remote = remote.map_err(|message| self.problem(word.at, word.value.raw(), message)).ok()?;
        let item = common.item(remote_source(&remote));
        let item = match &remote {
            // BuildKit downloads to files that nobody else can read.
            Remote::File { .. } => {
                let docker = if adding.unpack == Some(true) { Docker::Add } else { Docker::Copy };
                let mode = item.mode.as_ref().map_or(0o600, |mode| mode.of(0o600, false));
                CopyItem { mode: Some(Mode::Bits(mode)), docker: Some(docker), ..item }
            }
            Remote::Git { .. } => item,
        };
        Some((Origin::Remote(remote), item))
    }

    /// `own` is whether files have owners that count.
    fn common(&mut self, files: &CopyFiles, own: bool, adding: Option<Adding>) -> Option<Common> {
        let mode = match &files.mode {
            None => None,
            Some(word) => {
                let text = self.word(word)?;
                let mode = text.parse::<Mode>();
                let mode = mode.map_err(|error| self.problem(word.at, word.value.raw(), format!("`{text}`: {error}")));
                Some(mode.ok()?)
            }
        };
        // Files of the context belong to nobody in particular; those of a stage keep their owners (as BuildKit has it).
        // What is in archives that ADD unpacks keeps its owners too; other files that it takes have none.
        let default = (!own && adding.is_none()).then(Owner::default);
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
        let destination = self.destination(files)?;
        Some(Common { mode, owner, named, exclude, parents: files.parents, destination, adding })
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
        (origin, at): (&Origin, Position),
        (word, text): (&Located<Word>, &str),
        common: &Common,
    ) -> Option<CopyItem> {
        if *origin == Origin::Context && self.open.plan.outline.source.is_none() {
            let name = if common.adding.is_some() { "ADD" } else { "COPY" };
            self.problem(at, name, "there is no build context: give spec.source");
            return None;
        }
        // Both are read from the top of the context or of the stage's file system; `..` stops there, as in Docker.
        let absolute = format!("/{text}");
        let (above, below) = absolute.split_once("/./").filter(|_| common.parents).unwrap_or(("", &absolute));
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
        let unpacks = common.adding.as_ref().is_some_and(|adding| adding.unpack != Some(false));
        let docker = if unpacks { Docker::Add } else { Docker::Copy };
        let parents = common.parents.then(|| parts(above));
        Some(CopyItem { parents, docker: Some(docker), ..common.item(source) })
    }

    fn text(&mut self, heredoc: &Heredoc, at: Position, common: &Common) -> Option<TextFile> {
        let text = heredoc.text();
        let content =
            if heredoc.expand { self.built.scope.content(&Located::new(&text, at), self.problems)? } else { text };
        let Destination { path, directory } = &common.destination;
        let path = if *directory { path.join(&heredoc.name) } else { Ok(path.clone()) };
        let path = path.map_err(|error| self.problem(at, &heredoc.name, error.to_string())).ok()?;
        let mode = common.mode.as_ref().map_or(0o644, |mode| mode.of(0o644, false));
        Some(TextFile { path, content, mode, owner: common.owner.unwrap_or_default() })
    }
}

impl Common {
    /// A copy of `source` as COPY has it.
    fn item(&self, source: String) -> CopyItem {
        CopyItem {
            source,
            destination: self.destination.clone(),
            mode: self.mode.clone(),
            owner: self.owner,
            exclude: self.exclude.clone(),
            parents: None,
            docker: Some(Docker::Copy),
        }
    }
}

/// Where an agent that fetched `remote` finds it. Sources of copies are patterns, names are not.
fn remote_source(remote: &Remote) -> String {
    let Remote::File { name, .. } = remote else { return String::new() };
    let special = |letter: char| matches!(letter, '*' | '?' | '[' | ']' | '{' | '}' | '!' | '\\');
    let escaped = |letter: char| special(letter).then_some('\\').into_iter().chain([letter]).collect::<Vec<_>>();
    if name.contains(special) { name.chars().flat_map(escaped).collect() } else { name.clone() }
}

/// `uid[:gid]`; without a group it is the user's number, as COPY --chown has it. `root` is the same everywhere.
fn numeric(text: &str) -> Option<Owner> {
    let id = |text: &str| if text == "root" { Some(0) } else { text.parse().ok() };
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Some(Owner { uid: id(uid)?, gid: id(gid)? })
}
