//! The verbs that work on networks.

use clap::{ArgAction, Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// List networks
    #[command(visible_alias = "list")]
    Ls(NetworkLsArgs),
    /// Create a network and print its ID
    Create(Box<NetworkCreateArgs>),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(NetworkRmArgs),
    /// Show everything about networks as JSON
    Inspect(NetworkInspectArgs),
    /// Connect a container to a network
    Connect(Box<NetworkConnectArgs>),
    /// Disconnect a container from a network
    Disconnect(NetworkDisconnectArgs),
    /// Remove all networks that no container uses
    Prune(NetworkPruneArgs),
    /// Change a network that exists, and the containers on it at once as far as that can be
    Update(NetworkUpdateArgs),
    /// Compare the host's network with what it should be, and explain what will drop packets
    Check(NetworkCheckArgs),
    /// Write firewall, bridges and cables anew where another program took them away (`check --repair`)
    Reload(NetworkReloadArgs),
    /// Say by the exit code whether a network exists: 0 or 1
    Exists(NetworkExistsArgs),
}

#[derive(Debug, Args)]
pub struct NetworkCheckArgs {
    /// Put right what is rrun's
    #[arg(long)]
    pub repair: bool,
    /// Instead, say what rrun's own firewall has dropped since it was loaded, and why
    #[arg(long, conflicts_with = "repair")]
    pub drops: bool,
    /// table, or json
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, Args)]
pub struct NetworkReloadArgs {
    /// Of all containers, which is what happens anyway
    #[arg(short, long, conflicts_with = "containers")]
    pub all: bool,
    /// Containers that must exist; what others lack is put right with theirs
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct NetworkUpdateArgs {
    /// Add or change a label (repeatable)
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub label_add: Vec<String>,
    /// Remove a label (repeatable)
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
    /// Let the containers' resolvers ask this server (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    pub dns_add: Vec<String>,
    /// Do not ask this server any more (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    pub dns_drop: Vec<String>,
    /// Largest packet, of the bridge and of every interface on it; 0: as for a new network
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub mtu: Option<String>,
    /// Whether containers of this network may talk to each other
    #[arg(long, value_name = "BOOL")]
    pub icc: Option<bool>,
    /// Host address of `-p` without one, for ports published from now on; empty: all addresses
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<String>,
    /// The same by the names of the driver's options (repeatable)
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    pub network: String,
}

#[derive(Debug, Args)]
pub struct NetworkExistsArgs {
    pub network: String,
}

#[derive(Debug, Args)]
pub struct NetworkLsArgs {
    /// Only IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// Print values in full
    #[arg(long)]
    pub no_trunc: bool,
    /// dangling, driver, id, name, label, scope, type (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, Args)]
pub struct NetworkCreateArgs {
    /// Kind of network
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    pub driver: String,
    /// Option of the driver (repeatable)
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    /// Label of the network (repeatable)
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// No way in or out but through its own containers
    #[arg(long)]
    pub internal: bool,
    /// Give containers IPv4 addresses
    #[arg(long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub ipv4: Option<bool>,
    /// Give containers IPv6 addresses
    #[arg(long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub ipv6: Option<bool>,
    /// Let containers be attached by hand
    #[arg(long)]
    pub attachable: bool,
    /// Routing mesh of a swarm
    #[arg(long)]
    pub ingress: bool,
    /// Scope of the network: local
    #[arg(long, value_name = "SCOPE", default_value = "", hide_default_value = true)]
    pub scope: String,
    /// Only settings, for other networks to take
    #[arg(long)]
    pub config_only: bool,
    /// Take the settings of this network
    #[arg(long, value_name = "NETWORK")]
    pub config_from: Option<String>,
    /// Print the ID of a network that has this name already, and succeed
    #[arg(long)]
    pub ignore: bool,
    /// Address manager: default, null (no addresses), or dhcp (a server on the network)
    #[arg(long, value_name = "DRIVER", default_value = "default")]
    pub ipam_driver: String,
    /// Option of the address manager (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub ipam_opt: Vec<String>,
    /// Subnet in CIDR form (repeatable)
    #[arg(long, value_name = "SUBNET")]
    pub subnet: Vec<String>,
    /// Give out addresses of this part of the subnet only (repeatable)
    #[arg(long, value_name = "RANGE")]
    pub ip_range: Vec<String>,
    /// Address of the gateway (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Vec<String>,
    /// DNS server that the network's containers ask, instead of the host's (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<String>,
    /// No names on this network: its containers ask the host's name servers themselves
    #[arg(long, conflicts_with_all = ["dns", "config_only"])]
    pub disable_dns: bool,
    /// Address never to give out (repeatable)
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub aux_address: Vec<String>,
    /// Route of every container on it: DESTINATION,GATEWAY[,METRIC]; blackhole, unreachable or prohibit for a gateway (repeatable)
    #[arg(long, value_name = "ROUTE")]
    pub route: Vec<String>,
    /// Name of the bridge on the host
    #[arg(long, value_name = "NAME")]
    pub interface_name: Option<String>,
    pub name: String,
}

#[derive(Debug, Args)]
pub struct NetworkRmArgs {
    /// Do not complain about networks that do not exist
    #[arg(short, long)]
    pub force: bool,
    #[arg(value_name = "NETWORK", required = true)]
    pub networks: Vec<String>,
}

#[derive(Debug, Args)]
pub struct NetworkInspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Accepted for Docker's sake
    #[arg(short, long)]
    pub verbose: bool,
    #[arg(value_name = "NETWORK", required = true)]
    pub networks: Vec<String>,
}

#[derive(Debug, Args)]
pub struct NetworkConnectArgs {
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<String>,
    /// MAC address
    #[arg(long, value_name = "MAC")]
    pub mac_address: Option<String>,
    /// Additional name on this network (repeatable)
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// Another container under a name of one's own (repeatable)
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    pub link: Vec<String>,
    /// Link-local address, in addition (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    pub link_local_ip: Vec<String>,
    /// Name of the interface in the container
    #[arg(long, value_name = "NAME")]
    pub interface_name: Option<String>,
    /// Option of the driver (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub driver_opt: Vec<String>,
    /// Route through this network: DESTINATION,GATEWAY[,METRIC] (repeatable)
    #[arg(long, value_name = "ROUTE")]
    pub route: Vec<String>,
    /// The network with the highest gives the default gateway
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 0)]
    pub gw_priority: i64,
    pub network: String,
    pub container: String,
}

#[derive(Debug, Args)]
pub struct NetworkDisconnectArgs {
    /// Also forget an endpoint whose container is gone
    #[arg(short, long)]
    pub force: bool,
    pub network: String,
    pub container: String,
}

#[derive(Debug, Args)]
pub struct NetworkPruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// until, label, label! (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}
