//! The classic publish-subscribe demonstration, in-process: one publisher, two subscribers.
//!
//! `cargo run --example pubsub` prints what each subscriber receives.

use std::error::Error;

use ternmq::config::Config;
use ternmq::{Broker, QoS, Subscription};

const TOPIC: &str = "demo/greetings";
const MESSAGES: [&str; 2] = ["Hello, World!", "Pub-Sub is awesome!"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // No listener: this broker serves the program alone.
    let broker = Broker::start(Config { listeners: Vec::new(), ..Config::default() }).await?;
    let mut first = broker.subscribe(TOPIC, QoS::AtLeastOnce)?;
    let mut second = broker.subscribe(TOPIC, QoS::AtLeastOnce)?;
    for message in MESSAGES {
        broker.publish(TOPIC, message.as_bytes(), QoS::AtLeastOnce, false)?;
    }
    print_messages("Subscriber 1", &mut first).await;
    print_messages("Subscriber 2", &mut second).await;
    broker.shutdown().await;
    Ok(())
}

async fn print_messages(name: &str, subscription: &mut Subscription) {
    for _ in MESSAGES {
        if let Some(message) = subscription.recv().await {
            println!("{name} received: {}", String::from_utf8_lossy(message.payload()));
        }
    }
}
