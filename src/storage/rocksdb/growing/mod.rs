//! Tables that grow: a partition's newest batches, written once, to a file that RocksDB takes over as it stands.
//!
//! ```text
//!             routing: much comes in large pieces
//!                              │ begin                     on disk: a header, synced with the next sync asked for
//!                              ▼
//!        ┌──────────────► growing ──── write, publish      on disk: header and blocks, perhaps not yet durable
//!        │                     │ seal: full, too fine, idle, or its keys are about to change
//!        │ (a new one)         ▼
//!        └──────────────── sealed ◄─── found at a start    on disk: as before; nothing is appended any more
//!                              │                 │
//!                finish, sync, │                 │ the log's start has passed it, or its partition is gone
//!                     RocksDB  ▼                 ▼
//!                  links it: ingested         dropped      on disk: a name in db/ as well, then only there; or
//!                              │                           none, once the start that passed it is durable
//!                              ▼
//!                    kept by the page cache until its pages, or RocksDB's file, have gone
//!                              ▲ opened again for a reader, as long as RocksDB has not written its file anew
//! ```
//!
//! In all of `rocksdb/` a *table* is a growing one; what RocksDB calls a table file is a *file* here. Klamm *hands* a
//! table *over*, RocksDB *ingests* it.
//!
//! **Who holds a table.** Its family ([`family_tables::FamilyTables`]), from begin until it is ingested or dropped;
//! from then on the page cache, as long as some of its pages are kept. Everybody else (routing, queues, readers between
//! two looks) has it weakly or for the length of a call, so its descriptor and its blocks go back when its owner lets
//! go.
//!
//! **A loss of power, worked out.** Family 7 went through RocksDB's log up to offset 99. Before a table is begun
//! that log is synced, so the header names nothing that it follows. Batches 100–149 go to the table, a sync is
//! asked for and answered; the table is full, and a second one, whose header says that it follows 149, takes
//! 150–159; then the power goes. The next start reads each file block by block, up to the first whose checksum is
//! wrong: of the first all are there, of the second, say, 150–153 and 154 in half. The log ends at 154, and what
//! was promised is in it. Had the first lost its end as well (nobody asked for a sync, and it ended at 120), the
//! second would follow what is not there, and be left out: a log ends, it never has a hole.
//!
//! `layout` is how RocksDB wants a table's bytes, `table` one of them, `family_tables` which ones a family has · `runs`
//! are its batches on their way to sockets, `checks` which of them are known to be sound ·
//! `logged` is what of a family went to the log instead · `routing` says what goes where · `ingest` hands tables over ·
//! `recover` finds them at a start, and by `damage` what is not what was written, which a `marker` remembers where it
//! costs the partition · `find_again` finds them among RocksDB's files · `page_cache` says what stays there.

mod checks;
mod damage;
pub(super) mod family_tables;
mod find_again;
pub(super) mod ingest;
pub(super) mod layout;
pub(super) mod logged;
mod marker;
pub(super) mod page_cache;
pub(super) mod recover;
pub(super) mod routing;
mod runs;
pub(super) mod table;
