//! What a client is owed comes by itself: answers before the close, retained messages to the last,
//! deliveries that waited for the log. No client here sends anything to be given what it has a
//! right to.

#[path = "liveness/answers.rs"]
mod answers;
#[path = "liveness/replay.rs"]
mod replay;
#[path = "liveness/sizes.rs"]
mod sizes;
mod support;
#[path = "liveness/waiting.rs"]
mod waiting;
#[path = "liveness/wires.rs"]
mod wires;
