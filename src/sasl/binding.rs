//! What ties a login to the channel that it goes over (RFC 5056), so that nobody in between can hand it on.

use std::fmt;

/// What both ends of a channel know of it. Whoever stands between has two channels, and of each another.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelBinding {
    kind: BindingType,
    data: Box<[u8]>,
}

/// What is known (the registry of RFC 5056 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingType {
    /// `tls-exporter`: keying material of this connection alone (RFC 9266).
    TlsExporter,
    /// `tls-server-end-point`: a hash of the server's certificate (RFC 5929 §4).
    TlsServerEndPoint,
}

/// What a login says of the channel (RFC 5802 §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding<'a> {
    /// Nothing: we cannot, or are not to.
    #[default]
    None,
    /// That we could, and that the server does not seem to: one that does knows then that somebody has kept its offer from us.
    NotOffered,
    /// This.
    To(&'a ChannelBinding),
}

impl ChannelBinding {
    /// Of these octets.
    pub fn new(kind: BindingType, data: impl Into<Box<[u8]>>) -> Self {
        Self { kind, data: data.into() }
    }
}

impl<'a> Binding<'a> {
    /// How a login begins: `gs2-header`, in the name of nobody else (RFC 5802 §7).
    pub(crate) fn header(self) -> String {
        match self {
            Self::None => "n,,".to_owned(),
            Self::NotOffered => "y,,".to_owned(),
            Self::To(binding) => format!("p={},,", binding.kind),
        }
    }

    /// What stands behind that in `cbind-input`.
    pub(crate) fn data(self) -> &'a [u8] {
        match self {
            Self::None | Self::NotOffered => &[],
            Self::To(binding) => &binding.data,
        }
    }
}

impl fmt::Display for BindingType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TlsExporter => "tls-exporter",
            Self::TlsServerEndPoint => "tls-server-end-point",
        })
    }
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBinding").field("kind", &self.kind).finish_non_exhaustive()
    }
}
