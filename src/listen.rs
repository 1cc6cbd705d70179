//! Where HTTP is served: also on every address of the host, IPv6 and IPv4. The emulator has this file too.

use socket2::SockRef;
use std::{
    io,
    net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be accepted: as many as tokio lets wait by default.
const BACKLOG: u32 = 1024;

/// An address and a port, or a port alone: `:8080` is `[::]:8080`.
pub fn parse_listen(text: &str) -> Result<SocketAddr, AddrParseError> {
    match text.strip_prefix(':') {
        Some(port) if port.parse::<u16>().is_ok() => format!("[::]:{port}").parse(),
        _ => text.parse(),
    }
}

/// Listens there. `[::]` takes IPv4 too; where IPv6 is off, IPv4 alone.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip() != IpAddr::from(Ipv6Addr::UNSPECIFIED) {
        return TcpListener::bind(address).await;
    }
    match listen_on_both(address) {
        // The port is taken: IPv4 alone would find the same, or hide it.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            tracing::warn!(%error, "cannot listen on {address}, listening on IPv4 only");
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        result => result,
    }
}

fn listen_on_both(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    // The default is the node's, net.ipv6.bindv6only.
    SockRef::from(&socket).set_only_v6(false)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[test]
    fn a_port_alone_is_every_address() {
        assert_eq!(parse_listen(":8080").unwrap(), "[::]:8080".parse().unwrap());
        assert_eq!(parse_listen("127.0.0.1:0").unwrap(), "127.0.0.1:0".parse().unwrap());
        for wrong in ["", ":", "8080", ":65536", ":-1", "::1", "localhost:8080"] {
            assert!(parse_listen(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn both_families_arrive_and_an_address_alone_is_one() {
        let has_ipv6 = TcpListener::bind("[::1]:0").await.is_ok();
        for (text, ipv4, ipv6) in
            [(":0", true, has_ipv6), ("0.0.0.0:0", true, false), ("127.0.0.1:0", true, false)]
        {
            let listener = listen(parse_listen(text).unwrap()).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let reaches = async |host: &str| TcpStream::connect((host, port)).await.is_ok();
            assert_eq!((reaches("127.0.0.1").await, reaches("::1").await), (ipv4, ipv6), "{text}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let taken = listen(parse_listen(":0").unwrap()).await.unwrap();
        let error = listen(taken.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
