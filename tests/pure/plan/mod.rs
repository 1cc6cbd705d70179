//! Every decision, in tables: what starts an issuance, what blocks it, what is revoked and what never.

mod accounts;
mod adoption;
mod deletion;
mod doubtful_lists;
mod duties;
mod forgeries;
mod issuance;
mod particulars;
mod paused;
mod quiet;
mod restarts;
mod revocation;
mod schedule;
mod standing_faults;
mod status;
mod window;
