//! Headers, whole and in pieces, and what is none.

use proptest::prelude::*;

use super::*;

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = V2_SIGNATURE.to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend(rest);
    bytes
}

fn v4_addresses() -> Vec<u8> {
    let mut rest = vec![10, 1, 2, 3, 192, 168, 0, 1];
    rest.extend(40_000_u16.to_be_bytes());
    rest.extend(1_883_u16.to_be_bytes());
    rest
}

fn v6_addresses() -> Vec<u8> {
    let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
    let mut rest = source.octets().to_vec();
    rest.extend(Ipv6Addr::LOCALHOST.octets());
    rest.extend(40_001_u16.to_be_bytes());
    rest.extend(8_883_u16.to_be_bytes());
    rest
}

/// Headers that are taken, and whom they name.
fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let with_tlv = [v4_addresses(), vec![0x01, 0, 2, b'h', b'2']].concat();
    vec![
        (b"PROXY TCP4 10.1.2.3 192.168.0.1 40000 1883\r\n".to_vec(), Some("10.1.2.3:40000")),
        (b"PROXY TCP6 2001:db8::7 ::1 40001 8883\r\n".to_vec(), Some("[2001:db8::7]:40001")),
        (b"PROXY TCP6 ::ffff:10.1.2.3 ::1 0 65535\r\n".to_vec(), Some("10.1.2.3:0")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN what ever \xff\xfe\r\n".to_vec(), None),
        (v2(1, 0x11, &v4_addresses()), Some("10.1.2.3:40000")),
        (v2(1, 0x21, &v6_addresses()), Some("[2001:db8::7]:40001")),
        (v2(1, 0x11, &with_tlv), Some("10.1.2.3:40000")),
        (v2(1, 0x00, &[]), None),
        (v2(0, 0x00, &[]), None),
        (v2(0, 0x11, &v4_addresses()), None),
        (v2(0, 0x00, &[0; 2_048]), None),
    ]
}

#[test]
fn headers_are_complete_at_their_last_byte_and_name_their_source() {
    for (bytes, source) in good() {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let source = source.map(|text| text.parse().unwrap());
        assert_eq!(parse(&bytes), Ok(Header::Complete(bytes.len(), source)), "{shown}");
        for n in 0..bytes.len() {
            assert_eq!(parse(&bytes[..n]), Ok(Header::Incomplete), "{n} bytes of {shown}");
        }
        let behind = [&bytes[..], b"\x10\x0c behind\r\n"].concat();
        assert_eq!(parse(&behind), Ok(Header::Complete(bytes.len(), source)), "{shown}");
    }
}

#[test]
fn what_is_no_header_is_refused() {
    let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 92], b"\r\n".to_vec()].concat();
    let too_long = {
        let mut bytes = v2(1, 0x11, &v4_addresses());
        bytes[14..16].copy_from_slice(&2_049_u16.to_be_bytes());
        bytes
    };
    let bad: Vec<Vec<u8>> = vec![
        b"\x10\x0c\x00\x04MQTT".to_vec(),
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"proxy TCP4 10.1.2.3 192.168.0.1 40000 1883\r\n".to_vec(),
        b"PROXY TCP4  10.1.2.3 192.168.0.1 40000 1883\r\n".to_vec(),
        b"PROXY TCP4 10.1.2.3 192.168.0.1 40000\r\n".to_vec(),
        b"PROXY TCP4 10.1.2.3 192.168.0.1 40000 1883 \r\n".to_vec(),
        b"PROXY TCP4 10.1.2.3 192.168.0.1 40000 65536\r\n".to_vec(),
        b"PROXY TCP4 10.1.2.3 192.168.0.1 +1 1883\r\n".to_vec(),
        b"PROXY TCP4 10.1.2.3 192.168.0.1 01 1883\r\n".to_vec(),
        b"PROXY TCP4 10.1.2.03 192.168.0.1 1 1883\r\n".to_vec(),
        b"PROXY TCP4 ::1 ::1 1 1\r\n".to_vec(),
        b"PROXY TCP6 10.1.2.3 192.168.0.1 1 1\r\n".to_vec(),
        b"PROXY UDP4 10.1.2.3 192.168.0.1 1 1\r\n".to_vec(),
        b"PROXY \r\n".to_vec(),
        long,
        too_long,
        v2(2, 0x11, &v4_addresses()),
        v2(1, 0x12, &v4_addresses()),
        v2(1, 0x31, &[0; 216]),
        v2(1, 0x11, &v4_addresses()[..11]),
        v2(1, 0x21, &v6_addresses()[..35]),
        [&V2_SIGNATURE[..], &[0x11, 0x11, 0, 0]].concat(),
    ];
    for bytes in bad {
        assert!(parse(&bytes).is_err(), "{}: {:?}", String::from_utf8_lossy(&bytes), parse(&bytes));
    }
}

/// What a stream of these bytes, which may come in pieces, makes of the connection, and how many bytes are left behind the header.
fn read(pieces: &[&[u8]]) -> (Result<Option<SocketAddr>, Cause>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        peer.set_nodelay(true).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let send = async {
            for piece in pieces {
                tokio::io::AsyncWriteExt::write_all(&mut peer, piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(peer);
        };
        let (result, ()) = tokio::join!(read_header(&mut stream), send);
        let mut behind = Vec::new();
        stream.read_to_end(&mut behind).await.unwrap();
        (result, behind)
    })
}

#[test]
fn nothing_behind_a_header_is_taken_however_it_is_cut() {
    for (bytes, source) in good() {
        let source: Option<SocketAddr> = source.map(|text| text.parse().unwrap());
        let whole = [&bytes[..], b"behind"].concat();
        let expected = (Ok(source), b"behind".to_vec());
        assert_eq!(read(&[&whole]), expected);
        for cut in [1, 5, 12, bytes.len() / 2, bytes.len() - 1] {
            assert_eq!(read(&[&whole[..cut], &whole[cut..]]), expected, "cut at {cut}");
        }
        let ones: Vec<&[u8]> = bytes.chunks(1).chain([&b"behind"[..]]).collect();
        assert_eq!(read(&ones), expected);
    }
}

#[test]
fn an_end_in_the_midst_of_a_header_is_told() {
    assert_eq!(read(&[b"PROXY TC"]).0, Err(Cause::PeerClosed));
    assert_eq!(read(&[]).0, Err(Cause::PeerClosed));
}

proptest! {
    #[test]
    fn no_bytes_panic_nor_are_waited_for_beyond_the_bounds(
        start in prop::sample::select(vec![&b""[..], V1_PREFIX, &V2_SIGNATURE, b"PROXY TCP4 1.2.3.4 "]),
        rest: Vec<u8>,
        more in 0_usize..3_000,
    ) {
        let mut bytes = [start, &rest].concat();
        bytes.extend(std::iter::repeat_n(b' ', more));
        match parse(&bytes) {
            Ok(Header::Incomplete) => prop_assert!(bytes.len() < V2_BYTES_MAX),
            Ok(Header::Complete(len, _)) => prop_assert!(len <= V2_BYTES_MAX && len <= bytes.len()),
            Err(_) => {}
        }
        if bytes.starts_with(V1_PREFIX) && bytes.len() >= V1_BYTES_MAX {
            prop_assert_ne!(parse(&bytes), Ok(Header::Incomplete));
        }
        // What is judged incomplete or complete is judged so whatever comes behind.
        if let Ok(Header::Complete(len, source)) = parse(&bytes) {
            bytes.truncate(len);
            prop_assert_eq!(parse(&bytes), Ok(Header::Complete(len, source)));
        }
    }
}
