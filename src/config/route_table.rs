//! Which route is for a domain: asked once per recipient, of routes of any number.

use std::collections::HashMap;

use crate::{DomainPattern, Route};

/// The patterns of all routes, found by name.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    exact: HashMap<Box<str>, usize>,
    below: HashMap<Box<str>, usize>,
    any: Option<usize>,
}

impl RouteTable {
    /// Of the routes of a configuration, in its order.
    pub fn new(routes: &[Route]) -> Self {
        let mut table = Self::default();
        for (at, route) in routes.iter().enumerate() {
            for pattern in &route.domains {
                match pattern {
                    DomainPattern::Any => table.any = Some(at),
                    DomainPattern::Below(domain) => drop(table.below.insert(domain.as_str().into(), at)),
                    DomainPattern::Exact(domain) => drop(table.exact.insert(domain.as_str().into(), at)),
                }
            }
        }
        table
    }

    /// The place of the route for a domain (in lower case): the one whose pattern says most of it.
    pub fn find(&self, domain: &str) -> Option<usize> {
        if let Some(at) = self.exact.get(domain) {
            return Some(*at);
        }
        let mut suffix = domain;
        while let Some((_, rest)) = suffix.split_once('.').filter(|_| !self.below.is_empty()) {
            if let Some(at) = self.below.get(rest) {
                return Some(*at);
            }
            suffix = rest;
        }
        self.any
    }
}
