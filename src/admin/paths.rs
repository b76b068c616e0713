//! Paths at which something is answered. Each is written down when it is made, so that the description of all of them
//! (`openapi`) can be held against what there is.

use axum::{Router, routing::MethodRouter};

use crate::Operations;

/// A router, and the paths that it knows.
pub(crate) struct Paths {
    router: Router<Operations>,
    known: Vec<&'static str>,
}

impl Paths {
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), known: Vec::new() }
    }

    /// One more.
    pub(crate) fn route(mut self, path: &'static str, methods: MethodRouter<Operations>) -> Self {
        self.known.push(path);
        Self { router: self.router.route(path, methods), known: self.known }
    }

    /// Those of both.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.known.extend(other.known);
        Self { router: self.router.merge(other.router), known: self.known }
    }

    /// To be served.
    pub(crate) fn into_router(self) -> Router<Operations> {
        self.router
    }

    /// All of them.
    #[cfg(test)]
    pub(crate) fn known(&self) -> &[&'static str] {
        &self.known
    }
}
