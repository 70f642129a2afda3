//! Terms: every message that crosses a task or a broker carries one and is refused when stale.

use std::fmt;

macro_rules! epoch {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $int);

        impl $name {
            /// The wire's "no epoch".
            pub const NONE: Self = Self(-1);
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

epoch!(
    /// Term of a partition's leader; raised by every election. Partition state znode, field `leader_epoch`.
    LeaderEpoch(i32)
);
epoch!(
    /// Term of the controller; znode `/controller_epoch`.
    ControllerEpoch(i32)
);
epoch!(
    /// A broker's registration: the czxid of `/brokers/ids/N`.
    BrokerEpoch(i64)
);
epoch!(
    /// Version of a partition's state znode, "zkVersion" in older requests.
    PartitionEpoch(i32)
);
epoch!(
    /// Term of a producer id, fences older instances of the same producer.
    ProducerEpoch(i16)
);
