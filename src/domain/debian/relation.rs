//! Relations between packages: Depends, Provides, Conflicts and their kin (deb-control(5), Debian policy 7.1).

use super::version::Version;
use std::cmp::Ordering;

/// A package that another one wants or will not have beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The package or virtual package, without `:any`.
    pub name: &'a str,
    /// What its version must be; none takes any.
    pub version: Option<Bound>,
}

/// A condition on a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    operator: &'static str,
    version: Version,
}

impl std::fmt::Display for Relation<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.version {
            Some(bound) => write!(formatter, "{} ({} {})", self.name, bound.operator, bound.version),
            None => formatter.write_str(self.name),
        }
    }
}

impl Bound {
    /// Whether `version` is such a one.
    #[must_use]
    pub fn holds(&self, version: &Version) -> bool {
        let order = version.compare(&self.version);
        match self.operator {
            "<<" => order == Ordering::Less,
            "<=" => order != Ordering::Greater,
            "=" => order == Ordering::Equal,
            ">=" => order != Ordering::Less,
            _ => order == Ordering::Greater,
        }
    }

    /// The version, where it must be exactly that one.
    #[must_use]
    pub fn exact(&self) -> Option<&Version> {
        (self.operator == "=").then_some(&self.version)
    }
}

impl<'a> Relation<'a> {
    /// Reads `name[:arch] [(operator version)]`; none when it is not written so.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (name, rest) = match text.split_once('(') {
            Some((name, rest)) => (name, Some(rest.split_once(')')?.0)),
            // Restrictions to architectures and build profiles are for source packages.
            None => (text.split_once(['[', '<']).map_or(text, |(name, _)| name), None),
        };
        let name = name.trim();
        let name = name.split_once(':').map_or(name, |(name, _)| name);
        if name.is_empty() || name.contains(char::is_whitespace) {
            return None;
        }
        let version = match rest {
            Some(rest) => Some(bound(rest.trim())?),
            None => None,
        };
        Some(Self { name, version })
    }

    /// Whether a package of this version will do.
    #[must_use]
    pub fn takes(&self, version: &Version) -> bool {
        self.version.as_ref().is_none_or(|bound| bound.holds(version))
    }
}

fn bound(text: &str) -> Option<Bound> {
    // `<` and `>` are old spellings of `<=` and `>=`.
    let operators = [("<<", "<<"), ("<=", "<="), (">=", ">="), (">>", ">>"), ("=", "="), ("<", "<="), (">", ">=")];
    let (operator, rest) = operators.iter().find_map(|(written, meant)| Some((*meant, text.strip_prefix(written)?)))?;
    Some(Bound { operator, version: rest.trim().parse().ok()? })
}

/// The relations of a field, each a list of alternatives; what cannot be read is left out of its alternatives.
pub fn all(field: &str) -> impl Iterator<Item = Vec<Relation<'_>>> {
    let groups = field.split(',').map(str::trim).filter(|group| !group.is_empty());
    groups.map(|group| group.split('|').filter_map(|alternative| Relation::parse(alternative.trim())).collect())
}

/// The relations of a field that has no alternatives, as Provides and Conflicts.
pub fn each(field: &str) -> impl Iterator<Item = Relation<'_>> {
    field.split(',').filter_map(|text| Relation::parse(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read() {
        let groups: Vec<_> =
            all("libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0,\n python3:any, zlib1g(<<1:2) ,").collect();
        let shown: Vec<Vec<String>> =
            groups.iter().map(|group| group.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(
            shown,
            [
                vec!["libc6 (>= 2.34)"],
                vec!["debconf (>= 0.5)", "debconf-2.0"],
                vec!["python3"],
                vec!["zlib1g (<< 1:2)"]
            ]
        );
        assert!(groups[0][0].takes(&"2.36-9".parse().unwrap()));
        assert!(!groups[0][0].takes(&"2.33".parse().unwrap()));
        assert!(!groups[3][0].takes(&"1:2".parse().unwrap()));
        assert_eq!(all("a (>= ), b c, (= 1)").map(|group| group.len()).collect::<Vec<_>>(), [0, 0, 0]);
    }
}
