//! The firewall: one table, `inet rrun`, of fixed rules over maps and sets.
//!
//! The rules are loaded once, through the `nft` program; everything that comes and goes afterwards
//! — networks, published ports — is elements, written by [`crate::nl`] in some ten microseconds.

mod elements;
mod ruleset;
mod sets;

pub use elements::Element;
use ruleset::Begin;

use crate::model::{Network, Proto};
use crate::networks::{BridgeOptions, GatewayMode};
use crate::nl::{self, Failure, NftBatch, Socket};
use plan::{Error, Result};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// The one table that is ours, in family `inet`.
pub const TABLE: &str = "rrun";

/// Of the rules and sets as they are written in this program: another version's differ.
pub const LAYOUT: u32 = plan::fingerprint(&[include_bytes!("ruleset.rs"), include_bytes!("sets.rs")]);

/// Loads the table; `false` when it was there already.
///
/// The transaction begins with "create", which fails where the table exists: two first containers
/// at the same moment cannot load the rules twice. One that another rrun wrote is rewritten.
pub fn load(socket: &mut Socket) -> Result<bool> {
    match begin(&Begin::Create)? {
        Ok(()) => Ok(true),
        Err(_) if is_loaded(socket)? == Some(true) => Ok(false),
        // Where a set has been changed, nft has other complaints than that the table exists.
        Err(words) if words.contains("File exists") || is_there()? => rewrite(&[]).map(|()| true),
        Err(words) => Err(refused(&words)),
    }
}

/// Writes the rules anew and leaves the elements; chains called `strays` go. Where that cannot be,
/// because somebody has changed a set, the table is replaced: all elements have to be added again.
pub fn rewrite(strays: &[String]) -> Result<()> {
    if begin(&Begin::Rewrite { strays: strays.to_vec() })?.is_ok() {
        return Ok(());
    }
    // Not in one transaction: nft 1.0.6 checks the new rules against the sets it is to delete.
    let output = run_nft(&["delete", "table", "inet", TABLE], "")?;
    if !output.status.success() {
        return Err(refused(&String::from_utf8_lossy(&output.stderr)));
    }
    begin(&Begin::Create)?.map_err(|words| refused(&words))
}

fn is_there() -> Result<bool> {
    Ok(run_nft(&["list", "table", "inet", TABLE], "")?.status.success())
}

const LOADING: &str = "load firewall table inet rrun";

fn refused(words: &str) -> Error {
    let cause = words.lines().find(|l| !l.trim().is_empty()).unwrap_or("nft failed without a word");
    Error::system(LOADING).with_cause(cause).with_hint("rrun needs Linux 5.10 with nf_tables, and root")
}

/// The inner error is what nft said.
fn begin(how: &Begin) -> Result<std::result::Result<(), String>> {
    let json =
        serde_json::to_string(&ruleset::ruleset(how)).map_err(|e| Error::system(LOADING).with_cause(e.to_string()))?;
    let output = run_nft(&["-j", "-f", "-"], &json)?;
    match output.status.success() {
        true => Ok(Ok(())),
        false => Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// The `nft` program. Not the crate's helper: that one lets nft write to our own stderr.
pub(crate) fn run_nft(args: &[&str], input: &str) -> Result<Output> {
    try_nft(args, input).map_err(|e| {
        Error::io("run nft", &e)
            .with_hint("install nftables (Debian: apt install nftables); --network none and host need no firewall")
    })
}

fn try_nft(args: &[&str], input: &str) -> std::io::Result<Output> {
    let spawn = |program: &str| {
        Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let mut nft = match spawn("nft") {
        // The search path of sudo or of a service may leave out the directory of system programs.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => spawn("/usr/sbin/nft")?,
        other => other?,
    };
    if let Some(mut stdin) = nft.stdin.take() {
        // What nft has to say about a pipe it did not read to the end, it says itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    nft.wait_with_output()
}

/// What the rules must know about a bridge network: nothing about an unmanaged one. The first element is the network's mark: where
/// it is in the kernel, the table and the rest are too.
pub fn network_elements(network: &Network) -> Vec<Element> {
    let options = BridgeOptions::of(network);
    if options.unmanaged {
        return Vec::new();
    }
    let bridge = options.bridge_name(&network.id);
    let mut all = vec![Element::bridge(&bridge)];
    if options.icc {
        all.push(Element::talkative(&bridge));
    }
    if network.internal {
        all.push(Element::internal(&bridge));
    }
    for pool in &network.pools {
        let subnet = pool.subnet;
        all.push(Element::home(subnet, &bridge));
        if network.internal {
            all.push(Element::no_direct(subnet));
            continue;
        }
        let mode = options.mode(subnet.is_ipv6());
        match mode {
            GatewayMode::Routed => all.push(Element::routed(subnet)),
            GatewayMode::NatUnprotected => all.push(Element::unprotected(subnet)),
            // Without masquerade the answers of the world are addressed to the containers
            // themselves; chain forward still lets in nothing else.
            GatewayMode::Nat | GatewayMode::Isolated if options.masquerade => all.push(Element::no_direct(subnet)),
            GatewayMode::Nat | GatewayMode::Isolated => {}
        }
        all.extend(options.trusted.iter().map(|interface| Element::trusted(subnet, interface)));
        if options.masquerade && mode != GatewayMode::Routed {
            all.push(match options.outbound(subnet.is_ipv6()) {
                Some(source) => Element::outbound(subnet, source),
                None => Element::masqueraded(subnet),
            });
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

/// Sends published ports to a container, and forgets UDP flows that were translated otherwise before,
/// or not at all. (A TCP connection has an end: a new one is looked up anew.)
pub fn publish(socket: &mut Socket, elements: &[Element]) -> Result<()> {
    add(socket, elements)?.map_err(|f| f.error("publish ports in firewall table inet rrun"))?;
    for (proto, ports, to) in elements.iter().filter(|e| e.translates()).filter_map(Element::translation) {
        if proto == Proto::Udp {
            nl::forget_flows(socket, proto, ports, nl::Towards::Anything { ipv4: to.is_ipv4() })?;
        }
    }
    Ok(())
}

/// The published ports of a container that has ended: their elements, and UDP flows to it, in one go
/// however many ports. What is not there any more is no error.
pub fn retire(socket: &mut Socket, elements: &[Element]) -> Result<()> {
    delete(socket, elements)?;
    let mut containers: Vec<_> = elements.iter().filter_map(Element::translation).collect();
    containers.retain(|(proto, ..)| *proto == Proto::Udp);
    containers.dedup_by_key(|(_, _, to)| *to);
    containers.into_iter().try_for_each(|(proto, _, to)| nl::forget_container(socket, proto, to))
}

/// The reverse of [`publish`], for a container that goes on: connections to these ports end as well.
/// What is not there any more is no error.
pub fn withdraw(socket: &mut Socket, elements: &[Element]) -> Result<()> {
    delete(socket, elements)?;
    for (proto, ports, to) in elements.iter().filter_map(Element::translation) {
        nl::forget_flows(socket, proto, ports, nl::Towards::Container(to))?;
    }
    Ok(())
}

/// Deletes elements; those not there are no error, and neither is a missing table.
pub fn delete(socket: &mut Socket, elements: &[Element]) -> Result<()> {
    if elements.is_empty() {
        return Ok(());
    }
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

/// Does the kernel's table know this network? `None`: not allowed to ask.
pub fn has_network(socket: &mut Socket, network: &Network) -> Result<Option<bool>> {
    match network_elements(network).first() {
        Some(mark) => has(socket, mark),
        None => Ok(Some(true)),
    }
}

/// Is this element in the kernel? `None`: not allowed to ask.
pub fn has(socket: &mut Socket, element: &Element) -> Result<Option<bool>> {
    asked(socket.has_element(TABLE, &element.lower())?)
}

/// Is the table there, with these rules? `None`: not allowed to ask.
pub fn is_loaded(socket: &mut Socket) -> Result<Option<bool>> {
    has(socket, &Element::stamp())
}

/// Both questions at once: is the table there, does it know this network?
pub fn knows(socket: &mut Socket, network: &Network) -> Result<(Option<bool>, Option<bool>)> {
    let Some(mark) = network_elements(network).into_iter().next() else {
        return Ok((is_loaded(socket)?, Some(true)));
    };
    let [table, network] = socket.have_elements(TABLE, [&Element::stamp().lower(), &mark.lower()])?;
    Ok((asked(table)?, asked(network)?))
}

fn asked(answer: std::result::Result<(), i32>) -> Result<Option<bool>> {
    match answer {
        Ok(()) => Ok(Some(true)),
        Err(libc::ENOENT) => Ok(Some(false)),
        Err(libc::EPERM) => Ok(None),
        Err(errno) => {
            Err(Error::os("look for firewall table inet rrun", errno).with_hint("rrun needs Linux 5.10 with nf_tables"))
        }
    }
}
