//! What the server says of itself.

use end_to_end::{Server, Sink, until};

#[test]
fn the_queue_says_how_much_memory_it_takes() {
    let sink = Sink::start();
    sink.refuse_recipients("450 4.2.0 later");
    let server = Server::start(&sink.route());
    let memory = || server.metric("ringpost_queue_memory_bytes", &[]);
    let before = until("it is measured", || Some(memory()).filter(|memory| *memory > 0.0));
    // More than a slab has places for at first, on whichever core.
    let mut client = server.client();
    for _ in 0..600 {
        client.send("ann@example.org", &["bob@example.net"], "Subject: one of many\r\n\r\nhello\r\n");
    }
    // 40 octets for a message and 40 for its group, 256 of each at a time.
    until("it has grown with the queue", || Some(memory()).filter(|after| *after >= before + 300.0 * 80.0));
}
