//! What contradicts itself in TLS towards clients, and in what their certificates are good for.

use crate::{ClientCertificate, Config, Listener, ListenerTls, TlsSuite, TlsVersion, reader::Reader};

impl Config {
    pub(crate) fn check_tls(&self, reader: &mut Reader<'_>) {
        let tls = &self.tls;
        for (key, empty) in [("tls.suites", tls.suites.is_empty()), ("tls.groups", tls.groups.is_empty())] {
            if empty {
                reader.conflict(
                    &[key],
                    "without one there is no TLS".into(),
                    "name one, or leave the key out",
                );
            }
        }
        let of_newest = |suite: &TlsSuite| suite.version() == TlsVersion::Tls13;
        if tls.min_version == TlsVersion::Tls13 && !tls.suites.is_empty() && !tls.suites.iter().any(of_newest)
        {
            let problem = "none of the suites is for TLS 1.3".into();
            let remedy = "add \"TLS_AES_128_GCM_SHA256\", or set `tls.min-version = \"1.2\"`";
            reader.conflict(&["tls.suites", "tls.min-version"], problem, remedy);
        }
        for listener in &self.listeners {
            self.check_client_certificate(listener, reader);
        }
    }

    fn check_client_certificate(&self, listener: &Listener, reader: &mut Reader<'_>) {
        let key = format!("listener.{}.client-certificate", listener.name.to_ascii_lowercase());
        let tls_key = format!("listener.{}.tls", listener.name.to_ascii_lowercase());
        let wanted = listener.client_certificate;
        match (wanted, listener.tls) {
            (ClientCertificate::Request | ClientCertificate::Require, ListenerTls::None) => {
                let problem = "certificates are shown in TLS, and there is none".into();
                reader.conflict(&[&key, &tls_key], problem, "set `tls`, or ask for no certificate");
            }
            (ClientCertificate::Require, ListenerTls::Starttls) => {
                let problem = "who does not begin TLS comes in without a certificate".into();
                reader.conflict(&[&key, &tls_key], problem, "set tls = \"required\" or \"implicit\"");
            }
            (ClientCertificate::None, _)
            | (_, ListenerTls::Required | ListenerTls::Implicit)
            | (ClientCertificate::Request, ListenerTls::Starttls) => {}
        }
        if wanted == ClientCertificate::Require && !self.relay.has_credentials() {
            let problem = "no certificate is a credential: nobody could come in".into();
            let remedy = "set `relay.certificates` or `relay.authorities`";
            reader.conflict(&[&key], problem, remedy);
        }
    }

    /// What of certificates is of no use.
    pub(crate) fn idle_certificates(&self) -> Vec<(String, String)> {
        let asking = |listener: &&Listener| listener.client_certificate != ClientCertificate::None;
        let first = self.listeners.iter().find(asking);
        let asker = self.etrn.iter().find(|rule| !rule.certificates.is_empty());
        match (first, self.relay.has_credentials() || asker.is_some()) {
            (Some(listener), false) => {
                let key = format!("listener.{}.client-certificate", listener.name.to_ascii_lowercase());
                let text = "no certificate is a credential (`relay.certificates`, `relay.authorities`, `[[etrn]]`): what \
                            clients show changes nothing";
                vec![(key, text.into())]
            }
            (None, true) => {
                let text = "no listener asks clients for a certificate (`client-certificate`)";
                let relay = match (self.relay.certificates.is_empty(), self.relay.authorities.is_empty()) {
                    (false, _) => Some("relay.certificates".to_owned()),
                    (true, false) => Some("relay.authorities".to_owned()),
                    (true, true) => None,
                };
                let asker = asker.map(|rule| format!("etrn.{}.certificates", rule.name.to_ascii_lowercase()));
                relay.into_iter().chain(asker).map(|key| (key, text.into())).collect()
            }
            (Some(_), true) | (None, false) => Vec::new(),
        }
    }
}
