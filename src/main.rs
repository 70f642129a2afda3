//! Arguments → settings → tracing → `Broker::start` → signal → stop → exit code.

fn main() {}
