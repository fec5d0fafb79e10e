//! Which process owns the other end of a connection on this machine, by `/proc`.
//!
//! The kernel's table of connections has the number of each end's socket; the process that owns it has a descriptor that
//! names it. A process that is not ours to look at owns nothing.

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// The kernel's table of connections.
pub(in crate::backend) const TABLE: &str = "/proc/net/tcp";

/// The place in `pids` of the process whose connection from `from` to `to` this is. Blocks, for some milliseconds.
pub(super) fn find(from: SocketAddr, to: SocketAddr, pids: &[Option<u32>]) -> Option<usize> {
    let socket = format!("socket:[{}]", inode(&fs::read_to_string(TABLE).ok()?, from, to)?);
    pids.iter().position(|pid| pid.is_some_and(|pid| owns(pid, &socket)))
}

fn owns(pid: u32, socket: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let names = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    names.into_iter().any(|name| name.as_os_str() == socket)
}

/// The number of the socket at `from`, of a connection to `to`, in what the kernel's table says.
fn inode(table: &str, from: SocketAddr, to: SocketAddr) -> Option<u64> {
    let (from, to) = (in_table(from)?, in_table(to)?);
    table.lines().find_map(|line| {
        // The number stands in the tenth column.
        let mut columns = line.split_whitespace().skip(1);
        let ends = columns.next()? == from && columns.next()? == to;
        if ends { columns.nth(6)?.parse().ok() } else { None }
    })
}

/// An address as the table has it: the address's bytes as a number of this machine, then the port.
fn in_table(address: SocketAddr) -> Option<String> {
    match address.ip() {
        IpAddr::V4(ip) => Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port())),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
          sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
           0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0\n\
           1: 0102007F:094C 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 101 1 0 20 4 30 10 -1\n\
           2: 0100007F:D431 0102007F:094C 01 00000000:00000000 02:000000AF 00000000     0        0 102 2 0 20 4 24 10 -1\n";

    #[test]
    fn the_end_that_is_asked_for_is_found() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (caller, proxy) = (address("127.0.0.1:54321"), address("127.0.2.1:2380"));
        assert_eq!(inode(LISTING, caller, proxy), Some(102));
        assert_eq!(inode(LISTING, proxy, caller), Some(101));
        assert_eq!(inode(LISTING, caller, address("127.0.2.1:2381")), None);
        assert_eq!(inode(LISTING, address("[::1]:54321"), proxy), None);
    }
}
