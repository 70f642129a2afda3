//! The ACLs of one resource, made ready for decisions: who, from where, may or may not do what.

use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::znodes::acls::Acls;
use crate::security::principal::{Principal, USER};
use crate::types::acl::{AccessControlEntry, Operation, PermissionType, WILDCARD};

/// Sets of operations, a bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    allowed: u32,
    denied: u32,
}

impl Verdict {
    /// What one ACL says.
    pub(super) fn of(entry: &AccessControlEntry) -> Self {
        let mut verdict = Self::default();
        verdict.note(entry);
        verdict
    }

    pub(super) fn add(&mut self, other: Self) {
        self.allowed |= other.allowed;
        self.denied |= other.denied;
    }

    /// Whether an ACL denies just this operation, or all of them.
    pub(super) fn denies(self, operation: Operation) -> bool {
        self.denied & (operation.bit() | Operation::All.bit()) != 0
    }

    /// Whether an ACL allows just this operation, or all of them.
    pub(super) fn allows(self, operation: Operation) -> bool {
        self.allowed & (operation.bit() | Operation::All.bit()) != 0
    }

    /// Whether an ACL allows the operation, or another that implies it. What denies has no such consequences.
    /// Source: Kafka 3.9 `AclAuthorizer.authorizeAction`.
    pub(super) fn allows_by_implication(self, operation: Operation) -> bool {
        use Operation::*;
        const DESCRIBE: u32 = Read.bit() | Write.bit() | Delete.bit() | Alter.bit();
        let implied = match operation {
            Describe => DESCRIBE,
            DescribeConfigs => AlterConfigs.bit(),
            _ => 0,
        };
        self.allows(operation) || self.allowed & implied != 0
    }

    fn note(&mut self, entry: &AccessControlEntry) {
        match entry.permission {
            PermissionType::Allow => self.allowed |= entry.operation.bit(),
            PermissionType::Deny => self.denied |= entry.operation.bit(),
            PermissionType::Unknown | PermissionType::Any => {}
        }
    }
}

/// The ACLs of one resource. Never without any.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) acls: Arc<Acls>,
    /// Sorted by principal.
    of: Vec<OfPrincipal>,
}

/// The ACLs of a resource for one principal.
#[derive(Debug, PartialEq, Eq)]
struct OfPrincipal {
    principal: Principal,
    from_anywhere: Verdict,
    /// Sorted by address.
    from: Vec<(IpAddr, Verdict)>,
}

impl Rules {
    pub(super) fn new(acls: Arc<Acls>) -> Self {
        let mut of: Vec<OfPrincipal> = Vec::new();
        // Their order is that of the principals' texts.
        for entry in acls.iter() {
            let Some(principal) = Principal::parse(&entry.principal) else { continue };
            let place = match of.last() {
                Some(last) if last.principal == principal => of.len() - 1,
                _ => {
                    of.push(OfPrincipal { principal, from_anywhere: Verdict::default(), from: Vec::new() });
                    of.len() - 1
                }
            };
            of[place].note(entry);
        }
        of.sort_by(|a, b| key(&a.principal).cmp(&key(&b.principal)));
        Self { acls, of }
    }

    /// What the ACLs say of a principal that speaks from an address, those for every user included.
    pub(super) fn verdict(&self, principal: &Principal, address: IpAddr) -> Verdict {
        let mut verdict = self.of((USER, WILDCARD), address);
        if key(principal) != (USER, WILDCARD) {
            verdict.add(self.of(key(principal), address));
        }
        verdict
    }

    fn of(&self, principal: (&str, &str), address: IpAddr) -> Verdict {
        let found = self.of.binary_search_by(|entry| key(&entry.principal).cmp(&principal));
        found.map_or(Verdict::default(), |at| self.of[at].verdict(address))
    }

    /// Every principal that an ACL names.
    pub(super) fn principals(&self) -> impl Iterator<Item = &Principal> {
        self.of.iter().map(|of| &of.principal)
    }
}

fn key(principal: &Principal) -> (&str, &str) {
    (&principal.kind, &principal.name)
}

impl OfPrincipal {
    fn note(&mut self, entry: &AccessControlEntry) {
        if *entry.host == *WILDCARD {
            return self.from_anywhere.note(entry);
        }
        // Kafka compares texts: an address that Java writes otherwise is nobody's.
        let Some(address) = address_of(&entry.host) else { return };
        match self.from.binary_search_by_key(&address, |(known, _)| *known) {
            Ok(at) => self.from[at].1.note(entry),
            Err(at) => self.from.insert(at, (address, Verdict::of(entry))),
        }
    }

    fn verdict(&self, address: IpAddr) -> Verdict {
        let mut verdict = self.from_anywhere;
        if let Ok(at) = self.from.binary_search_by_key(&address, |(known, _)| *known) {
            verdict.add(self.from[at].1);
        }
        verdict
    }
}

/// An address that is written as Java's `InetAddress.getHostAddress` writes it.
fn address_of(host: &str) -> Option<IpAddr> {
    let address: IpAddr = host.parse().ok()?;
    (java_address(address) == host).then_some(address)
}

/// As Java's `InetAddress.getHostAddress` writes it: all eight parts of an IPv6 address, without zeros in front.
pub(crate) fn java_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let parts: Vec<String> = address.segments().iter().map(|part| format!("{part:x}")).collect();
            parts.join(":")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_javas() {
        for text in ["127.0.0.1", "0:0:0:0:0:0:0:1", "2001:db8:0:0:0:0:0:a"] {
            assert_eq!(address_of(text).map(java_address).as_deref(), Some(text));
        }
        for text in ["::1", "localhost", "127.0.0.01", "2001:DB8:0:0:0:0:0:a", "10.0.0.0/8", ""] {
            assert_eq!(address_of(text), None, "{text}");
        }
    }
}
