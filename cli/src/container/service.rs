//! The network's part in the monitor's loop: DNS, relays, changes while the container runs.

use netstack::sandbox::Sandbox;
use plan::Result;
use runtime::monitor::Service;
use serde_json::{Value, json};
use std::os::fd::RawFd;
use std::time::Duration;

/// `connect` and `disconnect` send it after they have changed the container's endpoints.
pub const REFRESH: &str = "refresh";

/// [`Sandbox`] as the monitor's loop drives it: `runtime` and `netstack` do not know each other.
pub struct Network<'a> {
    sandbox: &'a mut Sandbox,
}

impl Network<'_> {
    pub fn new(sandbox: &mut Sandbox) -> Network<'_> {
        Network { sandbox }
    }
}

impl Service for Network<'_> {
    fn fds(&self, out: &mut Vec<(RawFd, i16)>) {
        let mut interests = Vec::new();
        self.sandbox.fds(&mut interests);
        out.extend(interests.iter().map(|i| {
            let read = if i.read { libc::POLLIN } else { 0 };
            (i.fd, read | if i.write { libc::POLLOUT } else { 0 })
        }));
    }

    fn ready(&mut self, _: RawFd, _: i16) {
        self.sandbox.ready();
    }

    fn timeout(&self) -> Option<Duration> {
        self.sandbox.timeout()
    }

    fn tick(&mut self) {
        self.sandbox.ready();
    }

    fn request(&mut self, request: &Value) -> Option<Result<Value>> {
        request.get(REFRESH)?;
        Some(self.sandbox.refresh().map(|()| json!({})))
    }
}
