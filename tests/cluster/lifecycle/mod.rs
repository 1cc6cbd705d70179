//! The operator's whole job against a real API server, with the emulator as judge.
//!
//! All tests share one control plane; each has its own namespace, emulator and operator process.

mod accounts;
mod admission;
mod adoption;
mod backup;
mod boltz_lies;
mod boltz_list;
mod boltz_refusals;
mod boltz_trouble;
mod canary;
mod causes;
mod clock;
mod clone;
mod cluster_trouble;
mod delete;
mod examples;
mod first_look;
mod forgeries;
mod hand_over;
mod issue;
mod leader;
mod log;
mod marker_format;
mod namespaces;
mod orphans;
mod paused;
mod quiet;
mod refused_objects;
mod rollouts;
mod rotate;
mod secret_data;
mod secret_shape;
mod selector;
mod standing_faults;
mod tenants;
mod two_writers;
mod undone_writes;
mod watchdog;
mod watches;
mod window;
mod workload_trouble;
