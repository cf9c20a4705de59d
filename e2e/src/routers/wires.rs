//! A network for routers: a bridge, and a namespace with one cable for each who is on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Result;

use crate::lab::topology::{batch, sysctls};
use crate::netns::Netns;
use crate::rundir::RunDir;

/// 172.27.0.0/24 and fd27::/64 on one bridge.
#[derive(Debug)]
pub struct Wires {
    run: Arc<RunDir>,
    bridge: Netns,
}

/// Somebody on the wires: `eth0` in a namespace of its own.
#[derive(Debug, Clone)]
pub struct Port {
    pub name: String,
    pub netns: Netns,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    /// Of the cable.
    pub link_local: Ipv6Addr,
}

impl Port {
    /// Its address of that family.
    pub fn address(&self, family: patina_crds::net::Family) -> IpAddr {
        match family {
            patina_crds::net::Family::V4 => self.v4.into(),
            patina_crds::net::Family::V6 => self.v6.into(),
        }
    }
}

impl Wires {
    /// An empty bridge.
    ///
    /// # Errors
    /// Not root, or a kernel that lacks bridges.
    pub fn new(run: &Arc<RunDir>) -> Result<Self> {
        let bridge = Netns::create(run, "wires")?;
        sysctls(&bridge, &[])?;
        let make = "link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0";
        // Without an address of its own: nobody but who is plugged in.
        batch(&bridge, &[make.into(), "link set br0 addrgenmode none".into(), "link set br0 up".into()])?;
        Ok(Self { run: Arc::clone(run), bridge })
    }

    /// Plugs somebody in, at 172.27.0.`host`, fd27::`host` and fe80::`host`.
    ///
    /// # Errors
    /// The name or the host number is taken.
    pub fn plug(&self, name: &str, host: u8) -> Result<Port> {
        let netns = Netns::create(&self.run, name)?;
        sysctls(&netns, &["net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"])?;
        let v4 = Ipv4Addr::new(172, 27, 0, host);
        let v6 = Ipv6Addr::new(0xfd27, 0, 0, 0, 0, 0, 0, host.into());
        let cable = format!("link add p-{name} type veth peer name eth0 netns {}", netns.name());
        let ports = [cable, format!("link set p-{name} master br0"), format!("link set p-{name} up")];
        batch(&self.bridge, &ports)?;
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host.into());
        let addresses = [
            "link set eth0 addrgenmode none".to_owned(),
            format!("addr add {v4}/24 dev eth0"),
            format!("addr add {v6}/64 dev eth0 nodad"),
            format!("addr add {link_local}/64 dev eth0 nodad"),
            "link set eth0 up".to_owned(),
        ];
        batch(&netns, &addresses)?;
        Ok(Port { name: name.to_owned(), netns, v4, v6, link_local })
    }

    /// Pulls somebody's cable without a sign, or puts it back: the bridge forgets the port.
    ///
    /// # Errors
    /// No such port.
    pub fn cable(&self, port: &Port, connected: bool) -> Result<()> {
        let name = format!("p-{}", port.name);
        let how: &[&str] = if connected { &["master", "br0"] } else { &["nomaster"] };
        self.bridge.ip(&[&["link", "set", &name], how].concat()).map(drop)
    }
}
