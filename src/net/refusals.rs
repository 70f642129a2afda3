//! Log lines that strangers can cause: so many in a minute for each address, and for all together; of those left out a
//! line tells the number once the minute is over.
//!
//! Failed authentications have a limit of their own, so that no junk hides that somebody guesses passwords, and one
//! address none of another. Kafka logs each of them; whoever wants to can fill its disk.
//!
//! Who owns it: a broker has one, its connections share it. The memory is bounded by [`CLASSES_MAX`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::task;

/// Both limits of a broker.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// Clients that did not prove who they are, by SASL or in a handshake.
    authentications: LogLimit,
    /// Requests that cannot be answered, and connections that have no room.
    others: LogLimit,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Authentication,
    Other,
}

impl Refusals {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            authentications: LogLimit::new("failed authentications", 20, 400),
            others: LogLimit::new("refusals", 10, 50),
        })
    }

    /// Whether a line about somebody at this address may be logged now; if not it is counted, and told later.
    pub(crate) fn may_be_logged(self: &Arc<Self>, refusal: Refusal, from: IpAddr) -> bool {
        let limit = self.of(refusal);
        match limit.admit(Class::of(from), Instant::now()) {
            Admitted::Logged => true,
            Admitted::LeftOut => false,
            Admitted::FirstLeftOut { tell_at } => {
                let this = Arc::clone(self);
                task::spawn(async move {
                    tokio::time::sleep_until(tell_at).await;
                    this.of(refusal).tell();
                });
                false
            }
        }
    }

    fn of(&self, refusal: Refusal) -> &LogLimit {
        match refusal {
            Refusal::Authentication => &self.authentications,
            Refusal::Other => &self.others,
        }
    }
}

/// What of a text is logged that a stranger may have had a say in.
const SHOWN_CHARS_MAX: usize = 300;

/// The text as it may stand in a line: cut, and without characters that would end it or command a terminal.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// How long lines are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are told apart in a window; what others cause counts for all together.
const CLASSES_MAX: usize = 1024;

/// Addresses that one somebody has: one of IPv4, a /64 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Class(IpAddr);

impl Class {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        })
    }
}

#[derive(Debug)]
struct LogLimit {
    what: &'static str,
    /// Lines of a class, and in all, in a window.
    class_max: u32,
    all_max: u32,
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    ends_at: Instant,
    logged: u32,
    left_out: u64,
    /// Refusals by class.
    classes: HashMap<Class, u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Admitted {
    Logged,
    LeftOut,
    /// Somebody has to call [`LogLimit::tell`] then.
    FirstLeftOut {
        tell_at: Instant,
    },
}

/// What was left out of a window.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    count: u64,
    /// Who caused most, and how much.
    most: Option<(IpAddr, u64)>,
}

impl LogLimit {
    const fn new(what: &'static str, class_max: u32, all_max: u32) -> Self {
        Self { what, class_max, all_max, window: Mutex::new(None) }
    }

    fn admit(&self, class: Class, now: Instant) -> Admitted {
        let mut window = self.window.lock();
        // One in which something was left out stays until that is told.
        let over = window.as_ref().is_none_or(|window| window.ends_at <= now && window.left_out == 0);
        if over {
            *window = Some(Window { ends_at: now + WINDOW, logged: 0, left_out: 0, classes: HashMap::new() });
        }
        let window = window.as_mut().expect("set a line above, if it was not there");
        let has_room = window.classes.len() < CLASSES_MAX;
        let of_class = match window.classes.get_mut(&class) {
            Some(count) => {
                *count += 1;
                *count
            }
            None if has_room => *window.classes.entry(class).or_insert(1),
            None => 1,
        };
        if of_class <= u64::from(self.class_max) && window.logged < self.all_max {
            window.logged += 1;
            return Admitted::Logged;
        }
        window.left_out += 1;
        match window.left_out {
            1 => Admitted::FirstLeftOut { tell_at: window.ends_at.max(now) },
            _ => Admitted::LeftOut,
        }
    }

    /// Ends the window.
    fn take_left_out(&self) -> Option<LeftOut> {
        let window = self.window.lock().take()?;
        let most = window.classes.iter().max_by_key(|(_, count)| **count);
        let most = most.map(|(class, count)| (class.0, *count));
        (window.left_out > 0).then_some(LeftOut { count: window.left_out, most })
    }

    fn tell(&self) {
        let Some(LeftOut { count, most }) = self.take_left_out() else { return };
        let most = most.map(|(address, count)| format!("{count} from {address}")).unwrap_or_default();
        warn!(count, most, "{} that were not logged in the last {} s", self.what, WINDOW.as_secs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(last: u8) -> Class {
        Class::of(IpAddr::from([10, 0, 0, last]))
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_hide_what_another_does() {
        let limit = LogLimit::new("refusals", 3, 100);
        let now = Instant::now();
        let found: Vec<_> = (0..5).map(|_| limit.admit(class(1), now)).collect();
        let tell_at = now + WINDOW;
        let left_out = [Admitted::FirstLeftOut { tell_at }, Admitted::LeftOut];
        let logged = || (0..3).map(|_| Admitted::Logged);
        assert_eq!(found, logged().chain(left_out).collect::<Vec<_>>());
        assert!((0..3).map(|_| limit.admit(class(2), now)).eq(logged()), "another is counted for itself");
        let told = limit.take_left_out();
        assert_eq!(told, Some(LeftOut { count: 2, most: Some((IpAddr::from([10, 0, 0, 1]), 5)) }));
        assert_eq!(limit.admit(class(1), now), Admitted::Logged, "a new window");
    }

    /// A process that had logged a hundred refusals logged every thousandth for the rest of its life.
    #[tokio::test(start_paused = true)]
    async fn junk_of_yesterday_hides_nothing_today() {
        let refusals = Refusals::new();
        let from = IpAddr::from([127, 0, 0, 1]);
        let logged = |refusal| (0..10_000).filter(|_| refusals.may_be_logged(refusal, from)).count();
        assert_eq!(logged(Refusal::Other), 10);
        assert_eq!(logged(Refusal::Authentication), 20, "junk has a limit of its own");
        tokio::time::sleep(WINDOW + Duration::from_secs(1)).await;
        assert_eq!((logged(Refusal::Other), logged(Refusal::Authentication)), (10, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_have_a_bound_together_in_lines_and_in_memory() {
        let limit = LogLimit::new("refusals", 3, 100);
        let now = Instant::now();
        let address = |number: u32| Class::of(IpAddr::from(number.to_be_bytes()));
        let logged = (0..100_000).filter(|number| limit.admit(address(*number), now) == Admitted::Logged).count();
        assert_eq!(logged, 100);
        assert_eq!(limit.window.lock().as_ref().map(|window| window.classes.len()), Some(CLASSES_MAX));
        assert_eq!(limit.take_left_out().map(|left_out| left_out.count), Some(99_900));
    }

    #[test]
    fn addresses_of_one_somebody_are_one_class() {
        let of = |text: &str| Class::of(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn what_is_shown_is_cut_and_ends_no_line() {
        assert_eq!(shown("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(1000)).len(), SHOWN_CHARS_MAX);
    }
}
