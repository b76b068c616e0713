//! How a section is written down: once, as a struct whose every key has type, notation, default and words.
//!
//! [`section!`] makes of it the struct, its [`Default`], its reader and its description; the example file
//! and the reference page are printed from the description, so that they cannot say anything else than the
//! code does. A key whose change takes a restart says so there; every other one is in force after a reload.

use std::path::PathBuf;

use toml::de::DeTable;

use crate::reader::Reader;

/// What a change of a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A reload.
    Reload,
    /// A restart: until then the old value holds, and a reload says so.
    Restart,
}

/// A table of the file.
pub(crate) trait Section: Clone + Default + PartialEq {
    /// What the section is for, a line each.
    const ABOUT: &'static [&'static str];

    /// Takes in what one file says; what it does not say stays.
    fn apply(&mut self, table: &DeTable<'_>, reader: &mut Reader<'_>);

    /// Shows every path in it.
    fn each_path(&mut self, visit: &mut dyn FnMut(&mut PathBuf));

    /// Every key, with the value it has here and the value it has by default.
    fn describe(&self) -> Vec<Key>;

    /// Keeps what was there `before` of every key whose change takes a restart, and tells which of them differ.
    fn keep(&mut self, before: &Self, path: &str, pending: &mut Vec<String>);
}

/// An entry as it stands in a configuration: what differs from what holds anyway.
pub(crate) fn entry_lines(name: &str, entry: &impl Section) -> String {
    let mut lines = format!("[[{name}]]\n");
    for key in entry.describe() {
        if let Shape::Value { default, current, .. } = key.shape
            && current != default
        {
            lines += &format!("{} = {current}\n", key.name);
        }
    }
    lines
}

/// An element of an array of tables.
pub(crate) trait Entry: Section {
    /// By which later files find it again.
    fn name(&self) -> String;

    /// One to show to somebody who has none yet.
    fn sample() -> Self;
}

/// One key, described.
pub(crate) struct Key {
    /// As it stands in the file.
    pub(crate) name: String,
    /// What it is for, a line each.
    pub(crate) doc: &'static [&'static str],
    /// What its change takes.
    pub(crate) takes: Takes,
    /// What may stand there.
    pub(crate) shape: Shape,
}

/// What may stand at a key.
pub(crate) enum Shape {
    /// A value.
    Value {
        /// The notation, in words: `size, 4KiB to 1GiB`.
        kind: String,
        /// For a choice, each word and what it means.
        choices: &'static [(&'static str, &'static str)],
        /// As TOML.
        default: String,
        /// As TOML.
        current: String,
    },
    /// A table.
    Section { about: &'static [&'static str], keys: Vec<Key> },
    /// An array of tables.
    Entries {
        about: &'static [&'static str],
        /// The keys of an entry such as one may write it.
        sample: Vec<Key>,
        /// The entries there are.
        entries: Vec<Vec<Key>>,
    },
}

/// The key of a field: `segment_size` is written `segment-size`.
pub(crate) fn key_name(field: &str) -> String {
    field.replace('_', "-")
}

/// A key within a section.
pub(crate) fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Defines a section: `field "key": Type [Notation; Restart] = default;`, the key only where it is not the field's
/// name, `; Restart` only where a change takes one.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident $($key:literal)? : $type:ty [$notation:ty $(; $takes:ident)?] = $default:expr;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $crate::schema::Section for $name {
            const ABOUT: &'static [&'static str] = &[$($about),+];

            fn apply(&mut self, table: &toml::de::DeTable<'_>, reader: &mut $crate::reader::Reader<'_>) {
                let names = [$( $crate::schema::section!(@key $field $($key)?) ),+];
                for (key, value) in table {
                    reader.enter(key);
                    let mut known = names.iter().map(String::as_str);
                    $(
                        if known.next() == Some(key.get_ref()) {
                            <$notation as $crate::notation::Notation<$type>>::apply(&mut self.$field, value, reader);
                            reader.leave();
                            continue;
                        }
                    )+
                    reader.unknown_key(key.span(), &names);
                    reader.leave();
                }
            }

            fn each_path(&mut self, visit: &mut dyn FnMut(&mut std::path::PathBuf)) {
                $( <$notation as $crate::notation::Notation<$type>>::each_path(&mut self.$field, visit); )+
            }

            fn describe(&self) -> Vec<$crate::schema::Key> {
                let default = Self::default();
                vec![$( $crate::schema::Key {
                    name: $crate::schema::section!(@key $field $($key)?),
                    doc: &[$($doc),+],
                    takes: $crate::schema::section!(@takes $($takes)?),
                    shape: <$notation as $crate::notation::Notation<$type>>::shape(&self.$field, &default.$field),
                } ),+]
            }

            fn keep(&mut self, before: &Self, path: &str, pending: &mut Vec<String>) {
                $( <$notation as $crate::notation::Notation<$type>>::keep(
                    &mut self.$field,
                    &before.$field,
                    $crate::schema::section!(@takes $($takes)?),
                    &$crate::schema::below(path, &$crate::schema::section!(@key $field $($key)?)),
                    pending,
                ); )+
            }
        }
    };
    (@key $field:ident $key:literal) => { String::from($key) };
    (@key $field:ident) => { $crate::schema::key_name(stringify!($field)) };
    (@takes) => { $crate::schema::Takes::Reload };
    (@takes $takes:ident) => { $crate::schema::Takes::$takes };
}

/// Defines an enum written as one of some words.
macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        pub enum $name:ident {
            $( $(#[doc = $doc:literal])+ $variant:ident = $word:literal, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl $crate::notation::Words for $name {
            const WORDS: &'static [(&'static str, &'static str)] =
                &[$( ($word, concat!($($doc),+)) ),+];
            const VALUES: &'static [Self] = &[$( Self::$variant ),+];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $( Self::$variant => $word ),+ })
            }
        }
    };
}

pub(crate) use {choice, section};
