//! All overrides at one moment, and how they change: by what readers of the tree found, and by deletions.
//!
//! One entity's overrides change in place, whatever the others: a topic more or less costs the same with ten thousand
//! of them. What one reader found does not bring a topic back that was deleted while it read. Pure; `dynamic_config`
//! reads the tree and holds the lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::znodes::config::{Entity, Overrides};
use crate::types::{BrokerId, TopicName};

/// What is set for brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BrokerOverrides {
    /// `/config/brokers/N` of this broker.
    pub(crate) own: Arc<Overrides>,
    /// `/config/brokers/<default>`.
    pub(crate) all: Arc<Overrides>,
}

/// What has changed since the last look at it.
#[derive(Debug, Default)]
pub(crate) struct ConfigChanges {
    /// Topics whose overrides are others now.
    pub(crate) topics: HashSet<TopicName>,
    pub(crate) brokers: bool,
    /// What is set for users, clients or addresses.
    pub(crate) quotas: bool,
}

/// All overrides. Readings and deletions have numbers, so that the later of two can be told.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Topics with overrides.
    pub(super) topics: HashMap<TopicName, KnownTopic>,
    pub(super) brokers: BrokerOverrides,
    /// Users, clients, users' clients and addresses with overrides.
    pub(super) others: HashMap<Entity, Arc<Overrides>>,
    /// Of the last reading or deletion.
    number: u64,
    /// Readings that have begun and not ended.
    pub(super) reading: usize,
    /// Topics that were deleted since some of them began, with the number of that.
    pub(super) forgotten: HashMap<TopicName, u64>,
}

#[derive(Debug)]
pub(super) struct KnownTopic {
    pub(super) overrides: Arc<Overrides>,
    /// Of the publication of these overrides.
    number: u64,
}

impl Known {
    /// The number of a reading or deletion that begins now.
    pub(super) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Takes over what a reading found that began at `began`; notes in `changes` what is other than before.
    pub(super) fn put(
        &mut self,
        entity: Entity,
        overrides: Overrides,
        own: BrokerId,
        began: u64,
        changes: &mut ConfigChanges,
    ) {
        let number = self.number;
        match entity {
            Entity::Topic(name) if self.forgotten.get(name.as_str()).is_some_and(|&deleted| deleted > began) => {}
            Entity::Topic(name) => {
                let name = TopicName::new(&name);
                let changed = match self.topics.get(name.as_str()) {
                    Some(known) => *known.overrides != overrides,
                    None => !overrides.is_empty(),
                };
                if overrides.is_empty() {
                    self.topics.remove(name.as_str());
                } else {
                    self.topics.insert(name.clone(), KnownTopic { overrides: Arc::new(overrides), number });
                }
                if changed {
                    changes.topics.insert(name);
                }
            }
            Entity::Broker(None) => {
                changes.brokers |= *self.brokers.all != overrides;
                self.brokers.all = Arc::new(overrides);
            }
            Entity::Broker(Some(id)) if id == own => {
                changes.brokers |= *self.brokers.own != overrides;
                self.brokers.own = Arc::new(overrides);
            }
            Entity::Broker(Some(_)) => {}
            other @ (Entity::User(_) | Entity::Client(_) | Entity::UserClient { .. } | Entity::Ip(_)) => {
                changes.quotas |= replace(&mut self.others, other, overrides);
            }
        }
    }

    /// Forgets everything that is not in `listed`, lists that were read at `began`.
    pub(super) fn keep_listed(&mut self, listed: &Listed, began: u64, changes: &mut ConfigChanges) {
        let gone = self.topics.extract_if(|name, known| known.number <= began && !listed.topics.contains(name));
        changes.topics.extend(gone.map(|(name, _)| name));
        // One that came meanwhile is in the feed, and read again.
        let before = self.others.len();
        self.others.retain(|entity, _| listed.others.contains(entity));
        changes.quotas |= self.others.len() != before;
    }
}

/// Everything that has overrides.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) topics: HashSet<TopicName>,
    pub(super) others: HashSet<Entity>,
}

/// Puts the overrides in their place; whether they differ from what was there.
fn replace(known: &mut HashMap<Entity, Arc<Overrides>>, entity: Entity, overrides: Overrides) -> bool {
    if overrides.is_empty() {
        return known.remove(&entity).is_some();
    }
    let same = known.get(&entity).is_some_and(|before| **before == overrides);
    known.insert(entity, Arc::new(overrides));
    !same
}
