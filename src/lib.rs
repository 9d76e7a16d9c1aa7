//! TernMQ: an MQTT broker for IoT devices, as a library.
