//! Whole plans as text, beside this crate in `tests/golden`: a change of the order of steps, of a
//! word or of a command shows up as a diff. `UPDATE_GOLDEN=1 cargo test -p runtime golden` rewrites
//! them.

use super::{Plan, plan, plan_exec};
use crate::apparmor::{Facts, Loaded};
use crate::cgroup::{Hierarchy, Layout, Unified};
use crate::host::HostFacts;
use crate::join::JoinSpec;
use crate::spec::{AppArmor, Device, Mount, Namespace, Rlimit, Root, RunSpec, Seccomp, User};
use crate::step::Step;
use ::plan::{Action, Site, Spoken};
use std::path::Path;

fn v2() -> HostFacts {
    let controllers = ["cpuset", "cpu", "io", "memory", "pids"].map(String::from).to_vec();
    let unified = Some(Unified { root: "/sys/fs/cgroup".into(), controllers });
    HostFacts {
        cgroup: Layout { v1: Vec::new(), unified },
        caps: crate::caps::ALL,
        thermal_throttle_cpus: 0,
        apparmor: None,
    }
}

fn hybrid() -> HostFacts {
    let hierarchy = |controllers: &[&str], dir: &str| Hierarchy {
        controllers: controllers.iter().map(|c| (*c).to_string()).collect(),
        root: Path::new("/sys/fs/cgroup").join(dir),
        swap: controllers.contains(&"memory"),
    };
    let v1 = vec![
        hierarchy(&["cpu", "cpuacct"], "cpu,cpuacct"),
        hierarchy(&["memory"], "memory"),
        hierarchy(&["devices"], "devices"),
        hierarchy(&["pids"], "pids"),
    ];
    let unified = Some(Unified { root: "/sys/fs/cgroup/unified".into(), controllers: Vec::new() });
    let caps = crate::caps::ALL & !crate::caps::mask(&["SYS_RESOURCE", "NET_RAW"]);
    HostFacts { cgroup: Layout { v1, unified }, caps, thermal_throttle_cpus: 2, apparmor: None }
}

fn spec() -> RunSpec {
    let mut spec = RunSpec::new("c0ffee");
    spec.hostname = Some("c0ffee".into());
    spec.process.args = vec!["sh".into(), "-c".into(), "echo it's on".into()];
    spec.process.env = vec!["PASSWORD=hunter2".into()];
    spec.root = Root::Overlay {
        base: "/var/lib/rrun/layers".into(),
        lower: vec!["2222222222222222".into(), "1111111111111111".into()],
        upper: "/var/lib/rrun/containers/c0ffee/upper".into(),
        work: "/var/lib/rrun/containers/c0ffee/work".into(),
        volatile: true,
        readonly: false,
    };
    spec
}

/// Everything at once that has a step of its own.
fn elaborate() -> RunSpec {
    let mut spec = spec();
    spec.process.tty = true;
    spec.process.console_size = Some((24, 80));
    spec.process.init = true;
    spec.process.no_new_privileges = true;
    spec.process.cwd = "/srv/a b".into();
    spec.process.user = User::Named { spec: "www".into(), additional_groups: Vec::new() };
    spec.process.oom_score_adj = Some(500);
    spec.process.rlimits = vec![Rlimit { name: "NOFILE".into(), soft: 1024, hard: u64::MAX }];
    spec.root = Root::Directory { path: "/bundle/rootfs".into(), readonly: true };
    spec.namespaces.net = Namespace::Path("/proc/42/ns/net".into());
    spec.namespaces.pid = Namespace::Path("/proc/42/ns/pid".into());
    spec.settle_namespaces();
    spec.sysctls.insert("kernel.shmmax".into(), "65536".into());
    spec.mounts.push(Mount {
        kind: "bind".into(),
        source: "/home/data".into(),
        target: "/data".into(),
        options: ["rbind", "rro", "rslave"].map(String::from).to_vec(),
    });
    spec.devices.push(Device {
        path: "/dev/net/tun".into(),
        kind: 'c',
        major: 10,
        minor: 200,
        mode: 0o666,
        uid: 0,
        gid: 0,
        access: "rw".into(),
    });
    spec.cgroup.memory = Some(64 << 20);
    spec.cgroup.cpu_quota = Some(150_000);
    spec.cgroup.cpu_period = Some(100_000);
    spec.cgroup.pids = Some(100);
    spec
}

fn text(plan: &Plan) -> String {
    let spoken: Vec<Spoken> = plan.steps.iter().map(|s| Spoken::of(s, None)).collect();
    let warnings: String = plan.warnings.iter().map(|w| format!("warning: {w}\n")).collect();
    warnings + &::plan::render(&spoken)
}

fn golden(name: &str, plan: &Plan) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let now = text(plan);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let then = std::fs::read_to_string(&path).unwrap();
    if let Some((n, (a, b))) = then.lines().zip(now.lines()).enumerate().find(|(_, (a, b))| a != b) {
        panic!("{name}, line {}:\n  was: {a}\n  is:  {b}\nUPDATE_GOLDEN=1 accepts it", n + 1);
    }
    assert_eq!(then.len(), now.len(), "{name} got longer or shorter");
}

#[test]
fn golden_default_on_v2() {
    golden("default-v2.txt", &plan(&spec(), &v2()).unwrap());
}

#[test]
fn golden_default_on_hybrid() {
    golden("default-hybrid.txt", &plan(&spec(), &hybrid()).unwrap());
}

#[test]
fn golden_everything_on_v2() {
    golden("everything-v2.txt", &plan(&elaborate(), &v2()).unwrap());
}

#[test]
fn golden_privileged() {
    let mut spec = spec();
    spec.make_privileged();
    // Which devices the testing machine has is not the plan's doing.
    spec.devices.clear();
    golden("privileged-v2.txt", &plan(&spec, &v2()).unwrap());
}

#[test]
fn golden_exec() {
    let join = JoinSpec {
        pid: 4711,
        process: spec().process,
        seccomp: Seccomp::Default,
        cgroup: Path::new("rrun").join("c0ffee"),
    };
    golden("exec-hybrid.txt", &plan_exec(&join, &hybrid()).unwrap());
}

#[test]
fn the_same_input_gives_the_same_plan() {
    assert_eq!(plan(&elaborate(), &v2()).unwrap(), plan(&elaborate(), &v2()).unwrap());
}

#[test]
fn plans_survive_json() {
    let plan = plan(&elaborate(), &hybrid()).unwrap();
    let text = serde_json::to_string(&plan.steps).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Step>>(&text).unwrap(), plan.steps);
}

#[test]
fn no_secret_is_spoken() {
    for plan in [plan(&spec(), &v2()).unwrap(), plan(&elaborate(), &hybrid()).unwrap()] {
        assert!(!text(&plan).contains("hunter2"));
    }
}

/// The order that the kernel and the CVEs demand, whatever the options.
#[test]
fn the_order_that_matters() {
    for (spec, facts) in [(spec(), v2()), (spec(), hybrid()), (elaborate(), v2()), (elaborate(), hybrid())] {
        let plan = plan(&spec, &facts).unwrap();
        let at = |what: fn(&Step) -> bool| plan.steps.iter().position(what).unwrap();
        let clone = at(|s| matches!(s, Step::CloneNamespaces { .. }));
        let sites: Vec<Site> = plan.steps.iter().map(Action::site).collect();
        assert!(sites[..=clone].iter().all(|s| *s == Site::Host));
        // What the host makes beside the child, then what the child does.
        let child = at(|s| *s == Step::ShedInheritance);
        assert!(sites[clone + 1..child].iter().all(|s| *s == Site::Host));
        assert!(sites[child..].iter().all(|s| *s == Site::Child));
        assert!(at(|s| matches!(s, Step::CreateCgroup { .. })) < clone, "it is born in its v2 group");
        if let Some(join) = plan.steps.iter().position(|s| matches!(s, Step::JoinCgroup { .. })) {
            assert_eq!(plan.steps[join - 1], Step::AwaitCgroup);
            let shown = plan.steps.iter().position(|s| matches!(s, Step::MountCgroups { .. })).unwrap();
            assert!(join < shown && shown < at(|s| *s == Step::PivotRoot));
        }
        let isolate = at(|s| *s == Step::IsolateMounts);
        let root = at(|s| matches!(s, Step::MountOverlay { .. } | Step::BindRoot { .. }));
        let pivot = at(|s| *s == Step::PivotRoot);
        assert!(isolate < root && root < pivot);
        for (i, step) in plan.steps.iter().enumerate() {
            match step {
                Step::Mount { .. } | Step::BindMount { .. } | Step::Mask { .. } | Step::ReadOnlyPaths { .. } => {
                    assert!(root < i && i < pivot, "{}", step.line());
                }
                Step::LookUpUser { .. } | Step::SetSysctls { .. } => assert!(pivot < i),
                _ => {}
            }
        }
        let filter = at(|s| matches!(s, Step::FilterSystemCalls { .. }));
        let drop = at(|s| matches!(s, Step::DropCapabilities { .. }));
        assert_eq!(filter < drop, !spec.process.no_new_privileges);
        assert!(at(|s| *s == Step::CloseDescriptors) > drop.max(filter));
        assert!(matches!(plan.steps.last(), Some(Step::Exec { .. })));
        assert_eq!(plan.steps[plan.network_at()], Step::AwaitNetwork);
    }
}

/// The profile comes when nothing is left to set up, and is loaded by whoever comes first.
#[test]
fn apparmor_where_the_kernel_has_it() {
    let facts = |default, parser: Option<&str>| {
        let apparmor = Some(Facts { default, parser: parser.map(Into::into) });
        HostFacts { apparmor, ..v2() }
    };
    let (yes, no) = (Loaded::Yes, Loaded::No);
    let enter = |profile: &str, now| Step::EnterAppArmor { profile: profile.into(), now };
    let steps = |spec: &RunSpec, facts: &HostFacts| plan(spec, facts).unwrap();
    let loads = |plan: &Plan| plan.steps.iter().any(|s| matches!(s, Step::LoadAppArmor { .. }));
    let entered = |plan: &Plan| plan.steps.iter().rposition(|s| matches!(s, Step::EnterAppArmor { .. }));

    let ready = steps(&spec(), &facts(yes.clone(), None));
    assert!(!loads(&ready));
    assert_eq!(ready.steps[ready.steps.len() - 2], enter("rrun-default", false));

    let first = steps(&spec(), &facts(no.clone(), Some("/sbin/apparmor_parser")));
    assert_eq!(first.steps[0], Step::LoadAppArmor { parser: "/sbin/apparmor_parser".into(), stale: vec![] });
    assert!(first.steps[0].shell().unwrap().contains("deny mount,"));
    assert!(entered(&first).is_some());

    let mut wish = spec();
    wish.process.init = true;
    let plan = steps(&wish, &facts(yes.clone(), None));
    assert_eq!(plan.steps[plan.steps.len() - 3..][..2], [enter("rrun-default", true), Step::StartReaper]);

    let bare = steps(&spec(), &facts(no.clone(), None));
    assert!(!loads(&bare) && entered(&bare).is_none());
    assert!(bare.warnings[0].contains("package apparmor"), "{:?}", bare.warnings);

    // Another rrun's is replaced, or better than none.
    let another = Loaded::Another { marks: vec!["rrun-default//text-0".into()] };
    let newer = steps(&spec(), &facts(another.clone(), Some("/sbin/apparmor_parser")));
    let stale = vec!["rrun-default//text-0".to_string()];
    assert_eq!(newer.steps[0], Step::LoadAppArmor { parser: "/sbin/apparmor_parser".into(), stale });
    let kept = steps(&spec(), &facts(another, None));
    assert!(!loads(&kept) && entered(&kept).is_some());
    assert!(kept.warnings[0].contains("another rrun's"), "{:?}", kept.warnings);

    wish.process.apparmor = AppArmor::Profile("mine".into());
    assert_eq!(entered(&steps(&wish, &v2())), None);
    assert!(steps(&wish, &v2()).warnings[0].contains("mine"));
    assert!(entered(&steps(&wish, &facts(no.clone(), None))).is_some());

    wish.make_privileged();
    assert_eq!(entered(&steps(&wish, &facts(yes.clone(), None))), None);
}
