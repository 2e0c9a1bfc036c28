//! Which peers are trusted: the value of `forwarded_allow_ips`, `proxy_allow_ips` and
//! `uwsgi_allow_ips`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::value::{Value, ValueError};

/// A set of peers, by their address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// `*` was in the list.
    Everyone,
    /// Only these networks; no peer if empty.
    Networks(Vec<IpNet>),
}

impl Trusted {
    /// Reads addresses, networks and `*`, as a list or with commas. A network with bits set after
    /// its prefix (`10.0.0.1/8`) is refused: it is usually a mistake, and gunicorn refuses it too.
    pub fn read(value: &Value) -> Result<Trusted, ValueError> {
        let items = value.comma_separated()?;
        let networks: Result<Vec<IpNet>, ValueError> =
            items.iter().filter(|item| *item != "*").map(|item| parse_network(item)).collect();
        let networks = networks?;
        Ok(if items.iter().any(|item| item == "*") { Trusted::Everyone } else { Trusted::Networks(networks) })
    }

    /// Whether `peer` is in the set. An IPv4 address mapped into IPv6, which a dual-stack socket
    /// reports, counts as IPv4.
    pub fn contains(&self, peer: IpAddr) -> bool {
        match self {
            Trusted::Everyone => true,
            Trusted::Networks(networks) => networks.iter().any(|network| network.contains(&peer.to_canonical())),
        }
    }

    /// The set as a list of texts.
    pub fn to_value(&self) -> Value {
        match self {
            Trusted::Everyone => Value::from_iter(["*"]),
            Trusted::Networks(networks) => networks.iter().map(network_text).collect(),
        }
    }
}

fn network_text(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
}

fn parse_network(text: &str) -> Result<IpNet, ValueError> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse::<IpNet>().ok().or_else(|| network_with_mask(text)),
    };
    match network {
        Some(network) if network.trunc() == network => Ok(canonical(network)),
        Some(network) => {
            let meant = network.trunc();
            Err(ValueError::new(text, format!("has bits set after its prefix; the network is {meant}")))
        }
        None => Err(ValueError::new(text, "is not an IP address, a network or '*'")),
    }
}

/// A network of IPv4 addresses that are mapped into IPv6 is the network of these IPv4 addresses: on
/// a dual-stack socket gunicorn knows them by no other name.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    match network {
        IpNet::V6(mapped) if mapped.prefix_len() >= MAPPED_BITS => {
            let address = mapped.addr().to_ipv4_mapped();
            let plain = address.and_then(|address| Ipv4Net::new(address, mapped.prefix_len() - MAPPED_BITS).ok());
            plain.map_or(network, IpNet::V4)
        }
        IpNet::V4(_) | IpNet::V6(_) => network,
    }
}

/// `10.0.0.0/255.0.0.0`, which Python's ipaddress takes as well.
fn network_with_mask(text: &str) -> Option<IpNet> {
    let (address, mask) = text.split_once('/')?;
    let network = Ipv4Net::with_netmask(address.parse().ok()?, mask.parse().ok()?).ok()?;
    Some(IpNet::V4(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_found_in_the_networks_named() {
        let cases = [
            ("127.0.0.1,::1", "127.0.0.1", true),
            ("127.0.0.1,::1", "::1", true),
            ("127.0.0.1,::1", "127.0.0.2", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("10.0.0.0/8", "10.200.0.1", true),
            ("10.0.0.0/255.0.0.0", "10.200.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("2001:db8::/32", "2001:db8::1", true),
            ("127.0.0.1,*", "8.8.8.8", true),
            ("", "127.0.0.1", false),
        ];
        for (set, peer, expected) in cases {
            let trusted = Trusted::read(&Value::from(set)).unwrap();
            assert_eq!(trusted.contains(peer.parse().unwrap()), expected, "{peer} in {set:?}");
        }
    }

    #[test]
    fn a_text_that_is_no_network_is_refused() {
        let cases = [
            ("localhost", "'localhost' is not an IP address, a network or '*'"),
            ("10.0.0.0/33", "'10.0.0.0/33' is not an IP address, a network or '*'"),
            ("*,nonsense", "'nonsense' is not an IP address, a network or '*'"),
            ("192.168.1.1/24", "'192.168.1.1/24' has bits set after its prefix; the network is 192.168.1.0/24"),
        ];
        for (set, expected) in cases {
            assert_eq!(Trusted::read(&Value::from(set)).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_set_prints_as_a_list() {
        let trusted = Trusted::read(&Value::from("127.0.0.1, ::1,10.0.0.0/8")).unwrap();
        assert_eq!(trusted.to_value().to_string(), "['127.0.0.1', '::1', '10.0.0.0/8']");
    }

    #[test]
    fn mapped_networks_are_those_of_ipv4() {
        let trusted = Trusted::read(&Value::Str("::ffff:10.0.0.5, ::ffff:192.168.0.0/112".to_owned())).unwrap();
        for (peer, is_trusted) in [
            ("10.0.0.5", true),
            ("::ffff:10.0.0.5", true),
            ("192.168.7.7", true),
            ("10.0.0.6", false),
            ("::10.0.0.5", false),
        ] {
            assert_eq!(trusted.contains(peer.parse().unwrap()), is_trusted, "{peer}");
        }
        let all = Trusted::read(&Value::Str("::/0".to_owned())).unwrap();
        assert!(!all.contains("10.0.0.5".parse().unwrap()), "as in gunicorn");
    }
}
