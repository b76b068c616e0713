//! A server in service: what an operator changes, and what next hops and DNS servers see of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "in_service/balance.rs"]
mod balance;
#[path = "in_service/books.rs"]
mod books;
#[path = "in_service/campaigns.rs"]
mod campaigns;
#[path = "in_service/egress.rs"]
mod egress;
#[path = "in_service/lasting_tasks.rs"]
mod lasting_tasks;
#[path = "in_service/leases.rs"]
mod leases;
#[path = "in_service/limits.rs"]
mod limits;
#[path = "in_service/names.rs"]
mod names;
#[path = "in_service/reports_in.rs"]
mod reports_in;
#[path = "in_service/retry.rs"]
mod retry;
#[path = "in_service/returned.rs"]
mod returned;
#[path = "in_service/routes.rs"]
mod routes;
#[path = "in_service/srs.rs"]
mod srs;
#[path = "in_service/streams.rs"]
mod streams;
#[path = "in_service/tasks.rs"]
mod tasks;
#[path = "in_service/tenancy.rs"]
mod tenancy;
