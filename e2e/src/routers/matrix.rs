//! The table feature x peer x family: what is to be tried with each router, what it cannot do and why, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{At, Bfd, Cannot, Family, Kind, Neighbor, RouterConfig};

/// What a session runs over, and carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Over {
    /// An IPv4 session with IPv4 routes.
    V4,
    /// An IPv6 session with IPv6 routes.
    V6,
    /// An IPv4 session with routes of both families.
    Both,
}

impl Over {
    const EACH: &'static [Self] = &[Self::V4, Self::V6];
    const ALL: &'static [Self] = &[Self::V4, Self::V6, Self::Both];

    /// Families of the routes.
    pub fn families(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Both => &[Family::V4, Family::V6],
        }
    }

    /// Family of the addresses that the session runs between.
    pub fn transport(self) -> Family {
        match self {
            Self::V4 | Self::Both => Family::V4,
            Self::V6 => Family::V6,
        }
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
            Self::Both => "both",
        })
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Feature {
    /// Its name in the table.
    pub name: &'static str,
    /// Over what it is tried.
    pub over: &'static [Over],
    /// What it asks of the router, beside a session.
    pub configure: fn(&mut Neighbor),
    /// Peers that lack it for a reason that no configuration shows.
    pub lacking: &'static [Cannot],
}

const NOTHING: fn(&mut Neighbor) = |_| {};

const fn feature(name: &'static str, over: &'static [Over], configure: fn(&mut Neighbor)) -> Feature {
    Feature { name, over, configure, lacking: &[] }
}

/// All rows. Issue 6 and bgp.md name them.
pub const FEATURES: &[Feature] = &[
    feature("eBGP, one hop", Over::ALL, NOTHING),
    feature("iBGP, LOCAL_PREF", Over::ALL, |n| n.asn = US),
    feature("eBGP, multihop", Over::EACH, |n| n.multihop = Some(3)),
    feature("4-octet AS numbers", Over::EACH, |n| n.asn = 4_200_000_001),
    feature("the router calls, we only answer", Over::EACH, NOTHING),
    feature("we call, the router only answers", Over::EACH, |n| n.passive = true),
    feature("TCP MD5", Over::EACH, |n| n.password = Some(PASSWORD.to_owned())),
    feature("TCP MD5, the key changes", Over::EACH, |n| n.password = Some(PASSWORD.to_owned())),
    feature("GTSM", Over::EACH, |n| n.gtsm = true),
    feature("BFD, 50 ms x 3", Over::EACH, |n| n.bfd = Some(Bfd { tx: 50, rx: 50, multiplier: 3 })),
    feature("standard communities", Over::EACH, NOTHING),
    feature("large communities", Over::EACH, NOTHING),
    feature("a route is taken back", Over::ALL, NOTHING),
    Feature {
        lacking: &[
            Cannot(Kind::Gobgp, super::gobgp::NO_REFRESH),
            Cannot(Kind::Exabgp, super::exabgp::NO_REFRESH),
        ],
        ..feature("route refresh", Over::EACH, NOTHING)
    },
    Feature {
        lacking: &[Cannot(Kind::Exabgp, "keeps no table: it cannot hold routes of a peer that restarts")],
        ..feature("graceful restart of the speaker", Over::EACH, |n| n.graceful_restart = Some(60))
    },
    feature("drain (GRACEFUL_SHUTDOWN)", Over::EACH, NOTHING),
    feature("a router that stalls is given up", Over::EACH, NOTHING),
    feature("IPv4 routes with an IPv6 next hop", &[Over::V6], |n| {
        n.extended_next_hop = true;
        n.families.insert(Family::V4);
    }),
    feature("unnumbered", &[Over::V6], |n| {
        n.at = At::Interface("eth0".to_owned());
        n.extended_next_hop = true;
        n.families.insert(Family::V4);
    }),
    Feature {
        lacking: &[
            Cannot(Kind::Gobgp, "does not forward"),
            Cannot(Kind::Exabgp, "does not forward"),
            Cannot(Kind::Bird, "is started without a kernel protocol here"),
        ],
        ..feature("ECMP over two nodes", Over::EACH, NOTHING)
    },
];

/// Our AS number in the matrix; a router's is another, but for iBGP.
pub const US: u32 = 64512;
/// A router's, where a feature does not say otherwise.
pub const THEM: u32 = 64513;
/// Of the sessions with one.
pub const PASSWORD: &str = "correct-horse";

impl Feature {
    /// How the router at `router` is to be told of us, at `us`.
    pub fn neighbor(&self, over: Over, us: IpAddr, router: IpAddr) -> Neighbor {
        let mut neighbor = Neighbor::new(us, US);
        neighbor.local = Some(router);
        neighbor.families = over.families().iter().copied().collect();
        (self.configure)(&mut neighbor);
        neighbor
    }

    /// Why a router cannot take part.
    fn cannot(&self, kind: Kind, over: Over) -> Option<Cannot> {
        let lacking = self.lacking.iter().find(|Cannot(who, _)| *who == kind).cloned();
        let (us, router): (IpAddr, IpAddr) = match over.transport() {
            Family::V4 => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()),
            Family::V6 => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
        };
        let config = RouterConfig::new(THEM, Ipv4Addr::LOCALHOST).neighbor(self.neighbor(over, us, router));
        lacking.or_else(|| kind.render(&config).err())
    }
}

/// What came of one combination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Nobody has tried.
    NotRun,
    /// It works.
    Works,
    /// It does not.
    Fails(String),
    /// The peer lacks it.
    Cannot(Cannot),
}

/// The table of one run.
#[derive(Debug, Clone)]
pub struct Matrix {
    cells: BTreeMap<(usize, Over, Kind), Cell>,
}

impl Default for Matrix {
    fn default() -> Self {
        let rows = FEATURES.iter().enumerate().flat_map(|(row, feature)| {
            feature.over.iter().flat_map(move |over| {
                Kind::ALL.map(|kind| {
                    let cell = feature.cannot(kind, *over).map_or(Cell::NotRun, Cell::Cannot);
                    ((row, *over, kind), cell)
                })
            })
        });
        Self { cells: rows.collect() }
    }
}

impl Matrix {
    /// What is to be tried.
    pub fn due(&self) -> Vec<(&'static Feature, Over, Kind)> {
        let open = self.cells.iter().filter(|(_, cell)| **cell == Cell::NotRun);
        open.filter_map(|((row, over, kind), _)| Some((FEATURES.get(*row)?, *over, *kind))).collect()
    }

    /// What came of it.
    pub fn tried(&mut self, feature: &str, over: Over, kind: Kind, result: anyhow::Result<()>) {
        let cell = match result {
            Ok(()) => Cell::Works,
            Err(error) => Cell::Fails(format!("{error:#}")),
        };
        if let Some(row) = FEATURES.iter().position(|known| known.name == feature) {
            self.cells.insert((row, over, kind), cell);
        }
    }

    /// Whether every cell was tried and works, or is one that the peer cannot do.
    pub fn is_good(&self) -> bool {
        self.cells.values().all(|cell| matches!(cell, Cell::Works | Cell::Cannot(_)))
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut notes: Vec<String> = Vec::new();
        let mut note = |text: String| {
            let at = notes.iter().position(|known| *known == text).unwrap_or_else(|| {
                notes.push(text);
                notes.len() - 1
            });
            at + 1
        };
        write!(f, "{:<36}{:<6}", "feature", "over")?;
        Kind::ALL.iter().try_for_each(|kind| write!(f, "{kind:<12}"))?;
        let mut last = None;
        for ((row, over, kind), cell) in &self.cells {
            if last != Some((row, over)) {
                let name = FEATURES.get(*row).map_or("", |feature| feature.name);
                write!(f, "\n{name:<36}{over:<6}")?;
                last = Some((row, over));
            }
            let text = match cell {
                Cell::NotRun => "not run".to_owned(),
                Cell::Works => "works".to_owned(),
                Cell::Fails(why) => format!("FAILS [{}]", note(format!("with {kind}: {why}"))),
                Cell::Cannot(why) => format!("- [{}]", note(why.to_string())),
            };
            write!(f, "{text:<12}")?;
        }
        writeln!(f)?;
        notes.iter().enumerate().try_for_each(|(at, text)| writeln!(f, "[{}] {text}", at + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_a_peer_cannot_do_what_failed_and_what_nobody_tried() {
        let mut matrix = Matrix::default();
        let due = matrix.due();
        assert!(due.iter().any(|(feature, _, kind)| feature.name == "unnumbered" && *kind == Kind::Frr));
        assert!(
            !due.iter().any(|(feature, _, kind)| feature.name.starts_with("BFD") && *kind == Kind::Gobgp)
        );
        assert!(!matrix.is_good());
        matrix.tried("GTSM", Over::V4, Kind::Bird, Err(anyhow::anyhow!("no session")));
        let text = matrix.to_string();
        for part in ["FAILS [", "with BIRD: no session", "not run", "GoBGP 3.10 has no BFD"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        for (feature, over, kind) in matrix.due() {
            matrix.tried(feature.name, over, kind, Ok(()));
        }
        assert!(!matrix.is_good(), "one has failed");
        matrix.tried("GTSM", Over::V4, Kind::Bird, Ok(()));
        assert!(matrix.is_good());
    }
}
