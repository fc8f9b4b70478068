//! Who asks: by the connection, or, behind a reverse proxy that is ours, by what that says.

use std::net::IpAddr;

use axum::http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of whoever asks. Each proxy adds the address that it saw at the end, so the last one that is no proxy of
/// ours was seen by one of ours; everything before it may be made up.
pub(super) fn asking(connection: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> IpAddr {
    let mut asking = connection.to_canonical();
    if !proxies.contains(&asking) {
        return asking;
    }
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    for part in lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(',')) {
        let Ok(seen) = part.trim().parse::<IpAddr>() else { break };
        asking = seen.to_canonical();
        if !proxies.contains(&asking) {
            break;
        }
    }
    asking
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_proxies_are_believed() {
        let ours: [IpAddr; 2] = [[127, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        for (connection, lines, asking_is) in [
            ("45.1.1.1", &["46.2.2.2"][..], "45.1.1.1"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["46.2.2.2"], "46.2.2.2"),
            ("::ffff:127.0.0.1", &["::ffff:46.2.2.2"], "46.2.2.2"),
            ("127.0.0.1", &["9.9.9.9, 46.2.2.2"], "46.2.2.2"),
            ("127.0.0.1", &["9.9.9.9, 46.2.2.2, 10.0.0.2"], "46.2.2.2"),
            ("127.0.0.1", &["9.9.9.9", "46.2.2.2"], "46.2.2.2"),
            ("127.0.0.1", &["9.9.9.9, nonsense"], "127.0.0.1"),
            ("127.0.0.1", &["9.9.9.9, nonsense, 10.0.0.2"], "10.0.0.2"),
            ("127.0.0.1", &["2a01::1"], "2a01::1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            let found = asking(connection.parse().unwrap(), &headers, &ours);
            assert_eq!(found, asking_is.parse::<IpAddr>().unwrap(), "{connection} {lines:?}");
        }
    }
}
