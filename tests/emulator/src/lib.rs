//! A stateful emulator of the Boltz admin API.
