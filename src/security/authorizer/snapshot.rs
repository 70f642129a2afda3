//! All ACLs at one moment, immutable, and the decisions that follow from them. Pure.
//!
//! ```text
//! resource type → literal:  name → rules                (a hash map; `*` is one of the names)
//!                 prefixed: sorted names → rules, each with the longest of the others that it begins with
//! ```
//!
//! The prefixes of a name lie on one chain: the last name that is not above it is such a prefix, or begins with every
//! one of them. So a decision costs two look-ups and a binary search, whatever the number of ACLs.
//!
//! Source: Kafka 3.9 `AclAuthorizer`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use super::rules::{Rules, Verdict};
use crate::cluster::znodes::acls::Acls;
use crate::security::principal::Principal;
use crate::types::acl::{Operation, PatternType, ResourcePattern, ResourceType, WILDCARD};

/// What the ACLs say of one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Allowed,
    Denied,
    /// No ACL is about the resource, whomever for.
    NoAcls,
}

/// All ACLs at one moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Snapshot {
    /// By the place of a type in `CONCRETE`.
    types: [Arc<OfType>; ResourceType::CONCRETE.len()],
}

#[derive(Debug, Default)]
struct OfType {
    literal: HashMap<Arc<str>, Arc<Rules>>,
    /// Sorted by name.
    prefixed: Vec<Prefix>,
    /// Made when it is first needed.
    by_principal: OnceLock<HashMap<Principal, Named>>,
}

#[derive(Debug, Clone)]
struct Prefix {
    name: Arc<str>,
    rules: Arc<Rules>,
    /// Place of the longest other prefix that this name begins with.
    parent: Option<usize>,
}

/// The resources of a type in which a principal is named.
#[derive(Debug, Default)]
struct Named {
    literal: Vec<(Arc<str>, Arc<Rules>)>,
    prefixed: Vec<(Arc<str>, Arc<Rules>)>,
}

impl Snapshot {
    /// The same with these resources' ACLs in place of those it has; without any: the resource has none.
    pub(crate) fn with(&self, changes: impl IntoIterator<Item = (ResourcePattern, Arc<Acls>)>) -> Self {
        let mut of_types: [Vec<(ResourcePattern, Arc<Acls>)>; ResourceType::CONCRETE.len()] = Default::default();
        for (pattern, acls) in changes {
            if let Some(at) = place(pattern.resource_type) {
                of_types[at].push((pattern, acls));
            }
        }
        let mut next = self.clone();
        for (of_type, changes) in next.types.iter_mut().zip(of_types) {
            if !changes.is_empty() {
                *of_type = Arc::new(of_type.with(changes));
            }
        }
        next
    }

    /// What the ACLs say of a principal that does something to a resource.
    pub(crate) fn decide(
        &self,
        principal: &Principal,
        address: IpAddr,
        operation: Operation,
        resource_type: ResourceType,
        name: &str,
    ) -> Decision {
        let Some(of_type) = self.of_type(resource_type) else { return Decision::NoAcls };
        let mut verdict = Verdict::default();
        let mut any = false;
        of_type.each_about(name, |rules| {
            any = true;
            verdict.add(rules.verdict(principal, address));
        });
        if !any {
            return Decision::NoAcls;
        }
        match !verdict.denies(operation) && verdict.allows_by_implication(operation) {
            true => Decision::Allowed,
            false => Decision::Denied,
        }
    }

    /// Whether a principal may do something to some resource of a type, though it may not exist. `by_default`: what a
    /// resource without ACLs allows. Source: Kafka 3.9 `AclAuthorizer.authorizeByResourceType`.
    pub(crate) fn decide_by_type(
        &self,
        principal: &Principal,
        address: IpAddr,
        operation: Operation,
        resource_type: ResourceType,
        by_default: bool,
    ) -> bool {
        let Some(of_type) = self.of_type(resource_type) else { return by_default };
        let every_user = Principal::user(WILDCARD);
        let named = of_type.by_principal();
        let named: Vec<&Named> = [named.get(principal), named.get(&every_user)].into_iter().flatten().collect();
        let verdict = |rules: &Rules| rules.verdict(principal, address);
        let literal = || named.iter().flat_map(|named| &named.literal);
        let prefixed = || named.iter().flat_map(|named| &named.prefixed);
        let denied = |name: &str, rules: &HashMap<Arc<str>, Arc<Rules>>| {
            rules.get(name).is_some_and(|rules| verdict(rules).denies(operation))
        };
        if denied(WILDCARD, &of_type.literal) {
            return false;
        }
        if by_default {
            return true;
        }
        let hidden = |name: &str| of_type.prefixes_of(name).any(|rules| verdict(rules).denies(operation));
        prefixed().any(|(name, rules)| verdict(rules).allows(operation) && !hidden(name))
            || literal().any(|(name, rules)| {
                verdict(rules).allows(operation)
                    && (**name == *WILDCARD || !denied(name, &of_type.literal) && !hidden(name))
            })
    }

    /// Every resource that has ACLs, with them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (ResourcePattern, &Arc<Acls>)> {
        ResourceType::CONCRETE.into_iter().zip(&self.types).flat_map(|(resource_type, of_type)| {
            let pattern = move |pattern_type, name: &Arc<str>| {
                let name = Arc::clone(name);
                ResourcePattern { resource_type, pattern_type, name }
            };
            let literal =
                of_type.literal.iter().map(move |(name, rules)| (pattern(PatternType::Literal, name), &rules.acls));
            let prefixed = of_type
                .prefixed
                .iter()
                .map(move |prefix| (pattern(PatternType::Prefixed, &prefix.name), &prefix.rules.acls));
            literal.chain(prefixed)
        })
    }

    /// The ACLs that are about a resource, whomever for: for those who want to know why.
    pub(crate) fn about(&self, resource_type: ResourceType, name: &str) -> Vec<Arc<Acls>> {
        let mut found = Vec::new();
        if let Some(of_type) = self.of_type(resource_type) {
            of_type.each_about(name, |rules| found.push(Arc::clone(&rules.acls)));
        }
        found
    }

    fn of_type(&self, resource_type: ResourceType) -> Option<&OfType> {
        place(resource_type).map(|at| &*self.types[at])
    }
}

fn place(resource_type: ResourceType) -> Option<usize> {
    ResourceType::CONCRETE.iter().position(|known| *known == resource_type)
}

impl OfType {
    fn with(&self, changes: Vec<(ResourcePattern, Arc<Acls>)>) -> Self {
        let mut literal = self.literal.clone();
        let mut prefixed: Option<std::collections::BTreeMap<Arc<str>, Arc<Rules>>> = None;
        for (pattern, acls) in changes {
            let rules = (!acls.is_empty()).then(|| Arc::new(Rules::new(acls)));
            if pattern.pattern_type == PatternType::Literal {
                match rules {
                    Some(rules) => drop(literal.insert(pattern.name, rules)),
                    None => drop(literal.remove(&pattern.name)),
                }
                continue;
            }
            let known = || self.prefixed.iter().map(|prefix| (Arc::clone(&prefix.name), Arc::clone(&prefix.rules)));
            let prefixed = prefixed.get_or_insert_with(|| known().collect());
            match rules {
                Some(rules) => drop(prefixed.insert(pattern.name, rules)),
                None => drop(prefixed.remove(&pattern.name)),
            }
        }
        let prefixed = match prefixed {
            Some(prefixed) => chained(prefixed),
            None => self.prefixed.clone(),
        };
        Self { literal, prefixed, by_principal: OnceLock::new() }
    }

    /// The rules about a resource of this name.
    fn each_about<'a>(&'a self, name: &str, mut each: impl FnMut(&'a Rules)) {
        for literal in [WILDCARD, name] {
            if let Some(rules) = self.literal.get(literal) {
                each(rules);
            }
        }
        self.prefixes_of(name).for_each(each);
    }

    /// The rules of every prefix that the name begins with.
    fn prefixes_of<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Rules> {
        let mut at =
            self.prefixed.partition_point(|prefix| (*prefix.name).cmp(name) != Ordering::Greater).checked_sub(1);
        while let Some(place) = at.filter(|place| !name.starts_with(&*self.prefixed[*place].name)) {
            at = self.prefixed[place].parent;
        }
        std::iter::from_fn(move || {
            let prefix = &self.prefixed[at?];
            at = prefix.parent;
            Some(&*prefix.rules)
        })
    }

    fn by_principal(&self) -> &HashMap<Principal, Named> {
        self.by_principal.get_or_init(|| {
            let mut by_principal: HashMap<Principal, Named> = HashMap::new();
            for (name, rules) in &self.literal {
                for principal in rules.principals() {
                    let named = by_principal.entry(principal.clone()).or_default();
                    named.literal.push((Arc::clone(name), Arc::clone(rules)));
                }
            }
            for Prefix { name, rules, .. } in &self.prefixed {
                for principal in rules.principals() {
                    let named = by_principal.entry(principal.clone()).or_default();
                    named.prefixed.push((Arc::clone(name), Arc::clone(rules)));
                }
            }
            by_principal
        })
    }
}

/// Finds each name's parent: names come in order, so those that a name may begin with are the chain of the one before.
fn chained(sorted: impl IntoIterator<Item = (Arc<str>, Arc<Rules>)>) -> Vec<Prefix> {
    let mut prefixes: Vec<Prefix> = Vec::new();
    for (name, rules) in sorted {
        let mut parent = prefixes.len().checked_sub(1);
        while let Some(at) = parent.filter(|at| !name.starts_with(&*prefixes[*at].name)) {
            parent = prefixes[at].parent;
        }
        prefixes.push(Prefix { name, rules, parent });
    }
    prefixes
}
