//! What is found out about the client of a connection before its mail is taken.

use std::net::IpAddr;

use config::ClientCertificate;
use mail::{ForwardPath, ReversePath};
use policy::{Listing, Query, Standing};
use smtp::{Refusal, Stage, Verdict};

use super::Connection;
use crate::{
    facts, greylist,
    receiving::Committed,
    reputation,
    screening::{self, Stranger},
};

impl Connection<'_> {
    /// Whether anything is to be found out about the client.
    pub(super) fn wants_screening(&self) -> bool {
        // What holds for all clients of the listener comes first: most listeners want nothing.
        screening::is_wanted(self.door)
            && self.listing() == Listing::Unlisted
            && self.socket.caller().standing(&self.shard.settings().policy) == Standing::Stranger
    }

    /// Asks what can be asked about the client by now.
    pub(super) fn look_ahead(&self, sender: Option<&ReversePath>) {
        // One that is asked for a certificate may be ours.
        let is_early = sender.is_none() && self.door.certificates != ClientCertificate::None;
        if !is_early && self.wants_screening() {
            let (address, name) = (self.socket.caller().address(), self.reverse.name.as_ref());
            let stranger = Stranger::of(&self.session, sender, address, name);
            screening::look_ahead(self.shard, self.door, stranger);
        }
    }

    /// Finds out about the client what is not known yet, and whether there is the recipient.
    pub(super) async fn screen(&mut self, stage: &Stage, query: Option<Query>) -> Verdict {
        if self.screened.is_none() {
            let (address, name) = (self.socket.caller().address(), self.reverse.name.as_ref());
            let sender = self.session.envelope().map(|envelope| &envelope.reverse_path);
            let stranger = Stranger::of(&self.session, sender, address, name);
            let screened = screening::screen(self.shard, self.door, stranger).await;
            self.screened = Some(Box::new(screened));
        }
        self.screening(stage)?;
        if let Some(query) = query {
            facts::verify(self.shard, query).await?;
        }
        let Stage::Rcpt { forward_path: path @ ForwardPath::Address(recipient), .. } = stage else {
            return Ok(());
        };
        match &mut self.screened {
            Some(screened) if !self.shard.settings().policy.is_postmaster(path) => {
                let (address, name) = (self.socket.caller().address(), self.reverse.name.as_ref());
                let sender = self.session.envelope().map(|envelope| &envelope.reverse_path);
                let stranger = Stranger::of(&self.session, sender, address, name);
                greylist::greylist(self.shard, self.door, stranger, screened, recipient).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What follows for a recipient, or the mail data, from what was found out about the client.
    pub(super) fn screening(&self, stage: &Stage) -> Verdict {
        let Some(screened) = &self.screened else { return Ok(()) };
        match stage {
            Stage::Rcpt { forward_path, .. } if !self.shard.settings().policy.is_postmaster(forward_path) => {
                screened.verdict()
            }
            Stage::Data { .. } => screened.waiting.at_data(),
            Stage::Rcpt { .. } | Stage::Ehlo { .. } | Stage::Mail { .. } => Ok(()),
        }
    }

    /// The address of the client, where it is remembered what it does.
    pub(super) fn learned_of(&self) -> Option<IpAddr> {
        let learns = self.door.learns && self.wants_screening();
        self.socket.caller().address().filter(|_| learns)
    }

    /// Remembers what the client has brought.
    pub(super) fn learn(&self, committed: &Committed) {
        if !self.door.learns || !self.wants_screening() {
            return;
        }
        match (committed.outcome, self.socket.caller().address()) {
            (Ok(_), Some(address)) => reputation::on_accepted(self.shard, &committed.taken(address)),
            (Err(refusal), address) => reputation::on_refused(self.shard, address, refusal),
            (Ok(_), None) => {}
        }
    }

    /// Remembers what it was refused for.
    pub(super) fn learn_refusal(&self, refusal: Refusal) {
        if self.door.learns && self.wants_screening() {
            reputation::on_refused(self.shard, self.socket.caller().address(), refusal);
        }
    }
}
