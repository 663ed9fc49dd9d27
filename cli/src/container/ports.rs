//! Published ports of a container that exists: changed in its record, and at once where it runs.

use super::record::Record;
use super::{life, service};
use crate::context::Context;
use netstack::model::{PortBinding, PortSpec};
use netstack::publish;
use plan::{Error, Kind, Result};
use serde::Deserialize;
use serde_json::json;

/// What a monitor says it did.
#[derive(Debug, Default, Deserialize)]
pub struct Answer {
    pub bindings: Vec<PortBinding>,
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Publishes `specs` too.
///
/// # Errors
/// Docker's texts for ports that are taken, or that this container cannot have; nothing is then changed.
pub fn add(ctx: &Context, id: &str, specs: &[PortSpec]) -> Result<Answer> {
    change(ctx, id, service::PUBLISH, specs, |record, _| {
        for spec in specs {
            if !record.host.ports.contains(spec) {
                record.host.ports.push(spec.clone());
            }
        }
        Ok(())
    })
}

/// Publishes what `specs` mean no longer.
///
/// # Errors
/// One of them is not published; none is then closed.
pub fn remove(ctx: &Context, id: &str, specs: &[PortSpec]) -> Result<Answer> {
    change(ctx, id, service::WITHDRAW, specs, |record, closed| {
        if record.host.publish_all {
            // The others of `-P` stay.
            record.host.ports = record.published()?;
            record.host.publish_all = false;
        }
        match closed {
            Some(closed) => closed.iter().for_each(|b| strike(&mut record.host.ports, b)),
            None => {
                for spec in specs {
                    let before = record.host.ports.len();
                    record.host.ports.retain(|own| !publish::is_meant(own, spec));
                    if record.host.ports.len() == before {
                        return Err(publish::not_published(spec, None));
                    }
                }
            }
        }
        Ok(())
    })
}

/// Asks the monitor first, who may refuse, and then changes the record; which alone counts for a
/// container that does not run.
fn change(
    ctx: &Context,
    id: &str,
    verb: &str,
    specs: &[PortSpec],
    mut update: impl FnMut(&mut Record, Option<&[PortBinding]>) -> Result<()>,
) -> Result<Answer> {
    loop {
        may_publish(&Record::load(&ctx.container_dir(id))?)?;
        let answer = if life::is_running(ctx, id)? { Some(ask(ctx, id, verb, specs)?) } else { None };
        let (_, done) = Record::update(ctx, id, |record| {
            // Started since we looked: its monitor has to hear of it. Under the lock nobody starts.
            if answer.is_none() && life::is_running(ctx, id)? {
                return Ok(false);
            }
            update(record, answer.as_ref().map(|a| a.bindings.as_slice()))?;
            Ok(true)
        })?;
        if done {
            return Ok(answer.unwrap_or_default());
        }
    }
}

fn ask(ctx: &Context, id: &str, verb: &str, specs: &[PortSpec]) -> Result<Answer> {
    let stream = runtime::attach::connect(&ctx.state_dir(id))?;
    let answer = runtime::attach::request(&stream, &json!({ verb: specs }))?;
    serde_json::from_value(answer).map_err(|e| Error::system("read the monitor's answer").with_cause(e.to_string()))
}

/// Docker's refusals of `-p` for the modes that have no ports of their own.
fn may_publish(record: &Record) -> Result<()> {
    let refuse = |text: &str, hint: &str| Err(Error::new(Kind::Conflict, text).with_hint(hint));
    match record.host.network_mode.as_str() {
        "host" => refuse(
            "Published ports are discarded when using host network mode",
            "its ports are the host's own: nothing has to be published",
        ),
        "none" => refuse(
            "Published ports are discarded when using none network mode",
            "a container without a network cannot be reached",
        ),
        mode if mode.starts_with("ns:") => refuse(
            &format!("Published ports are discarded when using {mode} network mode"),
            "its network belongs to whoever made the namespace: publish there",
        ),
        _ if record.joined_container().is_some() => refuse(
            "conflicting options: port publishing and the container type network mode",
            "publish on the container whose network is shared",
        ),
        _ => Ok(()),
    }
}

/// Removes from the requests what led to `closed`: the fixed one, or one that chose this port.
fn strike(ports: &mut Vec<PortSpec>, closed: &PortBinding) {
    let within = |outer: (u16, u16), inner: (u16, u16)| outer.0 <= inner.0 && inner.1 <= outer.1;
    let led = |own: &PortSpec| {
        (own.proto, &own.iface) == (closed.proto, &closed.iface)
            && own.host_ip.is_none_or(|ip| ip == closed.host_ip)
            && (closed.routed || own.host.is_none_or(|host| within(host, closed.host)))
            && within(own.container, closed.container)
    };
    // Of a routed network the host port means nothing.
    let fixed = |own: &PortSpec| (closed.routed || own.host == Some(closed.host)) && own.container == closed.container;
    let before = ports.len();
    ports.retain(|own| !(led(own) && fixed(own)));
    if ports.len() < before {
        return;
    }
    let Some(at) = ports.iter().position(led) else { return };
    let own = ports.remove(at);
    // A range whose ports were chosen one by one, of which only some were closed.
    let before = (own.container.0, closed.container.0.wrapping_sub(1));
    let after = (closed.container.1.wrapping_add(1), own.container.1);
    if closed.container.0 > own.container.0 {
        ports.insert(at, PortSpec { container: before, ..own.clone() });
    }
    if closed.container.1 < own.container.1 {
        ports.push(PortSpec { container: after, ..own });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netstack::model::Proto;

    fn specs(flags: &[&str]) -> Vec<PortSpec> {
        flags.iter().flat_map(|f| publish::parse(f).expect(f)).collect()
    }

    fn binding(host_ip: &str, host: (u16, u16), container: (u16, u16)) -> PortBinding {
        let host_ip = host_ip.parse().expect("an address");
        PortBinding { host_ip, host, container, proto: Proto::Tcp, iface: None, from: Vec::new(), routed: false }
    }

    #[test]
    fn what_led_to_a_binding_is_struck() {
        let mut ports = specs(&["8080:80", "80", "127.0.0.1:9000:80", "8080:80/udp"]);
        strike(&mut ports, &binding("0.0.0.0", (8080, 8080), (80, 80)));
        assert_eq!(ports, specs(&["80", "127.0.0.1:9000:80", "8080:80/udp"]));
        strike(&mut ports, &binding("0.0.0.0", (32768, 32768), (80, 80)));
        assert_eq!(ports, specs(&["127.0.0.1:9000:80", "8080:80/udp"]));
        strike(&mut ports, &binding("0.0.0.0", (9000, 9000), (80, 80)));
        assert_eq!(ports.len(), 2, "another address");
    }

    #[test]
    fn the_rest_of_a_scattered_range_stays() {
        let mut ports = specs(&["80-90"]);
        strike(&mut ports, &binding("0.0.0.0", (40000, 40000), (85, 85)));
        assert_eq!(ports, specs(&["80-84", "86-90"]));
        strike(&mut ports, &binding("0.0.0.0", (40001, 40001), (86, 86)));
        assert_eq!(ports, specs(&["80-84", "87-90"]));
    }
}
