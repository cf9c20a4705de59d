//! What CEL checks in the CRDs, so that the API server refuses it with no webhook running.
//!
//! The API server estimates what a rule can cost at most and refuses a CRD whose rules could be too dear, so lists and texts
//! that rules read need a bound. MetalLB's have none; ours are far above what anybody writes (docs/decisions/0010). What
//! would compare every entry with every other (duplicates, overlaps), or one object with another, is the webhook's.
//!
//! Rules never refuse what MetalLB takes: Go's parsers read zeros before a prefix length and IPv4 in IPv6 clothes
//! (`::ffff:192.0.2.1`), which CEL's do not, so texts that look like these pass here and are judged by
//! [`crate::config::build`].

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Both kinds of separators: perhaps IPv4 in IPv6 clothes.
const MAPPED: &str = "(self.contains('.') && self.contains(':'))";
const FIRST: &str = "self.substring(0, self.indexOf('-'))";
const LAST: &str = "self.substring(self.indexOf('-') + 1)";

/// What is wrong with a range, whatever list it stands in.
fn range_rules() -> [Value; 4] {
    let end = |end: &str, word: &str| {
        json!({
            "rule": format!("!self.contains('-') || isIP({end}.trim()) || {MAPPED}"),
            "message": format!("the {word} of a range must be an IP address: 192.0.2.10-192.0.2.20"),
        })
    };
    // Only IPv4: CEL does not compare addresses, and eight groups of hexadecimal digits are too dear.
    let number = |parts: &str| {
        format!(
            "int({parts}[0]) * 16777216 + int({parts}[1]) * 65536 + int({parts}[2]) * 256 + int({parts}[3])"
        )
    };
    let order = format!(
        "!self.contains('-') || self.contains(':') || [{FIRST}.trim().split('.')].all(a, [{LAST}.trim().split('.')].all(b, \
         a.size() != 4 || b.size() != 4 || {} <= {}))",
        number("a"),
        number("b")
    );
    let family = format!("{FIRST}.contains(':') == {LAST}.contains(':')");
    [
        end(FIRST, "first"),
        end(LAST, "last"),
        json!({
            "rule": format!("!self.contains('-') || {family} || self.contains('::ffff:')"),
            "message": "both ends of a range must be of one family",
        }),
        json!({"rule": order, "message": "the first address of a range must not be after the last"}),
    ]
}

fn addresses(most: u32, shape: Value) -> Schema {
    let rules: Vec<Value> = std::iter::once(shape).chain(range_rules()).collect();
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": most,
        "items": {"type": "string", "maxLength": 100, "x-kubernetes-validations": rules},
    })
}

/// `addresses` of an IPAddressPool.
pub(super) fn pool_addresses(_: &mut SchemaGenerator) -> Schema {
    addresses(
        10_000,
        json!({
            "rule": format!("self.contains('-') || isCIDR(self.trim()) || self.contains('/0') || {MAPPED}"),
            "message": "must be a CIDR (192.0.2.0/24) or a range (192.0.2.10-192.0.2.20); one address is 192.0.2.1/32",
        }),
    )
}

/// `addresses` of an AddressReservation.
pub(super) fn reserved_addresses(_: &mut SchemaGenerator) -> Schema {
    let mut schema = addresses(
        128,
        json!({
            "rule": format!(
                "self.contains('-') || isIP(self.trim()) || isCIDR(self.trim()) || self.contains('/0') || {MAPPED}"
            ),
            "message": "must be an address (192.0.2.1), a CIDR (192.0.2.0/30) or a range (192.0.2.10-192.0.2.20)",
        }),
    );
    schema.insert(
        "x-kubernetes-validations".to_owned(),
        json!([{
            "rule": "self.all(a, self.exists_one(b, a == b))",
            "message": "an entry stands twice in the list; name it once",
        }]),
    );
    schema
}

/// `communities` of a Community.
pub(super) fn community_value() -> Value {
    let number = |from: &str, to: &str, most: &str| format!("int(self.substring({from}, {to})) <= {most}");
    let small =
        [number("0", "self.indexOf(':')", "65535"), number("self.indexOf(':') + 1", "size(self)", "65535")];
    json!([
        {
            "rule": "self.matches('^([0-9]+:[0-9]+|large:[0-9]+:[0-9]+:[0-9]+)$')",
            "message": "must be a community: 64500:100, or large:64500:1:2",
        },
        {
            "rule": format!("!self.matches('^[0-9]+:[0-9]+$') || ({})", small.join(" && ")),
            "message": "both numbers of a community must be 0 to 65535; one of larger numbers is written large:64500:1:2",
        },
    ])
}

/// A text that is an IP address, or empty.
pub(super) fn ip_address(field: &str) -> Value {
    json!([{
        "rule": format!("self == '' || isIP(self) || {MAPPED}"),
        "message": format!("{field} must be an IP address: 192.0.2.1, or 2001:db8::1"),
    }])
}

/// A text that is an IPv4 address, or empty.
pub(super) fn router_id() -> Value {
    json!([{
        "rule": format!("self == '' || (isIP(self) && ip(self).family() == 4) || {MAPPED}"),
        "message": "routerID must be written as an IPv4 address: 192.0.2.1",
    }])
}

/// RFC 4271 4.2: "The Hold Time MUST be either zero or at least three seconds", in 16 bits of seconds.
pub(super) fn hold_time() -> Value {
    json!([{
        "rule": "duration(self) == duration('0s') || \
                 (duration(self) >= duration('3s') && duration(self) <= duration('65535s'))",
        "message": "holdTime must be 0s, or 3s to 65535s",
    }])
}

pub(super) fn keepalive_time() -> Value {
    json!([{
        "rule": "duration(self) >= duration('0s')",
        "message": "keepaliveTime must not be negative",
    }])
}

pub(super) fn connect_time() -> Value {
    json!([
        {
            "rule": "duration(self).getSeconds() >= 1 && duration(self).getSeconds() <= 65535",
            "message": "connectTime must be between 1 second and 65535 seconds",
        },
        {
            "rule": "duration(self).getMilliseconds() % 1000 == 0",
            "message": "connectTime must be whole seconds",
        },
    ])
}

/// The rules of a peer that both versions can say.
fn peer() -> Vec<Value> {
    vec![
        json!({"rule": "self.myASN != 0", "message": "myASN must be 1 to 4294967295"}),
        json!({
            "rule": "!(has(self.ebgpMultiHop) && self.ebgpMultiHop && has(self.peerASN) && self.peerASN == self.myASN)",
            "message": "ebgpMultiHop is for eBGP, but peerASN equals myASN",
        }),
        json!({
            "rule": "!has(self.keepaliveTime) || has(self.holdTime) || duration(self.keepaliveTime) == duration('0s') || \
                     (duration(self.keepaliveTime) >= duration('1s') && duration(self.keepaliveTime) <= duration('21845s'))",
            "message": "keepaliveTime without holdTime must be 0s, or 1s to 21845s; the hold time is three times as long",
        }),
    ]
}

/// What MetalLB's webhook refuses in one peer by itself. Go's clients write absent fields as 0 and "".
pub(super) fn peer_v1beta2() -> Value {
    let mut rules = peer();
    rules.extend([
        json!({
            "rule": "(has(self.peerASN) && self.peerASN != 0) != (has(self.dynamicASN) && self.dynamicASN != '')",
            "message": "exactly one of peerASN (1 to 4294967295) and dynamicASN (internal or external) must be set",
        }),
        json!({
            "rule": "(has(self.peerAddress) && self.peerAddress != '') != (has(self.interface) && self.interface != '')",
            "message": "exactly one of peerAddress and interface must be set",
        }),
        json!({
            "rule": "!(has(self.password) && self.password != '' && has(self.passwordSecret) && \
                     has(self.passwordSecret.name) && self.passwordSecret.name != '')",
            "message": "at most one of password and passwordSecret may be set",
        }),
        json!({
            "rule": "!(has(self.holdTime) && has(self.keepaliveTime)) || \
                     duration(self.keepaliveTime) <= duration(self.holdTime)",
            "message": "keepaliveTime must not be longer than holdTime",
        }),
    ]);
    Value::Array(rules)
}

/// What is left of them in v1beta1: peerASN 0 and an empty peerAddress stand there for what it cannot say (crate::convert),
/// and Go's clients write a holdTime that nobody gave as 0s.
pub(super) fn peer_v1beta1() -> Value {
    let mut rules = peer();
    rules.push(json!({
        "rule": "!(has(self.holdTime) && has(self.keepaliveTime)) || duration(self.holdTime) == duration('0s') || \
                 duration(self.keepaliveTime) <= duration(self.holdTime)",
        "message": "keepaliveTime must not be longer than holdTime",
    }));
    Value::Array(rules)
}

/// Bounds of a BGPAdvertisement that its schema in MetalLB leaves to the code.
pub(super) fn prefix_length(field: &str, most: u8) -> Value {
    json!([{
        "rule": format!("self >= 1 && self <= {most}"),
        "message": format!("{field} must be 1 to {most}"),
    }])
}

pub(super) fn local_pref() -> Value {
    json!([{"rule": "self >= 0", "message": "localPref must be 0 or more"}])
}
