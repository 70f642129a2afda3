//! Every bound on a queue, a frame or a loop, in one place, with the relations between them asserted at compile time.

/// Longest legal topic name, in characters. Source: Kafka `Topic.MAX_NAME_LENGTH`.
pub const TOPIC_NAME_CHARS_MAX: usize = 249;

/// Largest frame of a request that carries no records, in bytes.
pub const CONTROL_FRAME_BYTES_MAX: usize = 16 << 20;

/// Largest frame of a group request that carries neither metadata nor assignments. A partition of OffsetFetch takes
/// four bytes of it and some hundred of memory.
pub const GROUP_FRAME_BYTES_MAX: usize = 2 << 20;

/// Largest request header, in bytes.
pub const REQUEST_HEADER_BYTES_MAX: usize = 64 << 10;

/// Bytes of requests of other brokers that may be in work at the same time, beside `queued.max.request.bytes`: clients
/// wait for what followers and the controller ask for, so these may not wait for clients.
pub const BROKERS_REQUEST_BYTES_MAX: usize = 64 << 20;

/// Bytes of frames of clients that have not proved yet who they are, over all connections: half for those that are
/// looked at, half for large ones that come in. Sixty-four of the largest, `sasl.server.max.receive.size`; clients
/// mostly send less than a kibibyte, which waits for nobody.
pub const STRANGERS_REQUEST_BYTES_MAX: usize = 32 << 20;

/// Requests of one connection that may wait for their reply before the socket is no longer read.
pub const CONNECTION_REQUESTS_IN_FLIGHT_MAX: usize = 100;

/// Largest size of one decompressed record batch, in bytes; guards against decompression bombs.
pub const DECOMPRESSED_BATCH_BYTES_MAX: usize = 64 << 20;

/// Records of one refused batch that are named one by one in the reply (KIP-467).
pub const RECORD_ERRORS_MAX: usize = 10_000;

/// Topics that one produce request may name.
pub const PRODUCE_TOPICS_MAX: usize = 1 << 17;

/// Partitions that one produce request may name.
pub const PRODUCE_PARTITIONS_MAX: usize = 1 << 20;

/// First step of a frame buffer; it then grows with the bytes received, never with the announced length.
pub const FRAME_FIRST_STEP_BYTES: usize = 64 << 10;

/// Bytes per second that a large frame has to come with while others wait for the memory it takes, and the seconds
/// between two looks at it.
pub const CROWDED_FRAME_BYTES_PER_SECOND_MIN: u64 = 1 << 20;
pub const CROWDED_FRAME_GRACE_SECONDS: u64 = 5;

/// Record bytes of a reply that do not count against `klamm.reply.bytes`; the kernel's buffers of a socket that is not
/// read take more.
pub const REPLY_BYTES_UNCOUNTED: usize = 64 << 10;

/// Most bytes of all large send buffers together, and a quarter of `klamm.reply.bytes` if that is less. The kernel
/// counts them as memory of its sockets, and slows all of them down from a sixteenth of the machine's memory on.
pub const LARGE_SEND_BUFFERS_BYTES_MAX: usize = 64 << 20;

/// Seconds between two looks at the pace with which a client takes its reply.
pub const REPLY_PACE_SECONDS: u64 = 1;

/// Seconds that the rest of a reply may take at its present pace; a slower one gives way to others that wait for room.
pub const REPLY_REST_SECONDS_MAX: u64 = 30;

/// Bytes of replies that may wait on one connection behind a slower one before the socket is no longer read.
pub const CONNECTION_REPLY_BYTES_WAITING_MAX: usize = 16 << 20;

/// Most bytes that one group commit gathers before it is written: what a core's own cache holds, since a group is
/// copied and summed several times over.
pub const GROUP_COMMIT_BYTES_MAX: usize = 1 << 20;

/// Most queued bytes that the caller of an append writes itself, where no other thread writes: one request of Java's
/// producer with batches of 64 KiB for six partitions. A tenth of a millisecond or two; waking the storage writer and
/// being woken by it takes about as much.
pub const INLINE_WRITE_BYTES_MAX: usize = 512 << 10;

/// Most sets that it writes: each costs some microseconds, however small it is.
pub const INLINE_WRITE_SETS_MAX: usize = 32;

/// Commands that wait for an owner task.
pub const MAILBOX_COMMANDS_MAX: usize = 1024;

/// Batches of a producer that are remembered to recognise duplicates. Source: Kafka `ProducerStateEntry`.
pub const PRODUCER_BATCHES_REMEMBERED: usize = 5;

/// Producers of one partition whose transaction is being verified with its coordinator at the same time; when there are
/// more, the first that began must begin again.
pub const VERIFICATIONS_PER_PARTITION_MAX: usize = 10_000;

/// Bytes of protocol metadata that the members of one group may hold together. What is stored of it has to fit one
/// batch of the internal topic, so a group near this bound cannot become stable anyway.
pub const GROUP_METADATA_BYTES_MAX: usize = 32 << 20;

/// Members of one group that were given an id and have not come back with it yet.
pub const GROUP_PENDING_MEMBERS_MAX: usize = 10_000;

/// Appends of one coordinator shard that are under way; while they are, requests gather into the next one.
pub const COORDINATOR_APPENDS_IN_FLIGHT_MAX: usize = 4;

/// Markers of one WriteTxnMarkers request that are being written at the same time.
pub const REQUEST_MARKERS_IN_FLIGHT_MAX: usize = 1024;

/// Bytes of a request that a coordinator gathers for another broker, within the frame that brokers take of it.
pub const PEER_REQUEST_BYTES_MAX: usize = GROUP_FRAME_BYTES_MAX / 2;

/// Coordinator shards that are loaded at the same time.
pub const COORDINATOR_LOADS_MAX: usize = 4;

/// Markers that the transaction coordinator writes on its own broker at the same time.
pub const TRANSACTION_MARKERS_IN_FLIGHT_MAX: usize = 1024;

/// Tombstones that one sweep of a shard writes; the next sweep follows at once if there were more.
pub const COORDINATOR_SWEEP_RECORDS_MAX: usize = 10_000;

/// Keys that one pass of compaction keeps in memory, at 25 bytes each; more keys take more passes. Just below what a
/// table of 2²⁰ places holds, so that it does not grow beyond 26 MiB.
pub const COMPACTION_KEYS_MAX: usize = 900_000;

/// Bytes that one step of a compaction reads: what an interruption costs, and how often it can be slowed down.
pub const COMPACTION_STEP_BYTES: usize = 1 << 20;
/// Reads of the coordination store that one task keeps in flight. Source: Kafka `zookeeper.max.in.flight.requests`.
pub const COORDINATION_READS_IN_FLIGHT_MAX: usize = 10;

/// Partitions that one CreateTopics or CreatePartitions may ask for. Source: Kafka `ReplicationControlManager`.
pub const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;

const _: () = assert!(FRAME_FIRST_STEP_BYTES <= CONTROL_FRAME_BYTES_MAX);
const _: () = assert!(REQUEST_HEADER_BYTES_MAX <= CONTROL_FRAME_BYTES_MAX);

/// Most bytes of records in one answer, whatever is asked for: the length of a frame is 31 bits.
pub const REPLY_RECORD_BYTES_MAX: usize = 1 << 30;
