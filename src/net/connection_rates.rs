//! How fast connections may come, and how long those beyond it wait: over the broker, over a listener, from an address.
//!
//! A listener that is beyond its rate, or the broker's, accepts nothing for a while, a window at most. Beyond the rate
//! of its address a connection is accepted, not answered, and closed after as long a while; it does not count.
//! Source: Kafka 3.9 `ConnectionQuotas`, KIP-612.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::metrics::rate::{Rate, Windows};

/// `max.connection.creation.rate`, and what is set for addresses. Connections each second.
#[derive(Debug, Default)]
pub(crate) struct RateLimits {
    /// `None`: there is no limit.
    pub(crate) of_broker: Option<u32>,
    /// By the listener's name.
    pub(crate) of_listeners: HashMap<String, u32>,
    /// What the broker's limit does not count: the listener of brokers, where there are others.
    pub(crate) of_brokers: Option<String>,
}

/// Limits of addresses, each second.
#[derive(Debug, Default)]
pub(crate) struct AddressLimits {
    pub(crate) of_others: Option<u32>,
    pub(crate) by_address: HashMap<IpAddr, u32>,
}

/// Addresses that are counted at most; beyond it all counts of addresses begin anew.
const ADDRESSES_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct ConnectionRates {
    windows: Windows,
    pub(super) limits: RateLimits,
    pub(super) of_addresses: AddressLimits,
    broker: Rate,
    listeners: HashMap<String, Rate>,
    addresses: HashMap<IpAddr, Rate>,
}

impl ConnectionRates {
    pub(super) fn new(windows: Windows, limits: RateLimits) -> Self {
        Self {
            windows,
            limits,
            of_addresses: AddressLimits::default(),
            broker: Rate::new(),
            listeners: HashMap::new(),
            addresses: HashMap::new(),
        }
    }

    /// Counts a connection; answers how many milliseconds its listener waits with it, mostly 0.
    pub(super) fn came(&mut self, listener: &str, now_ms: i64) -> u64 {
        let mut wait_ms = 0;
        if let Some(limit) = self.limits.of_broker.filter(|_| !self.is_of_brokers(listener)) {
            wait_ms = take(&mut self.broker, self.windows, limit, now_ms);
        }
        if let Some(&limit) = self.limits.of_listeners.get(listener) {
            let rate = self.listeners.entry(listener.to_owned()).or_insert_with(Rate::new);
            wait_ms = wait_ms.max(take(rate, self.windows, limit, now_ms));
        }
        wait_ms
    }

    /// Counts it for its address; answers after how many milliseconds it is closed, if it is.
    pub(super) fn refused_for(&mut self, listener: &str, address: IpAddr, now_ms: i64) -> Option<u64> {
        let limit = self.of_addresses.by_address.get(&address).copied().or(self.of_addresses.of_others)?;
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            self.addresses.clear();
        }
        let rate = self.addresses.entry(address).or_insert_with(Rate::new);
        let wait_ms = Some(take(rate, self.windows, limit, now_ms)).filter(|ms| *ms > 0)?;
        rate.record(self.windows, -1.0, now_ms);
        if self.limits.of_broker.is_some() && !self.is_of_brokers(listener) {
            self.broker.record(self.windows, -1.0, now_ms);
        }
        if let Some(rate) = self.listeners.get_mut(listener) {
            rate.record(self.windows, -1.0, now_ms);
        }
        Some(wait_ms)
    }

    fn is_of_brokers(&self, listener: &str) -> bool {
        self.limits.of_brokers.as_deref() == Some(listener)
    }
}

fn take(rate: &mut Rate, windows: Windows, limit: u32, now_ms: i64) -> u64 {
    rate.record(windows, 1.0, now_ms);
    let (value, limit) = (rate.per_second(windows, now_ms), f64::from(limit));
    if value <= limit {
        return 0;
    }
    let wait_ms = (value - limit) / limit * rate.span_ms(windows, now_ms) as f64;
    wait_ms.min(windows.window_ms as f64).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Windows = Windows { samples: 11, window_ms: 1000 };
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn rates(limits: RateLimits) -> ConnectionRates {
        ConnectionRates::new(WINDOWS, limits)
    }

    #[test]
    fn a_listener_waits_for_its_own_rate_and_for_the_brokers() {
        let limits = RateLimits {
            of_broker: Some(3),
            of_listeners: HashMap::from([("A".to_owned(), 1)]),
            of_brokers: Some("B".to_owned()),
        };
        let mut rates = rates(limits);
        assert!((0..10).all(|_| rates.came("A", 0) == 0), "as many as ten seconds allow");
        assert_eq!(rates.came("A", 0), 1000, "a window at most");
        assert!((0..100).all(|_| rates.came("B", 0) == 0), "brokers do not wait for clients");
        assert!((0..19).all(|_| rates.came("C", 0) == 0), "thirty in all");
        assert!(rates.came("C", 0) > 0);
        assert_eq!(rates.came("C", 20_000), 0);
    }

    #[test]
    fn an_address_beyond_its_rate_is_refused_and_does_not_count() {
        let mut rates = rates(RateLimits { of_broker: Some(1), ..RateLimits::default() });
        assert!((0..100).all(|_| rates.refused_for("A", HERE, 0).is_none()), "no limit");
        rates.of_addresses = AddressLimits { of_others: Some(1), by_address: HashMap::new() };
        for _ in 0..10 {
            assert_eq!((rates.came("A", 0), rates.refused_for("A", HERE, 0)), (0, None));
        }
        for _ in 0..5 {
            assert_eq!((rates.came("A", 0), rates.refused_for("A", HERE, 0)), (1000, Some(1000)));
        }
        let other = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(rates.refused_for("A", other, 0), None);
        rates.of_addresses.by_address.insert(other, 0);
        assert_eq!(rates.refused_for("A", other, 0), Some(1000), "none at all");
    }
}
