//! The firewall: one table, `inet rrun`, of fixed rules over maps and sets.
//!
//! The rules are loaded once, through the `nft` program; everything that comes and goes afterwards
//! — networks, published ports — is elements, written by [`crate::nl`] in some ten microseconds.

mod elements;
mod ruleset;
mod sets;

pub use elements::Element;

use crate::model::Network;
use crate::networks::BridgeOptions;
use crate::nl::{Failure, NftBatch, Socket};
use nftables::helper::{NftablesError, apply_ruleset};
use plan::{Error, Result};

/// The one table that is ours, in family `inet`.
pub const TABLE: &str = "rrun";

/// Loads the table. Where it exists already, nothing must be loaded twice: rules would be appended
/// again, so the caller asks first and holds the firewall's lock.
pub fn load() -> Result<()> {
    apply_ruleset(&ruleset::ruleset()).map_err(|e| {
        let doing = "load firewall table inet rrun";
        match e {
            NftablesError::NftExecution { inner, .. } => Error::io(format!("{doing}: run nft"), &inner)
                .with_hint("install nftables (Debian: apt install nftables); --network none and host need no firewall"),
            // The crate's own words for this leave out what nft said.
            NftablesError::NftFailed { stderr, .. } => Error::system(doing)
                .with_cause(stderr.lines().next().unwrap_or("nft failed without a word").to_string())
                .with_hint("rrun needs Linux 5.10 with nf_tables, and root"),
            other => Error::system(doing).with_cause(other.to_string()),
        }
    })
}

/// What the rules must know about a bridge network. The first element is the network's mark: where
/// it is in the kernel, the table and the rest are too.
pub fn network_elements(network: &Network) -> Vec<Element> {
    let options = BridgeOptions::of(network);
    let bridge = options.bridge_name(&network.id);
    let mut all = vec![Element::bridge(&bridge), Element::same_bridge(&bridge)];
    if options.icc {
        all.push(Element::talkative(&bridge));
    }
    if network.internal {
        all.push(Element::internal(&bridge));
    }
    for pool in &network.pools {
        if options.masquerade && !network.internal {
            all.push(Element::masqueraded(pool.subnet));
        }
        // Without masquerade the answers of the world are addressed to the containers themselves;
        // chain forward still lets in nothing else.
        if options.masquerade || network.internal {
            all.push(Element::no_direct(pool.subnet));
        }
    }
    all
}

/// Adds elements in one transaction.
///
/// An element of the same key with another value can only be left from a container that died
/// without its monitor: the port or bridge is ours, we hold its lease. It is replaced.
pub fn add(socket: &mut Socket, elements: &[Element]) -> Result<std::result::Result<(), Failure>> {
    let lowered: Vec<_> = elements.iter().map(Element::lower).collect();
    let mut batch = NftBatch::new(TABLE);
    batch.add(0, &lowered);
    match batch.commit(socket)? {
        Err(f) if f.errno == libc::EEXIST => {}
        other => return Ok(other),
    }
    for e in &lowered {
        let mut batch = NftBatch::new(TABLE);
        batch.add(0, std::slice::from_ref(e));
        if let Err(f) = batch.commit(socket)? {
            if f.errno != libc::EEXIST {
                return Ok(Err(f));
            }
            let mut replace = NftBatch::new(TABLE);
            replace.delete(0, std::slice::from_ref(e));
            replace.add(0, std::slice::from_ref(e));
            if let Err(f) = replace.commit(socket)? {
                return Ok(Err(f));
            }
        }
    }
    Ok(Ok(()))
}

/// Deletes elements; those not there are no error, and neither is a missing table.
pub fn delete(socket: &mut Socket, elements: &[Element]) -> Result<()> {
    let lowered: Vec<_> = elements.iter().map(Element::lower).collect();
    let doing = || "delete elements of firewall table inet rrun";
    let mut batch = NftBatch::new(TABLE);
    batch.delete(0, &lowered);
    match batch.commit(socket)? {
        Ok(()) => return Ok(()),
        Err(f) if f.errno != libc::ENOENT => return Err(f.error(doing())),
        Err(_) => {}
    }
    // One is missing, and the transaction was refused as a whole: one by one, then.
    for e in &lowered {
        let mut batch = NftBatch::new(TABLE);
        batch.delete(0, std::slice::from_ref(e));
        match batch.commit(socket)? {
            Err(f) if f.errno != libc::ENOENT => return Err(f.error(doing())),
            _ => {}
        }
    }
    Ok(())
}

/// Is the network known to the kernel's table? `None`: not allowed to ask.
pub fn has_network(socket: &mut Socket, network: &Network) -> Result<Option<bool>> {
    let mark = network_elements(network).swap_remove(0);
    has(socket, &mark)
}

/// Is this element in the kernel? `None`: not allowed to ask.
pub fn has(socket: &mut Socket, element: &Element) -> Result<Option<bool>> {
    match socket.has_element(TABLE, &element.lower())? {
        Ok(()) => Ok(Some(true)),
        Err(libc::ENOENT) => Ok(Some(false)),
        Err(libc::EPERM) => Ok(None),
        Err(errno) => {
            Err(Error::os("look for firewall table inet rrun", errno).with_hint("rrun needs Linux 5.10 with nf_tables"))
        }
    }
}
