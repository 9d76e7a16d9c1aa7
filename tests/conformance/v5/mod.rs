//! Conformance to MQTT 5: the statements that bind a server, in tests named `mqtt5_3_1_2_24_…`, and the bad inputs and
//! choices around them.

mod acks;
mod alias;
mod bad_connect;
mod bad_input;
mod connack;
mod connect;
mod disconnect;
mod encoding;
mod expiry;
mod flow;
mod forwarding;
mod mixed;
mod packet_size;
mod retained;
mod session;
mod shared;
mod shared_filters;
mod shared_leaving;
mod subscribe;
mod subscription_ids;
mod will;
