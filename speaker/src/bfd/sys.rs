//! The system calls that neither std nor socket2 wraps.
#![allow(unsafe_code)] // control messages and packet addresses are C structures; each use says why it is sound

use std::ffi::CString;
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use libc::{c_int, c_void, socklen_t};
use socket2::SockAddr;

/// `linux/if_packet.h`: do not deliver frames that this host sends (Linux 4.20).
pub(super) const PACKET_IGNORE_OUTGOING: c_int = 23;

/// A datagram, and what the kernel knows about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Bytes in the buffer.
    pub(super) length: usize,
    pub(super) from: Option<SocketAddr>,
    pub(super) to: Option<IpAddr>,
    /// The index of the interface it came in on; 0: not known.
    pub(super) interface: u32,
    /// TTL or hop limit; 0: not known.
    pub(super) ttl: u8,
    /// When it arrived, since 1970.
    pub(super) stamp: Option<Duration>,
}

/// Receives one datagram. What is longer than `buffer` is cut.
///
/// # Errors
/// Those of recvmsg(2): `WouldBlock` when there is none.
pub(super) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    // Room and alignment for the three control messages that are asked for, and some.
    let mut control = MaybeUninit::<[usize; 32]>::zeroed();
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data; all zeroes (no name, no parts, no control) is a valid value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast::<c_void>();
    message.msg_controllen = size_of::<[usize; 32]>() as _;
    // SAFETY: the closure hands recvmsg the storage that socket2 made for an address, with its length, and says how much
    // of it the kernel wrote; every other pointer in `message` refers to a local (or to `buffer`, exclusively borrowed)
    // that outlives the call, and each length is that of what it points to.
    let (length, from) = unsafe {
        SockAddr::try_init(|storage, size| {
            message.msg_name = storage.cast::<c_void>();
            message.msg_namelen = *size;
            let length = libc::recvmsg(fd.as_raw_fd(), &raw mut message, 0);
            let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
            *size = message.msg_namelen;
            Ok(length)
        })
    }?;
    let mut received = Received {
        length: length.min(buffer.len()),
        from: from.as_socket(),
        to: None,
        interface: 0,
        ttl: 0,
        stamp: None,
    };
    read_control(&message, &mut received);
    Ok(received)
}

/// What the control messages of a `msghdr` say that recvmsg has just filled in.
fn read_control(message: &libc::msghdr, received: &mut Received) {
    // SAFETY: recvmsg set msg_control/msg_controllen to the control messages it wrote; the macros stay within them.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so CMSG_FIRSTHDR/CMSG_NXTHDR found a complete `cmsghdr` inside the control buffer, which is
        // aligned for it (an array of usize).
        let kind = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        match kind {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                // SAFETY: the kernel's value of both is an int.
                let ttl = unsafe { value::<c_int>(header) };
                received.ttl = ttl.and_then(|ttl| u8::try_from(ttl).ok()).unwrap_or(0);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: plain data, of the layout that the kernel's header says.
                if let Some(info) = unsafe { value::<libc::in_pktinfo>(header) } {
                    received.interface = u32::try_from(info.ipi_ifindex).unwrap_or(0);
                    received.to = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: as above.
                if let Some(info) = unsafe { value::<libc::in6_pktinfo>(header) } {
                    received.interface = info.ipi6_ifindex;
                    received.to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: as above.
                if let Some(time) = unsafe { value::<libc::timespec>(header) } {
                    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
                    received.stamp = seconds.ok().zip(nanos.ok()).map(|(s, n)| Duration::new(s, n));
                }
            }
            _ => {}
        }
        // SAFETY: as for CMSG_FIRSTHDR; returns null after the last one.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
}

/// The value of a control message; `None` when it is too short to hold a `T`.
///
/// # Safety
/// `header` points to a control message that the kernel wrote completely, and any bytes are a valid `T`.
unsafe fn value<T: Copy>(header: *const libc::cmsghdr) -> Option<T> {
    // SAFETY: arithmetic only.
    let least = unsafe { libc::CMSG_LEN(size_of::<T>() as u32) } as usize;
    // SAFETY: the caller's promise; the length check says that a whole `T` follows, read unaligned.
    unsafe { ((*header).cmsg_len >= least).then(|| libc::CMSG_DATA(header).cast::<T>().read_unaligned()) }
}

/// Sets an integer socket option.
pub(super) fn set_int(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast::<c_void>(),
            size_of::<c_int>() as socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Binds a packet socket to IPv4 on one interface: from here on it receives.
pub(super) fn bind_packet(fd: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain data; all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    address.sll_ifindex = c_int::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer and the length describe `address`, which outlives the call; the kernel only reads it.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            std::ptr::from_ref(&address).cast::<libc::sockaddr>(),
            size_of::<libc::sockaddr_ll>() as socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The index of the interface that has this name now.
pub(super) fn index(interface: &str) -> io::Result<u32> {
    let name = CString::new(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: a string that ends with a zero byte and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}
