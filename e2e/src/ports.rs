//! Ports of the loopback address for one run, so that runs side by side never meet.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};

use crate::paths;

/// Below the kernel's default range for outgoing connections (32768 and up): no connection takes one of these
/// between the moment it is chosen and the moment its server listens.
const RANGE: std::ops::Range<u16> = 21_000..31_000;

/// A port that is this process's until the value is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked; the kernel lets go of it when the process ends, however it ends.
    _reservation: File,
}

impl Port {
    /// Reserves a port that nobody listens on.
    ///
    /// # Errors
    /// The directory of reservations cannot be written, or every port is taken.
    pub fn reserve() -> Result<Port> {
        let dir = paths::run_root().join("ports");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Processes start at different places so that they seldom try the same file first.
        let first = u16::try_from(std::process::id() % u32::from(RANGE.end - RANGE.start))?.wrapping_mul(7);
        for _ in RANGE {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = RANGE.start + first.wrapping_add(step) % (RANGE.end - RANGE.start);
            let reservation = File::create(dir.join(number.to_string()))?;
            match reservation.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(e)) => return Err(e).context("reserve a port"),
            }
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Port { number, _reservation: reservation });
            }
        }
        bail!("no free port in {RANGE:?}")
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_given_once() {
        let ports: Vec<Port> = (0..20).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ports.len());
    }
}
