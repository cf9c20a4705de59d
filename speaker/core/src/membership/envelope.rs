//! Datagrams that only speakers with the key can read or write, and that count once.
//!
//! ```text
//!  0       1        5              21          29                        n-16        n
//!  +-------+--------+--------------+-----------+-------------------------+-----------+
//!  | 1     | key id | sender epoch | counter   | ciphertext              | tag       |
//!  +-------+--------+--------------+-----------+-------------------------+-----------+
//!    version          random, one    big endian,  ChaCha20-Poly1305 (RFC 8439) under a key of the epoch's own:
//!            of SHA-  per start      never twice  HKDF-SHA256 (RFC 5869) of secret and epoch; nonce = counter; all before
//!            256(key)                             the ciphertext is authenticated with it
//! ```
//!
//! A stranger's datagram costs at most one derivation and one attempt. An epoch that was never heard of is believed only
//! after it has answered a challenge, so that nothing recorded from an earlier start is; within an epoch a window over the
//! counters drops what was seen. With two keys (a rotation) both open; a peer is written to under the newest key that it
//! has shown to hold.
