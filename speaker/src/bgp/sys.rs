//! The socket options of BGP that neither std nor socket2 wraps.
#![allow(unsafe_code)] // setsockopt with C structures; each use says why it is sound

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use libc::{c_int, c_void, socklen_t};
use socket2::SockAddr;

/// `linux/in6.h`: IPV6_MINHOPCOUNT.
const IPV6_MINHOPCOUNT: c_int = 73;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct Md5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: c_int,
    key: [u8; libc::TCP_MD5SIG_MAXKEYLEN],
}

/// Segments from and to this address carry a digest with this key (RFC 2385); an empty key ends that. Also on a
/// connection that is open: from the next segment on.
pub(super) fn set_md5(fd: BorrowedFd<'_>, peer: IpAddr, key: &[u8]) -> io::Result<()> {
    let mut signature = Md5Sig {
        address: storage(peer),
        flags: 0,
        prefix_length: 0,
        key_length: 0,
        interface: 0,
        key: [0; libc::TCP_MD5SIG_MAXKEYLEN],
    };
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "the kernel takes keys of up to 80 octets");
    signature.key.get_mut(..key.len()).ok_or_else(too_long)?.copy_from_slice(key);
    signature.key_length = u16::try_from(key.len()).map_err(|_| too_long())?;
    // SAFETY: a value of the layout that the kernel's header says.
    match unsafe { set(fd, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature) } {
        // No key was set for this address: that is how it shall be.
        Err(error) if key.is_empty() && error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Segments with a smaller TTL or hop limit are dropped (RFC 5082).
pub(super) fn set_minimum_ttl(fd: BorrowedFd<'_>, peer: IpAddr, ttl: u8) -> io::Result<()> {
    let ttl = c_int::from(ttl);
    // SAFETY: both options take an int.
    unsafe {
        match peer {
            IpAddr::V4(_) => set(fd, libc::IPPROTO_IP, libc::IP_MINTTL, &ttl),
            IpAddr::V6(_) => set(fd, libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT, &ttl),
        }
    }
}

fn storage(ip: IpAddr) -> libc::sockaddr_storage {
    let address = SockAddr::from(std::net::SocketAddr::new(ip, 0));
    // SAFETY: `sockaddr_storage` is valid for any bytes, and `SockAddr` holds one.
    unsafe { address.as_ptr().cast::<libc::sockaddr_storage>().read_unaligned() }
}

/// # Safety
/// `value` must be what the kernel expects for this option.
unsafe fn set<T>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as socklen_t;
    let pointer: *const c_void = std::ptr::from_ref(value).cast();
    // SAFETY: pointer and length describe `value`, which outlives the call; the kernel only reads it.
    match unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, pointer, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
