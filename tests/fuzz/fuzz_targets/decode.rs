//! Bytes of a peer through framing, decoding and encoding again. The first byte says in which version.
//!
//! The codec is pure and needs nothing of the rest of the crate, so its source is compiled in directly:
//! seconds under the sanitizer in place of minutes for TLS and the runtime.
#![no_main]

// Here it is a private module, of which this target uses a part.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/protocol/mod.rs"]
mod protocol;

use libfuzzer_sys::fuzz_target;
use protocol::{
    DecodeError, Framed, Packet, ProtocolVersion, PublishProperties, decode, encode, frame, matches,
};

const PACKET_BYTES_MAX: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let Some((&version, stream)) = bytes.split_first() else { return };
    let version = match version % 4 {
        0 => ProtocolVersion::V31,
        1 => ProtocolVersion::V311,
        _ => ProtocolVersion::V5,
    };
    let mut rest = stream;
    loop {
        let framed = frame(rest, PACKET_BYTES_MAX, version);
        verdict_holds_on_prefixes(rest, framed, version);
        let Ok(Framed::Frame(frame)) = framed.inspect_err(|error| assert!(error.reason_code().is_error()))
        else {
            return;
        };
        let packet = match decode(&frame, version) {
            Ok(packet) => packet,
            Err(error) => {
                assert!(error.reason_code().is_error());
                return;
            }
        };
        use_all(&packet);
        encodes_to_itself(&packet, frame.total(), version);
        rest = &rest[frame.total()..];
    }
});

/// No prefix is judged worse or otherwise than the whole.
fn verdict_holds_on_prefixes(
    bytes: &[u8],
    verdict: Result<Framed<'_>, DecodeError>,
    version: ProtocolVersion,
) {
    // The verdict falls in the fixed header or with the last byte of the packet.
    let whole = match verdict {
        Ok(Framed::Frame(frame)) => frame.total(),
        _ => bytes.len(),
    };
    for len in (0..bytes.len().min(6)).chain([whole.saturating_sub(1)]).filter(|&len| len < whole) {
        match frame(&bytes[..len], PACKET_BYTES_MAX, version) {
            Ok(Framed::Frame(_)) => panic!("whole too early"),
            Ok(Framed::NeedMore { total }) => assert!(total.is_none_or(|total| total <= PACKET_BYTES_MAX)),
            Err(error) => assert_eq!(Err(error), verdict),
        }
    }
}

fn use_all(packet: &Packet<'_>) {
    match packet {
        Packet::Publish(publish) => {
            assert!(publish.packet_id_offset <= publish.wire.len());
            assert!(publish.topic.is_empty() || matches(publish.topic, publish.topic));
            assert!(!publish.topic.is_empty() || publish.properties.topic_alias.is_some());
            let mut forwarded = Vec::new();
            publish.properties.write_forwardable(&mut forwarded);
            let again = PublishProperties::parse(&forwarded).expect("a part of what was accepted");
            assert!(again.forwardable());
            assert!(again.user_properties().eq(publish.properties.user_properties()));
        }
        Packet::Subscribe(subscribe) => {
            assert_eq!(subscribe.filters().count(), subscribe.count());
            subscribe.filters().for_each(|(filter, _)| {
                matches("a/b", filter);
            });
        }
        Packet::Unsubscribe(unsubscribe) => assert_eq!(unsubscribe.filters().count(), unsubscribe.count()),
        _ => {}
    }
    assert!(!format!("{packet:?}").is_empty());
}

fn encodes_to_itself(packet: &Packet<'_>, total: usize, version: ProtocolVersion) {
    let mut bytes = Vec::new();
    encode::packet(&mut bytes, version, packet);
    assert!(bytes.len() <= total);
    match frame(&bytes, PACKET_BYTES_MAX, version) {
        Ok(Framed::Frame(frame)) => assert_eq!(decode(&frame, version).as_ref(), Ok(packet)),
        other => panic!("{other:?}"),
    }
}
