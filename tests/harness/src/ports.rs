//! Free ports.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// Below Linux's usual ephemeral range (32768 and up), so that nobody's outgoing connection takes one of these between
/// our look and the bind of whom it is for.
const RANGE: Range<u16> = 20_000..32_000;

/// A port of loopback that was free a moment ago, and that this process has not given out before.
pub fn free_port() -> io::Result<u16> {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(RANGE)));
    let length = RANGE.end - RANGE.start;
    for _ in 0..length {
        let port = RANGE.start + NEXT.fetch_add(1, Ordering::Relaxed) % length;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
