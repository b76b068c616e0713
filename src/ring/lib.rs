//! io_uring, buffers, timers, the clock; the only unsafe code.
