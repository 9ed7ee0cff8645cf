//! Which packages a base needs: as apt finds them for an empty system, without recommendations.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    packages::{Packages, Provider, Record, requested},
    relation::{self, Relation},
    version::Version,
};

/// A base has some hundred at most: a task that names them must fit into an environment variable.
pub const MOST: usize = 400;
/// How often a choice may be tried before it is given up: an archive may be made to take for ever.
const STEPS: usize = 20_000;

/// Packages that come with others although those do not ask for them: without the locale C.UTF-8, which every base sets, programs
/// that want it do not start.
const WITH: &[(&str, &str)] = &[("libc6", "libc-bin")];

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Packages, each as `name` or `name=version`.
    pub install: &'a [String],
    /// Packages that are taken to be there, and are not.
    pub without: &'a BTreeSet<String>,
}

/// A package of a resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub record: &'a Record,
}

/// Why there is no resolution.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A package that was asked for is not there.
    #[error("there is no package {name}{hint}")]
    Unknown {
        /// Its name.
        name: String,
        /// What may be meant.
        hint: String,
    },
    /// It is there, but not in the version that was asked for.
    #[error("there is no version {version} of {name}; there is {known}")]
    NoVersion {
        /// Its name.
        name: String,
        /// The version.
        version: String,
        /// Those that are there.
        known: String,
    },
    /// A package needs something that is not to be had.
    #[error("{package} needs {relation}, {why}")]
    Unmet {
        /// The package with its version.
        package: String,
        /// What it needs.
        relation: String,
        /// Why that cannot be.
        why: String,
    },
    /// Two packages will not be together.
    #[error("{package} conflicts with {other}: take only one of them, or exclude what needs the other")]
    Conflict {
        /// The package that says so, with its version.
        package: String,
        /// The other, with its version.
        other: String,
    },
    /// Too many packages, or choices.
    #[error("it takes more than {MOST} packages or too many choices: ask for less")]
    TooLarge,
}

/// Finds the packages, in the order of their names.
///
/// # Errors
/// When something that is needed is not there, or may not be with the rest.
pub fn resolve<'a>(packages: &'a Packages, wanted: Wanted<'_>) -> Result<Vec<Chosen<'a>>, ResolveError> {
    let mut solver = Solver { packages, providers: packages.providers(), without: wanted.without, steps: 0 };
    let mut selection = Selection::default();
    let mut roots = Vec::new();
    for text in wanted.install {
        let root = solver.root(text)?;
        solver.select(&mut selection, &root)?;
        roots.push(root);
    }
    for root in &roots {
        solver.needs(&mut selection, root)?;
    }
    for (name, companion) in WITH {
        let wanted_too = selection.0.contains_key(name) && !wanted.without.contains(*companion);
        if wanted_too && packages.newest(companion).is_some() {
            let companion = solver.root(companion)?;
            solver.select(&mut selection, &companion)?;
            solver.needs(&mut selection, &companion)?;
        }
    }
    Ok(selection.0.into_iter().map(|(name, record)| Chosen { name, record }).collect())
}

/// What was chosen so far.
#[derive(Debug, Clone, Default)]
struct Selection<'a>(BTreeMap<&'a str, &'a Record>);

struct Solver<'a, 'b> {
    packages: &'a Packages,
    providers: BTreeMap<&'a str, Vec<Provider<'a>>>,
    without: &'b BTreeSet<String>,
    steps: usize,
}

impl<'a> Solver<'a, '_> {
    fn root(&self, text: &str) -> Result<Chosen<'a>, ResolveError> {
        let (name, version) = requested(text);
        let versions = self.packages.versions(name);
        let Some(first) = versions.first() else {
            return Err(ResolveError::Unknown { name: name.to_owned(), hint: self.hint(name) });
        };
        let record = match version {
            None => self.packages.newest(name).unwrap_or(first),
            Some(version) => versions.iter().find(|record| record.version.as_str() == version).ok_or_else(|| {
                let known: Vec<&str> = versions.iter().map(|record| record.version.as_str()).collect();
                ResolveError::NoVersion { name: name.to_owned(), version: version.to_owned(), known: known.join(", ") }
            })?,
        };
        let name = self.packages.own_name(name).unwrap_or_default();
        Ok(Chosen { name, record })
    }

    fn hint(&self, name: &str) -> String {
        if let Some(providers) = self.providers.get(name) {
            let names: Vec<&str> = providers.iter().take(5).map(|provider| provider.name).collect();
            return format!(": it is a virtual package, ask for one that provides it: {}", names.join(", "));
        }
        // One of the same family: libssl for libssl3.
        let near: Vec<&str> = self.packages.names().filter(|other| is_near(name, other)).take(5).collect();
        if near.is_empty() { String::new() } else { format!("; there is {}", near.join(", ")) }
    }

    /// Adds `package`, unless something that was chosen forbids it.
    fn select(&mut self, selection: &mut Selection<'a>, package: &Chosen<'a>) -> Result<(), ResolveError> {
        self.steps += 1;
        if selection.0.len() >= MOST || self.steps > STEPS {
            return Err(ResolveError::TooLarge);
        }
        let conflict = |package: &Chosen<'a>, other: &Chosen<'a>| ResolveError::Conflict {
            package: shown(package),
            other: shown(other),
        };
        for (name, record) in &selection.0 {
            let other = Chosen { name, record };
            if forbids(package, &other) {
                return Err(conflict(package, &other));
            }
            if forbids(&other, package) {
                return Err(conflict(&other, package));
            }
        }
        selection.0.insert(package.name, package.record);
        Ok(())
    }

    /// Adds all that `package` needs.
    fn needs(&mut self, selection: &mut Selection<'a>, package: &Chosen<'a>) -> Result<(), ResolveError> {
        let record = package.record;
        for alternatives in relation::all(&record.depends) {
            self.need(selection, package, &alternatives)?;
        }
        Ok(())
    }

    /// Adds the first of `alternatives` that can be, with all that it needs.
    fn need(
        &mut self,
        selection: &mut Selection<'a>,
        package: &Chosen<'a>,
        alternatives: &[Relation<'_>],
    ) -> Result<(), ResolveError> {
        if alternatives.iter().any(|relation| self.is_met(selection, relation)) {
            return Ok(());
        }
        let candidates: Vec<Chosen<'a>> = alternatives.iter().flat_map(|relation| self.candidates(relation)).collect();
        let mut failure = None;
        for candidate in candidates {
            let mut tried = selection.clone();
            let added = self.select(&mut tried, &candidate).and_then(|()| self.needs(&mut tried, &candidate));
            match added {
                Ok(()) => {
                    *selection = tried;
                    return Ok(());
                }
                Err(ResolveError::TooLarge) => return Err(ResolveError::TooLarge),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let relation = alternatives.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        let why = match failure {
            // What is deeper says more.
            Some(deeper @ ResolveError::Unmet { .. }) => return Err(deeper),
            Some(other) => format!("but {other}"),
            None => self.known(alternatives),
        };
        Err(ResolveError::Unmet { package: shown(package), relation, why })
    }

    /// Whether what was chosen, or is taken to be there, will do.
    fn is_met(&self, selection: &Selection<'a>, relation: &Relation<'_>) -> bool {
        if self.without.contains(relation.name) {
            return true;
        }
        if selection.0.get(relation.name).is_some_and(|record| relation.takes(&record.version)) {
            return true;
        }
        let providers = self.providers.get(relation.name).into_iter().flatten();
        let chosen = |provider: &Provider<'_>| {
            self.without.contains(provider.name)
                || selection.0.get(provider.name).is_some_and(|record| std::ptr::eq(*record, provider.record))
        };
        providers.filter(|provider| provides(provider, relation)).any(chosen)
    }

    /// Who could meet it, best first: the package itself, then providers by priority.
    fn candidates(&self, relation: &Relation<'_>) -> Vec<Chosen<'a>> {
        let own = self.packages.newest(relation.name).filter(|record| relation.takes(&record.version));
        let own = own.and_then(|record| Some(Chosen { name: self.packages.own_name(relation.name)?, record }));
        let mut providers: Vec<&Provider<'a>> = self.providers.get(relation.name).into_iter().flatten().collect();
        providers.retain(|provider| provides(provider, relation));
        providers.sort_by_key(|provider| (provider.record.priority, provider.name));
        let providers = providers.into_iter().map(|provider| Chosen { name: provider.name, record: provider.record });
        own.into_iter().chain(providers).collect()
    }

    fn known(&self, alternatives: &[Relation<'_>]) -> String {
        let known = alternatives
            .iter()
            .filter_map(|relation| Some(format!("{} {}", relation.name, self.packages.newest(relation.name)?.version)));
        let known: Vec<String> = known.collect();
        if known.is_empty() { "which is not there".to_owned() } else { format!("and there is {}", known.join(", ")) }
    }
}

/// Whether a provider's provision is of a version that will do (Debian policy 7.5).
fn provides(provider: &Provider<'_>, relation: &Relation<'_>) -> bool {
    match (&relation.version, &provider.version) {
        (None, _) => true,
        (Some(bound), Some(version)) => bound.holds(version),
        (Some(_), None) => false,
    }
}

/// Whether `package` says that it will not be beside `other`.
fn forbids(package: &Chosen<'_>, other: &Chosen<'_>) -> bool {
    if package.name == other.name {
        return false;
    }
    relation::each(&package.record.conflicts).any(|conflict| {
        let own = conflict.name == other.name && conflict.takes(&other.record.version);
        own || relation::each(&other.record.provides).any(|provided| {
            let version: Option<&Version> = provided.version.as_ref().and_then(relation::Bound::exact);
            provided.name == conflict.name
                && (conflict.version.is_none() || version.is_some_and(|version| conflict.takes(version)))
        })
    })
}

fn is_near(name: &str, other: &str) -> bool {
    name.len() >= 3 && (other.starts_with(name) || name.starts_with(other) && other.len() >= 3)
}

fn shown(package: &Chosen<'_>) -> String {
    format!("{} {}", package.name, package.record.version)
}

#[cfg(test)]
mod tests;
