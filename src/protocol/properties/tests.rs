use super::*;

/// Every property and every carrier of it, from table 2-4 of the standard, written down by hand.
const TABLE_2_4: &[(u32, &[Carrier])] = {
    use Carrier::*;
    &[
        (1, &[Publish, Will]),
        (2, &[Publish, Will]),
        (3, &[Publish, Will]),
        (8, &[Publish, Will]),
        (9, &[Publish, Will]),
        (11, &[Publish, Subscribe]),
        (17, &[Connect, ConnAck, Disconnect]),
        (18, &[ConnAck]),
        (19, &[ConnAck]),
        (21, &[Connect, ConnAck, Auth]),
        (22, &[Connect, ConnAck, Auth]),
        (23, &[Connect]),
        (24, &[Will]),
        (25, &[Connect]),
        (26, &[ConnAck]),
        (28, &[ConnAck, Disconnect]),
        (31, &[ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth]),
        (33, &[Connect, ConnAck]),
        (34, &[Connect, ConnAck]),
        (35, &[Publish]),
        (36, &[ConnAck]),
        (37, &[ConnAck]),
        (
            38,
            &[
                Connect,
                ConnAck,
                Publish,
                Will,
                PubAck,
                PubRec,
                PubRel,
                PubComp,
                Subscribe,
                SubAck,
                Unsubscribe,
                UnsubAck,
                Disconnect,
                Auth,
            ],
        ),
        (39, &[Connect, ConnAck]),
        (40, &[ConnAck]),
        (41, &[ConnAck]),
        (42, &[ConnAck]),
    ]
};

/// A valid value for each type, as bytes: the types of table 2-4 by hand once more.
fn sample(id: u32) -> &'static [u8] {
    match id {
        1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => &[1],
        2 | 17 | 24 | 39 => &[0, 0, 0, 1],
        19 | 33 | 34 | 35 => &[0, 1],
        11 => &[1],
        3 | 8 | 18 | 21 | 26 | 28 | 31 | 9 | 22 => b"\x00\x01a",
        38 => b"\x00\x01a\x00\x01b",
        _ => &[],
    }
}

fn section(properties: &[(u32, &[u8])]) -> Vec<u8> {
    properties.iter().flat_map(|(id, value)| [&[*id as u8], *value].concat()).collect()
}

fn check(bytes: &[u8], carrier: Carrier) -> Result<(), DecodeError> {
    PropertyReader::new(bytes, carrier).check()
}

#[test]
fn the_table_is_the_standards() {
    for id in 0..=255 {
        let entry = TABLE_2_4.iter().find(|(known, _)| *known == id);
        for &carrier in Carrier::ALL {
            let expected = match entry {
                None => Err("unknown_property"),
                Some((_, carriers)) if carriers.contains(&carrier) => Ok(()),
                Some(_) => Err("misplaced_property"),
            };
            // An identifier is a variable byte integer: those from 128 on take two bytes.
            let mut bytes = if id < 128 { vec![id as u8] } else { vec![id as u8, 1] };
            bytes.extend_from_slice(sample(id));
            let found = check(&bytes, carrier).map_err(|error| {
                assert_eq!(error.reason_code().byte(), 0x81);
                error.reason()
            });
            assert_eq!(found, expected, "{id} in {carrier:?}");
        }
    }
}

#[test]
fn values_are_of_their_type() {
    for (id, carriers) in TABLE_2_4 {
        let whole = section(&[(*id, sample(*id))]);
        let carrier = carriers[0];
        for len in 1..whole.len() {
            let error = check(&whole[..len], carrier).expect_err("cut");
            assert_eq!((error.reason(), error.reason_code().byte()), ("truncated", 0x81), "{id}");
        }
        let longer = [&whole[..], &[0x7f]].concat();
        assert_eq!(check(&longer, carrier), Err(DecodeError::UnknownProperty { id: 0x7f }), "{id}");
    }
}

#[test]
fn what_may_stand_once_is_refused_twice() {
    for (id, carriers) in TABLE_2_4 {
        for &carrier in *carriers {
            let twice = section(&[(*id, sample(*id)), (*id, sample(*id))]);
            let may = *id == 38 || (*id == 11 && carrier == Carrier::Publish);
            match check(&twice, carrier) {
                Ok(()) => assert!(may, "{id} in {carrier:?}"),
                Err(error) => {
                    assert_eq!((error.reason(), error.reason_code().byte()), ("repeated_property", 0x82));
                    assert!(!may, "{id} in {carrier:?}");
                }
            }
        }
    }
}

#[test]
fn values_out_of_range_are_refused() {
    let flags = [1, 23, 25, 36, 37, 40, 41, 42].map(|id| (id, &[2][..]));
    let zeros = [(33, &[0, 0][..]), (35, &[0, 0]), (39, &[0, 0, 0, 0]), (11, &[0])];
    for (id, value) in flags.into_iter().chain(zeros) {
        let (_, carriers) = TABLE_2_4.iter().find(|(known, _)| *known == id).unwrap();
        let error = check(&section(&[(id, value)]), carriers[0]).expect_err("out of range");
        assert_eq!(error.reason(), "property_out_of_range");
        // Topic alias 0 has a code of its own.
        assert_eq!(error.reason_code().byte(), if id == 35 { 0x94 } else { 0x82 }, "{id}");
    }
    // 0 means something here.
    for (id, value, carrier) in [
        (17, &[0, 0, 0, 0][..], Carrier::Connect),
        (34, &[0, 0], Carrier::Connect),
        (2, &[0, 0, 0, 0], Carrier::Publish),
        (24, &[0, 0, 0, 0], Carrier::Will),
        (19, &[0, 0], Carrier::ConnAck),
        (1, &[0], Carrier::Publish),
    ] {
        assert_eq!(check(&section(&[(id, value)]), carrier), Ok(()), "{id}");
    }
}

#[test]
fn variable_byte_integers_are_judged() {
    let read = |bytes: &[u8]| Reader::new(bytes).variable(Field::Properties);
    for (bytes, number) in [
        (&[0][..], 0),
        (&[0x7f], 127),
        (&[0x80, 1], 128),
        (&[0xff, 0x7f], 16_383),
        (&[0x80, 0x80, 1], 16_384),
        (&[0xff, 0xff, 0xff, 0x7f], VARIABLE_BYTE_INTEGER_MAX),
    ] {
        assert_eq!(read(bytes), Ok(number), "{bytes:?}");
    }
    // [MQTT-1.5.5-1]
    let field = Field::Properties;
    for bytes in [
        &[0x80, 0][..],
        &[0xff, 0],
        &[0x80, 0x80, 0],
        &[0xff, 0xff, 0xff, 0],
        &[0x80, 0x80, 0x80, 0x80],
        &[0xff, 0xff, 0xff, 0xff, 1],
    ] {
        assert_eq!(read(bytes), Err(DecodeError::BadVariableByteInteger { field }), "{bytes:?}");
    }
    for bytes in [&[][..], &[0x80], &[0x80, 0x80], &[0xff, 0xff, 0xff]] {
        assert_eq!(read(bytes), Err(DecodeError::Truncated { field }), "{bytes:?}");
    }
}

#[test]
fn values_come_out_in_order() {
    let bytes = section(&[
        (38, b"\x00\x01k\x00\x00"),
        (17, &[1, 2, 3, 4]),
        (38, b"\x00\x00\x00\x01v"),
        (33, &[1, 2]),
        (22, b"\x00\x01\xff"),
    ]);
    let mut reader = PropertyReader::new(&bytes, Carrier::Connect);
    let mut found = Vec::new();
    while let Some(property) = reader.next().unwrap() {
        found.push(property);
    }
    let expected = [
        (Property::UserProperty, PropertyValue::StringPair("k", "")),
        (Property::SessionExpiryInterval, PropertyValue::FourBytes(0x0102_0304)),
        (Property::UserProperty, PropertyValue::StringPair("", "v")),
        (Property::ReceiveMaximum, PropertyValue::TwoBytes(0x0102)),
        (Property::AuthenticationData, PropertyValue::Binary(b"\xff")),
    ];
    assert_eq!(found, expected);
}

/// [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-1.5.7-1]
#[test]
fn strings_are_utf_8_without_nul() {
    for (id, carrier) in [(3, Carrier::Publish), (31, Carrier::PubAck), (21, Carrier::Connect)] {
        for (value, reason) in [(b"\x00\x01\xff", "bad_utf8"), (b"\x00\x01\x00", "nul_in_string")] {
            let error = check(&section(&[(id, value)]), carrier).expect_err("bad string");
            assert_eq!((error.reason(), error.reason_code().byte()), (reason, 0x81));
        }
    }
    for value in [&b"\x00\x01\xff\x00\x00"[..], b"\x00\x00\x00\x01\xff", b"\x00\x01a\x00\x01\x00"] {
        assert!(check(&section(&[(38, value)]), Carrier::PubAck).is_err(), "{value:?}");
    }
}
