//! Conformance to MQTT 3.1.1 and 5: the normative statements that bind a server, each shown by tests that speak raw
//! bytes.
//!
//! A test named `mqtt_3_1_2_24_…` shows statement MQTT-3.1.2-24 of 3.1.1, one named `mqtt5_3_1_2_24_…` that of MQTT 5
//! (module `v5`; the same id may stand for something else). `statements.toml` lists every statement with its tests,
//! or the reason why there is none; `completeness` watches that the list and the tests agree. Tests without such a name
//! are the neighbouring bad inputs and TernMQ's answers where the standard leaves a choice.
//!
//! `TERNMQ_TEST_BROKER=mosquitto` with `-- --skip v5::` runs the tests of 3.1.1 against mosquitto, to show that they ask
//! what a broker in the field does. Those of MQTT 5 hold a broker to more than mosquitto 2.0 does.

#[path = "../support/mod.rs"]
mod support;

mod ack_order;
mod completeness;
mod connack;
mod connect;
mod connect_flags;
mod connection;
mod fixed_header;
mod ids;
mod keep_alive;
mod malformed;
mod overlap;
mod publish;
mod qos1;
mod qos2_in;
mod qos2_out;
mod retained;
mod session;
mod strings;
mod subscribe;
mod takeover;
mod topics;
mod unsubscribe;
mod v5;
mod will;
mod will_table;
