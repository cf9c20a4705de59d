//! The system calls that neither std nor socket2 wraps safely. All `unsafe` of the speaker lives here.
#![allow(unsafe_code)] // AF_PACKET addresses and control messages are C structures; each use says why it is sound

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use libc::{c_int, c_void, socklen_t};
use socket2::Socket;
use tokio::io::unix::AsyncFd;

/// `linux/if_packet.h`: deliver `tpacket_auxdata` with each frame.
pub(super) const PACKET_AUXDATA: c_int = 8;
/// `linux/if_packet.h`: do not deliver frames that this host sends (Linux 4.20).
pub(super) const PACKET_IGNORE_OUTGOING: c_int = 23;

/// `linux/if_packet.h`: `tp_vlan_tci` holds a tag that the device took off the frame.
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
/// The VLAN identifier of a tag control information field (IEEE 802.1Q); 0 is "priority only", no VLAN.
const VLAN_ID: u16 = 0x0fff;

/// A frame as the kernel handed it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Bytes in the buffer.
    pub(super) len: usize,
    /// The kernel says that the frame was meant for another host: a foreign destination MAC, or a VLAN that is not
    /// configured here (`PACKET_OTHERHOST`).
    pub(super) for_other: bool,
    /// It carried the tag of a VLAN (offloaded, so it is not in the bytes).
    pub(super) tagged: bool,
}

/// `struct tpacket_auxdata` of `linux/if_packet.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct AuxData {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// Registers a socket with tokio's reactor.
pub(super) fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the `Socket` owns its descriptor and moves into the `AsyncFd`, which hands out only shared references:
    // the descriptor stays open, and the same, until the `AsyncFd` is dropped.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
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

/// Binds a packet socket to one protocol (host byte order) on one interface: from here on it receives.
pub(super) fn bind_packet(fd: BorrowedFd<'_>, protocol: u16, ifindex: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain data; all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = c_int::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
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

/// Receives one frame with what the kernel knows about it. A frame longer than `buffer` is cut.
///
/// # Errors
/// Those of recvmsg(2): `WouldBlock` when there is none, ENETDOWN once after the interface went down.
pub(super) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    // Room and alignment for one control message with an `AuxData`; more is not asked for.
    let mut control = MaybeUninit::<[usize; 8]>::zeroed();
    // SAFETY: `sockaddr_ll` is plain data; all zeroes is a valid value.
    let mut from: libc::sockaddr_ll = unsafe { zeroed() };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data; all zeroes (no name, no parts, no control) is a valid value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = std::ptr::from_mut(&mut from).cast::<c_void>();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast::<c_void>();
    message.msg_controllen = size_of::<[usize; 8]>() as _;

    // SAFETY: every pointer in `message` refers to a local (or to `buffer`, exclusively borrowed) that outlives the
    // call, and each length is that of what it points to, so the kernel writes only into them.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, 0) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(Received {
        len: len.min(buffer.len()),
        for_other: from.sll_pkttype == libc::PACKET_OTHERHOST,
        tagged: auxiliary(&message)
            .is_some_and(|aux| aux.status & TP_STATUS_VLAN_VALID != 0 && aux.vlan_tci & VLAN_ID != 0),
    })
}

/// The `tpacket_auxdata` among the control messages of a `msghdr` that recvmsg has just filled in.
fn auxiliary(message: &libc::msghdr) -> Option<AuxData> {
    // SAFETY: recvmsg set msg_control/msg_controllen to the control messages it wrote; the macros stay within them.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so CMSG_FIRSTHDR/CMSG_NXTHDR found a complete `cmsghdr` inside the control buffer, which
        // is aligned for it (an array of usize).
        let cmsg = unsafe { &*header };
        if cmsg.cmsg_level == libc::SOL_PACKET
            && cmsg.cmsg_type == PACKET_AUXDATA
            // SAFETY: arithmetic only.
            && cmsg.cmsg_len as usize >= unsafe { libc::CMSG_LEN(size_of::<AuxData>() as u32) } as usize
        {
            // SAFETY: the length check above says that a whole `AuxData` follows; it is plain data, read unaligned.
            return Some(unsafe { libc::CMSG_DATA(header).cast::<AuxData>().read_unaligned() });
        }
        // SAFETY: as for CMSG_FIRSTHDR; returns null after the last one.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}
