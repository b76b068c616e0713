//! No mail is lost: not by SIGKILL at any moment, nor by SIGTERM or SIGHUP under load.
