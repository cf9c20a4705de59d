//! BGP: sessions with the routers, and what we tell them.
//!
//! ```text
//!  bytes ──> codec: framing, screening, RFC 7606 verdicts ──> Message ──┐
//!                                                                       v
//!  Connected, Failed, Closed, BFD up/down, Start, Stop ──────────> peer::Machine (RFC 4271 section 8, both connections)
//!                                                                       │  poll_output: Connect, Close, Event
//!  intent::routes ──> Table ──> rib::AdjRibOut (wanted minus sent) ─────┤
//!                                                                       v
//!  bytes <── codec <── Message <──────────────────── peer::Machine::poll_transmit (pulled when the socket has room)
//! ```
//!
//! No socket and no clock in here: a driver owns one [`peer::Machine`] per peer, moves bytes and sleeps until its
//! deadline. Routes that a peer sends are checked, counted and dropped; nothing is installed.

pub mod codec;
pub mod message;
pub mod peer;
pub mod rib;
pub mod unnumbered;
