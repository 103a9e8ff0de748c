//! Where the node is, and how the connection to it is tuned.

use std::time::Duration;

use tonic::transport::Endpoint;

use crate::Error;

/// h2 starts with 64 KiB, of which a subscription at a gigabyte per second needs one every 60 µs.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Room for a few streams at their full window.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// What the node may put into one DATA frame, of which h2 makes one write. The default of 16 KiB costs a
/// quarter of the throughput.
const MAX_FRAME_BYTES: u32 = 256 << 10;
/// A peer that vanished without a word is noticed after both together, while a stream is open.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The endpoint for `url`, and the URL as errors name it.
pub(crate) fn endpoint(url: &str, connect_timeout: Duration) -> Result<(Endpoint, String), Error> {
    let given = url;
    let url = normalized(given)?;
    let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| bad_url(given).with_source(error))?;
    let (uri_host, uri_port) = (endpoint.uri().host(), endpoint.uri().port_u16());
    if uri_host.is_none_or(str::is_empty) || uri_port.is_none() || endpoint.uri().path() != "/" {
        return Err(bad_url(given));
    }
    let endpoint = endpoint
        .user_agent(concat!("logmill-client/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| bad_url(given).with_source(error))?
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    Ok((endpoint, url))
}

/// With its scheme, and without a slash at the end.
fn normalized(url: &str) -> Result<String, Error> {
    let url = url.trim().trim_end_matches('/');
    match url.split_once("://") {
        None => Ok(format!("http://{url}")),
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => Ok(url.to_owned()),
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => Err(Error::invalid(format!(
            "{url} asks for TLS, which this version does not have: use http:// within a network you trust"
        ))),
        Some(_) => Err(bad_url(url)),
    }
}

fn bad_url(url: &str) -> Error {
    Error::invalid(format!("{url:?} is not the address of a node: give it as http://HOST:PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn url(given: &str) -> Result<String, Error> {
        endpoint(given, Duration::from_secs(1)).map(|(_, url)| url)
    }

    #[test]
    fn addresses_come_with_or_without_a_scheme() {
        assert_eq!(url("http://127.0.0.1:7070").unwrap(), "http://127.0.0.1:7070");
        assert_eq!(url(" node-1:7070/ ").unwrap(), "http://node-1:7070");
        assert_eq!(url("http://[::1]:7070").unwrap(), "http://[::1]:7070");
    }

    #[test]
    fn what_cannot_be_a_node_is_refused_with_the_form_it_should_have() {
        for bad in
            ["", "http://", "ftp://x:1", "http://x", "x:port", "http://x:7070/path", "http://:7070", "a b:1"]
        {
            let error = url(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(error.to_string().contains("http://HOST:PORT"), "{bad}: {error}");
        }
        assert!(url("https://x:7070").unwrap_err().to_string().contains("TLS"));
    }
}
