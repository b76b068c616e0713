//! The client side: one connection to a next hop, without the connection.
