//! What a container may use: the flags that `run`, `create` and `update` share, and those of the first two.

use clap::Args;

/// Limits that `update` can change while the container runs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct ResourceFlags {
    /// Memory limit: 512m, 2g
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Limit of memory plus swap; -1 is no limit
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub memory_swap: Option<String>,
    /// Memory the container keeps under pressure
    #[arg(long, value_name = "BYTES")]
    pub memory_reservation: Option<String>,
    /// Deprecated: the kernel has no such limit any more
    #[arg(long, value_name = "BYTES", hide = true)]
    pub kernel_memory: Option<String>,
    /// Number of processors: 0.5, 2
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// Relative weight among containers (default 1024)
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    pub cpu_shares: Option<u64>,
    /// Microseconds in which --cpu-quota may be used up
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in each period; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// Period of realtime scheduling (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_period: Option<u64>,
    /// Realtime scheduling in each such period (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_runtime: Option<i64>,
    /// Processors it may run on: 0-3, 0,2
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Number of processes; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// Relative weight of disk access, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// The same for one disk (repeatable)
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    pub blkio_weight_device: Vec<String>,
    /// Bytes a second read from a disk (repeatable)
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub device_read_bps: Vec<String>,
    /// Bytes a second written to a disk (repeatable)
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub device_write_bps: Vec<String>,
    /// Reads a second from a disk (repeatable)
    #[arg(long, value_name = "DEVICE:NUMBER")]
    pub device_read_iops: Vec<String>,
    /// Writes a second to a disk (repeatable)
    #[arg(long, value_name = "DEVICE:NUMBER")]
    pub device_write_iops: Vec<String>,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitFlags {
    #[command(flatten)]
    pub resources: ResourceFlags,
    /// How readily memory is swapped out, 0 to 100 (cgroup v1)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub memory_swappiness: Option<i64>,
    /// Let processes wait for memory instead of killing one (cgroup v1)
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub oom_kill_disable: bool,
    /// Preference of the kernel's OOM killer (-1000 to 1000)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub oom_score_adj: Option<i32>,
    /// Resource limit: nofile=1024:2048 (repeatable)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// Cgroup to put the container's own below
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
}

/// Whether the program in the container still does its work.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Health")]
pub struct HealthFlags {
    /// Command that checks the container's health
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between checks: 30s, 1m30s
    #[arg(long, value_name = "DURATION")]
    pub health_interval: Option<String>,
    /// Time that one check may take
    #[arg(long, value_name = "DURATION")]
    pub health_timeout: Option<String>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub health_retries: Option<i64>,
    /// Time after the start in which failures do not count
    #[arg(long, value_name = "DURATION")]
    pub health_start_period: Option<String>,
    /// Time between checks in that period
    #[arg(long, value_name = "DURATION")]
    pub health_start_interval: Option<String>,
    /// Switch the image's HEALTHCHECK off
    #[arg(long)]
    pub no_healthcheck: bool,
}

/// Docker's flags for what rrun does not do. They are known, so that each is refused with its reason,
/// or accepted where its default is what rrun does anyway.
#[derive(Clone, Debug, Default, Args)]
pub struct RefusedFlags {
    #[arg(long, value_name = "REQUEST", hide = true)]
    pub gpus: Option<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    pub runtime: Option<String>,
    #[arg(long, value_name = "KIND", hide = true)]
    pub isolation: Option<String>,
    #[arg(long, value_name = "KEY=VALUE", hide = true)]
    pub storage_opt: Vec<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    pub volume_driver: Option<String>,
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, hide = true)]
    pub disable_content_trust: bool,
    #[arg(long, hide = true)]
    pub use_api_socket: bool,
    #[arg(long, value_name = "NUMBER", hide = true)]
    pub cpu_count: Option<i64>,
    #[arg(long, value_name = "NUMBER", hide = true)]
    pub cpu_percent: Option<i64>,
    #[arg(long, value_name = "BYTES", hide = true)]
    pub io_maxbandwidth: Option<String>,
    #[arg(long, value_name = "NUMBER", hide = true)]
    pub io_maxiops: Option<String>,
}
