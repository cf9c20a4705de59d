//! Addresses that nobody is given: those that the network uses itself, and those that an AddressReservation keeps back.
//! The controller has the rights that the chart gives it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

#[path = "reserved/network.rs"]
mod network;
#[path = "reserved/reservations.rs"]
mod reservations;
#[path = "reserved/scene.rs"]
mod scene;
#[allow(dead_code)] // shared with tests/controller.rs, which uses all of it
#[path = "controller/stage.rs"]
mod stage;
