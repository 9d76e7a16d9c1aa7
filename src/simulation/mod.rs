//! The whole broker on disks that lose power, fail, fill up and rot; real connections, one judge.
//!
//! `world` is a set of clients with their own memory, who do this and that through any number of crashes and hold the broker to what it has
//! acknowledged (`account`). `power_cut` lets the power go at every step of the disk, `copying` while segments are freed, `failures` has the disk
//! fail; `corruption` and `fixture` start brokers on what is found in a directory. The log by itself is tested in `storage`.
//!
//! `SIMULATION_SEEDS=1000..2000 cargo test --lib simulation::power_cut::more` runs as many workloads as one likes.

mod account;
mod answers;
mod asking;
mod begun;
mod broker;
mod clock;
mod copying;
mod corruption;
mod departed;
mod failures;
mod fixture;
mod full_disk;
mod full_disk_beside;
mod full_disk_groups;
mod full_disk_growth;
mod giving_away;
mod hands;
mod late_records;
mod mixed_groups;
mod passing;
mod power_cut;
mod publisher;
mod pubrec;
mod receiver;
mod sample;
mod slow_disk;
mod support;
mod will;
mod wire_client;
mod world;
