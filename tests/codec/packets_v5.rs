//! Valid packets of MQTT 5 as a client sends them, written byte by byte from the standard and not by the
//! codec's encoders, and damage done to them.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

/// A packet and whether the codec would write the same bytes: it leaves out user properties of packets that
/// are not messages, and writes properties in an order of its own.
#[derive(Debug, Clone)]
pub(crate) struct Generated {
    pub(crate) bytes: Vec<u8>,
    pub(crate) canonical: bool,
}

fn variable(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (number % 128) as u8;
        number /= 128;
        if number == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    [&[first_byte][..], &variable(body.len()), body].concat()
}

fn section(properties: &[Vec<u8>]) -> Vec<u8> {
    let bytes = properties.concat();
    [variable(bytes.len()), bytes].concat()
}

fn field(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-z0-9/ ]{0,12}",
        4 => "[^\0]{0,8}",
        1 => "[a-c\u{e9}]{100,300}",
    ]
}

fn topic() -> impl Strategy<Value = Vec<u8>> {
    text().prop_map(|text| {
        let topic = text.replace(['+', '#'], "_");
        if topic.is_empty() { b"/".to_vec() } else { topic.into_bytes() }
    })
}

fn filter() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => topic().prop_map(|topic| String::from_utf8(topic).unwrap().replace("$share/", "s/")),
        2 => select(&["#", "+", "a/+/#", "/#", "+/+"][..]).prop_map(str::to_owned),
        2 => select(&["$share/g/a", "$share/g//", "$share/\u{e9}/+/#"][..]).prop_map(str::to_owned),
    ]
}

fn property(id: u8, value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    value.prop_map(move |value| [&[id][..], &value].concat())
}

fn string() -> impl Strategy<Value = Vec<u8>> {
    text().prop_map(|text| field(text.as_bytes()))
}

fn binary() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20).prop_map(|bytes| field(&bytes))
}

fn number<const N: usize>() -> impl Strategy<Value = Vec<u8>> {
    any::<[u8; N]>().prop_map(|bytes| bytes.to_vec())
}

/// A number that is not 0.
fn positive<const N: usize>() -> impl Strategy<Value = Vec<u8>> {
    number::<N>().prop_filter("not 0", |bytes| bytes.iter().any(|byte| *byte != 0))
}

fn flag() -> impl Strategy<Value = Vec<u8>> {
    (0..2u8).prop_map(|flag| vec![flag])
}

fn user_property() -> impl Strategy<Value = Vec<u8>> {
    (text(), text())
        .prop_map(|(name, value)| [&[0x26][..], &field(name.as_bytes()), &field(value.as_bytes())].concat())
}

/// Some of these properties, and user properties among them.
fn some_of(all: Vec<BoxedStrategy<Vec<u8>>>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let count = all.len();
    (subsequence(all, 0..=count).prop_flat_map(|chosen| chosen), vec(user_property(), 0..3))
        .prop_map(|(mut chosen, user)| {
            chosen.extend(user);
            chosen
        })
        .prop_shuffle()
}

fn message_properties() -> Vec<BoxedStrategy<Vec<u8>>> {
    vec![
        property(0x01, flag()).boxed(),
        property(0x02, number::<4>()).boxed(),
        property(0x03, string()).boxed(),
        property(0x08, topic().prop_map(|topic| field(&topic))).boxed(),
        property(0x09, binary()).boxed(),
    ]
}

fn connect() -> impl Strategy<Value = Generated> {
    let own = some_of(vec![
        property(0x11, number::<4>()).boxed(),
        property(0x21, positive::<2>()).boxed(),
        property(0x27, positive::<4>()).boxed(),
        property(0x22, number::<2>()).boxed(),
        property(0x19, flag()).boxed(),
        property(0x17, flag()).boxed(),
        (property(0x15, string()), option::of(property(0x16, binary())))
            .prop_map(|(method, data)| [method, data.unwrap_or_default()].concat())
            .boxed(),
    ]);
    let mut of_will = message_properties();
    of_will.push(property(0x18, number::<4>()).boxed());
    let will = option::of((0..3u8, any::<bool>(), some_of(of_will), topic(), binary()));
    (any::<bool>(), any::<u16>(), own, text(), will, option::of(string()), option::of(binary())).prop_map(
        |(clean_start, keep_alive, own, client_id, will, user_name, password)| {
            let mut flags = u8::from(clean_start) << 1;
            let mut payload = field(client_id.as_bytes());
            if let Some((qos, retain, properties, topic, message)) = will {
                flags |= 0x04 | qos << 3 | u8::from(retain) << 5;
                payload.extend(section(&properties));
                payload.extend(field(&topic));
                payload.extend(message);
            }
            for (bit, value) in [(0x80, user_name), (0x40, password)] {
                if let Some(value) = value {
                    flags |= bit;
                    payload.extend(value);
                }
            }
            let [high, low] = keep_alive.to_be_bytes();
            let start = [&b"\x00\x04MQTT\x05"[..], &[flags, high, low]].concat();
            let body = [start, section(&own), payload].concat();
            // Defaults need not be written, so even one property may be left out.
            Generated { bytes: packet(0x10, &body), canonical: own.is_empty() }
        },
    )
}

fn publish() -> impl Strategy<Value = Generated> {
    let alias = option::of(property(0x23, positive::<2>()));
    let payload = prop_oneof![8 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 100..300)];
    let first = (0..3u8, any::<bool>(), any::<bool>(), any::<bool>());
    (first, positive::<2>(), topic(), alias, some_of(message_properties()), payload).prop_map(
        |((qos, dup, retain, no_topic), id, topic, alias, mut properties, payload)| {
            let topic = if alias.is_some() && no_topic { Vec::new() } else { topic };
            properties.extend(alias);
            let first_byte = 0x30 | u8::from(dup && qos > 0) << 3 | qos << 1 | u8::from(retain);
            let id = if qos > 0 { id } else { Vec::new() };
            let body = [field(&topic), id, section(&properties), payload].concat();
            Generated { bytes: packet(first_byte, &body), canonical: true }
        },
    )
}

fn ack() -> impl Strategy<Value = Generated> {
    const PUBACK: &[u8] = &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    const PUBREL: &[u8] = &[0, 0x92];
    let kind = select(&[(0x40, PUBACK), (0x50, PUBACK), (0x62, PUBREL), (0x70, PUBREL)][..]);
    let code = kind.prop_flat_map(|(first_byte, codes)| (Just(first_byte), select(codes)));
    let properties = option::of(some_of(vec![property(0x1f, string()).boxed()]));
    (code, positive::<2>(), properties).prop_map(|((first_byte, code), id, properties)| {
        let canonical = properties.is_none() && code != 0;
        let section = properties.map_or(Vec::new(), |properties| section(&properties));
        Generated { bytes: packet(first_byte, &[id, vec![code], section].concat()), canonical }
    })
}

fn lists() -> impl Strategy<Value = Generated> {
    let entry = (filter(), 0..3u8, any::<bool>(), any::<bool>(), 0..3u8);
    let id = option::of(property(0x0b, (1..200_000usize).prop_map(variable)));
    let properties = (id, vec(user_property(), 0..3));
    (any::<bool>(), positive::<2>(), properties, vec(entry, 1..6)).prop_map(
        |(subscribe, packet_id, (id, user), entries)| {
            let canonical = user.is_empty();
            let id = id.filter(|_| subscribe);
            let properties: Vec<_> = id.into_iter().chain(user).collect();
            let mut body = [packet_id, section(&properties)].concat();
            for (filter, qos, no_local, retain_as_published, handling) in entries {
                body.extend(field(filter.as_bytes()));
                if subscribe {
                    let no_local = no_local && !filter.starts_with("$share/");
                    body.push(
                        qos | u8::from(no_local) << 2 | u8::from(retain_as_published) << 3 | handling << 4,
                    );
                }
            }
            Generated { bytes: packet(if subscribe { 0x82 } else { 0xa2 }, &body), canonical }
        },
    )
}

fn disconnect_or_auth() -> impl Strategy<Value = Generated> {
    const CODES: &[u8] = &[0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    let properties = some_of(vec![
        property(0x11, number::<4>()).boxed(),
        property(0x1f, string()).boxed(),
        property(0x1c, string()).boxed(),
    ]);
    let disconnect = (select(CODES), option::of(properties)).prop_map(|(code, properties)| {
        let canonical = properties.is_none() && code != 0;
        let section = properties.map_or(Vec::new(), |properties| section(&properties));
        Generated { bytes: packet(0xe0, &[vec![code], section].concat()), canonical }
    });
    let method = property(0x15, string());
    let properties = some_of(vec![property(0x16, binary()).boxed(), property(0x1f, string()).boxed()]);
    let auth = (select(&[0x18, 0x19][..]), method, properties).prop_map(|(code, method, mut properties)| {
        let canonical = properties.is_empty();
        properties.push(method);
        Generated { bytes: packet(0xf0, &[vec![code], section(&properties)].concat()), canonical }
    });
    let empty = select(&[0xe0, 0xc0][..])
        .prop_map(|first_byte| Generated { bytes: packet(first_byte, &[]), canonical: true });
    prop_oneof![2 => disconnect, 2 => auth, 1 => empty]
}

pub(crate) fn packet_bytes() -> impl Strategy<Value = Generated> {
    prop_oneof![3 => connect(), 4 => publish(), 2 => ack(), 2 => lists(), 2 => disconnect_or_auth()]
}

/// Bytes of a valid packet after up to three faults, with the length sometimes put right again so that the
/// faults get past the framing.
pub(crate) fn damaged_packet() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![0..0x30u8, any::<u8>()];
    let damage = (0..4u8, any::<Index>(), byte);
    (packet_bytes(), vec(damage, 1..4), any::<bool>()).prop_map(|(generated, damages, mend_length)| {
        let mut bytes = generated.bytes;
        for (kind, at, byte) in damages {
            if bytes.is_empty() {
                break;
            }
            let index = at.index(bytes.len());
            match kind {
                0 => bytes[index] = byte,
                1 => bytes.insert(index, byte),
                2 => drop(bytes.remove(index)),
                _ => bytes.truncate(index),
            }
        }
        if mend_length && (2..130).contains(&bytes.len()) {
            bytes[1] = (bytes.len() - 2) as u8;
        }
        bytes
    })
}
