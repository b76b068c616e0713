//! `ringpost init`: everything a first start needs, in one directory.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use config::{Config, ExampleOptions};
use mail::Domain;

#[derive(Args)]
pub(crate) struct InitArguments {
    /// Where the configuration and the certificate go; made if it is not there.
    #[arg(short, long, value_name = "DIRECTORY", default_value = ".")]
    directory: PathBuf,
    /// Our name, as others see it.
    #[arg(long, value_name = "NAME", default_value_t = hostname())]
    hostname: String,
    /// Where mail is kept; `data` beside the configuration unless said otherwise.
    #[arg(long, value_name = "DIRECTORY")]
    data_directory: Option<PathBuf>,
}

const FILES_PRIVATE: u32 = 0o600;
const DIRECTORIES_PRIVATE: u32 = 0o700;

/// Makes what is missing and says what it made.
pub(crate) fn init(arguments: &InitArguments) -> anyhow::Result<()> {
    let hostname = Domain::parse(&arguments.hostname)
        .with_context(|| format!("`{}` is no name for a host", arguments.hostname))?;
    let directory = &arguments.directory;
    make_directory(directory)?;
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    if !certificate.exists() && !key.exists() {
        let names = [hostname.as_str().to_owned(), "localhost".to_owned()];
        let (chain_pem, key_pem) = tls::self_signed(&names).context("cannot make a certificate")?;
        // The key first: a certificate without its key would keep us from making another pair.
        write_new(&key, key_pem.as_bytes())?;
        write_new(&certificate, chain_pem.as_bytes())?;
    }
    let options = ExampleOptions {
        hostname,
        certificate: "certificate.pem".into(),
        key: "key.pem".into(),
        data_directory: arguments.data_directory.clone().unwrap_or_else(|| "data".into()),
        by_root: nix::unistd::Uid::effective().is_root(),
        cpus: crate::serve::usable_cpus().len(),
    };
    let file = directory.join("ringpost.toml");
    write_new(&file, Config::example(&options).as_bytes())?;
    make_directory(&crate::open::config(&file)?.data_directory)
}

fn make_directory(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORIES_PRIVATE)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))?;
    println!("made {}/", path.display());
    Ok(())
}

/// Writes a file unless there is one.
fn write_new(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(FILES_PRIVATE).open(path);
    match opened {
        Ok(mut file) => {
            file.write_all(content).with_context(|| format!("cannot write {}", path.display()))?;
            println!("made {}", path.display());
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            println!("kept {}", path.display());
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot make {}", path.display())),
    }
}

/// What the kernel calls this host, if that can be a domain.
fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if Domain::parse(name).is_ok() { name.to_owned() } else { "localhost".to_owned() }
}
