//! Real programs from Debian's packages as people run them: nginx, redis, postgres and python start, serve, are
//! limited and killed, start again and keep their data. All of them are in one root file system
//! (`vagrant/programs-rootfs.sh`), of which each test makes its images with `import`, `run` and `commit`.

use rrun_tests::Host;
use rrun_tests::fixture::programs;
use rrun_tests::host::{HOST_LAN, NEIGHBOUR, eventually};

/// An image of the programs with these instructions, after `script` ran in it: a Dockerfile of sorts.
#[track_caller]
fn build(host: &Host, name: &str, script: &str, changes: &[&str]) {
    host.ok(&["run", "--name", "build", "--network", "none", "programs", "sh", "-ec", script]);
    let mut commit = vec!["commit"];
    changes.iter().for_each(|c| commit.extend(["-c", c]));
    host.ok(&[&commit[..], &["build", name]].concat());
    host.ok(&["rm", "build"]);
}

fn build_nginx(host: &Host) {
    build(
        host,
        "nginx",
        "ln -sf /dev/stdout /var/log/nginx/access.log; ln -sf /dev/stderr /var/log/nginx/error.log
         sed -i 's,error_log .*,error_log /var/log/nginx/error.log notice;,' /etc/nginx/nginx.conf
         echo the first page > /var/www/html/index.html",
        &["ENTRYPOINT [\"nginx\"]", "CMD [\"-g\", \"daemon off;\"]", "EXPOSE 80", "STOPSIGNAL SIGQUIT"],
    );
}

fn build_redis(host: &Host) {
    build(
        host,
        "redis",
        "mkdir /data; chown redis:redis /data",
        &[
            "ENTRYPOINT [\"redis-server\", \"--protected-mode\", \"no\", \"--bind\", \"*\", \"--dir\", \"/data\"]",
            "CMD [\"--appendonly\", \"yes\", \"--appendfsync\", \"always\"]",
            "USER redis",
            "WORKDIR /data",
            "VOLUME /data",
            "EXPOSE 6379",
            "HEALTHCHECK --interval=300ms --timeout=30s --retries=100 CMD redis-cli ping | grep -x PONG",
        ],
    );
}

fn build_postgres(host: &Host) {
    build(
        host,
        "postgres",
        r#"
        printf '%s\n' '#!/bin/sh' 'set -e' 'PATH=$(echo /usr/lib/postgresql/*/bin):$PATH' \
          '[ -s "$PGDATA/PG_VERSION" ] || {' \
          '  initdb --auth=trust --no-locale --encoding=UTF8 --no-sync' \
          '  echo "host all all all trust" >>"$PGDATA/pg_hba.conf"' \
          '}' 'exec postgres -c listen_addresses="*" "$@"' >/usr/local/bin/start-postgres
        chmod 755 /usr/local/bin/start-postgres
        install -d -o postgres -g postgres -m 0700 /srv/postgres
        install -d -o postgres -g postgres /run/postgresql"#,
        &[
            "ENTRYPOINT [\"start-postgres\"]",
            "ENV PGDATA=/srv/postgres",
            "VOLUME [\"/srv/postgres\"]",
            "EXPOSE 5432",
            "STOPSIGNAL SIGINT",
        ],
    );
}

/// GET from the LAN neighbour: the answer, headers and all; empty while nobody answers.
fn get(host: &Host, port: u16) -> String {
    let call = format!("exec 3<>/dev/tcp/{HOST_LAN}/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    let ran = host.try_neighbour(&format!("bash -ec \"{}\" 2>/dev/null", call.replace('"', "\\\"")));
    if ran.code == 0 { ran.stdout } else { String::new() }
}

#[track_caller]
fn serves(host: &Host, port: u16, text: &str) {
    eventually(&format!("port {port} answers {text:?}"), || get(host, port).contains(text).then_some(()));
}

fn pid(host: &Host, name: &str) -> String {
    host.ok(&["inspect", "-f", "{{.State.Pid}}", name])
}

/// SIGKILL to the container's first process from the host: nobody's will, as a crash is.
fn crash(host: &Host, name: &str) {
    host.sh(&format!("kill -9 {}", pid(host, name)));
}

#[track_caller]
fn becomes_healthy(host: &Host, name: &str) {
    eventually(&format!("{name} is healthy"), || {
        (host.ok(&["inspect", "-f", "{{.State.Health.Status}}", name]) == "healthy").then_some(())
    });
}

#[test]
fn nginx_serves_logs_reloads_and_comes_back() {
    let host = programs().with_lan();
    build_nginx(&host);
    host.ok(&["network", "create", "front"]);
    let run = ["run", "-d", "--name", "web", "--network", "front", "--restart", "on-failure", "-p", "8080:80"];
    host.ok(&[&run[..], &["nginx"]].concat());
    serves(&host, 8080, "the first page");
    assert!(get(&host, 8080).starts_with("HTTP/1.1 200 OK"));
    // /var/log/nginx/access.log is a symbolic link to /dev/stdout, and the client is the one on the LAN.
    eventually("the request is in the log", || {
        host.ok(&["logs", "web"]).contains(&format!("{NEIGHBOUR} - - [")).then_some(())
    });

    // A reload: the same master, another configuration.
    let master = pid(&host, "web");
    host.ok(&["exec", "web", "sh", "-c", "mkdir /srv/new; echo the second page > /srv/new/index.html"]);
    let config = host.dir.join("tmp/default");
    host.sh(&format!("echo 'server {{ listen 80; root /srv/new; }}' > {}", config.display()));
    host.ok(&["cp", config.to_str().expect("UTF-8"), "web:/etc/nginx/sites-available/default"]);
    assert!(get(&host, 8080).contains("the first page"));
    host.ok(&["kill", "-s", "HUP", "web"]);
    serves(&host, 8080, "the second page");
    assert_eq!(pid(&host, "web"), master);

    // Killed, it comes back: same port, same files.
    crash(&host, "web");
    eventually("it was started again", || {
        (host.ok(&["inspect", "-f", "{{.RestartCount}} {{.State.Running}}", "web"]) == "1 true").then_some(())
    });
    assert_ne!(pid(&host, "web"), master);
    serves(&host, 8080, "the second page");

    // The image's STOPSIGNAL asks nginx to finish what it is at, and that is no failure to start again from.
    host.ok(&["stop", "web"]);
    assert_eq!(host.ok(&["inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "web"]), "0 exited");
    assert!(host.rrun(&["logs", "web"]).stderr.contains("SIGQUIT) received"), "gracefully");
    assert_eq!(get(&host, 8080), "");
    host.ok(&["start", "web"]);
    serves(&host, 8080, "the second page");
    // `kill` is somebody's will: no restart.
    host.ok(&["kill", "web"]);
    host.ok(&["wait", "web"]);
    assert_eq!(host.ok(&["inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "web"]), "137 exited");
}

#[test]
fn nginx_without_privileges_on_a_read_only_root() {
    let host = programs().with_lan();
    build_nginx(&host);
    // As hardening guides have it: nothing to write but memory, no capability but the port's and the users'.
    host.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--read-only",
        "--tmpfs",
        "/var/lib/nginx",
        "--tmpfs",
        "/run:size=1m",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "NET_BIND_SERVICE",
        "--cap-add",
        "SETUID",
        "--cap-add",
        "SETGID",
        "--cap-add",
        "CHOWN",
        "--security-opt",
        "no-new-privileges",
        "-P",
        "nginx",
    ]);
    let port = host.ok(&["port", "web", "80"]);
    let port = port.lines().next().and_then(|l| l.rsplit(':').next()).and_then(|p| p.parse().ok());
    serves(&host, port.expect("the port that -P took"), "the first page");
    let workers = host.ok(&["top", "web", "-o", "pid,user,args"]);
    assert!(workers.lines().any(|l| l.contains(" www-data ") && l.contains("worker process")), "{workers}");
}

#[test]
fn redis_keeps_its_data_on_a_volume() {
    let host = programs();
    build_redis(&host);
    let run = ["run", "-d", "--name", "kv", "--network", "none", "-v", "kvdata:/data", "--memory", "256m"];
    host.ok(&[&run[..], &["redis"]].concat());
    becomes_healthy(&host, "kv");
    assert_eq!(host.ok(&["exec", "kv", "redis-cli", "set", "greeting", "hello"]), "OK");
    // As the image's user, in a volume that was empty and took over its owner.
    assert_eq!(host.ok(&["exec", "kv", "id", "-un"]), "redis");
    assert_eq!(host.ok(&["exec", "kv", "stat", "-c", "%U:%G", "/data"]), "redis:redis");
    assert_eq!(host.ok(&["exec", "kv", "pwd"]), "/data");

    crash(&host, "kv");
    assert_eq!(host.ok(&["wait", "kv"]), "137");
    host.ok(&["start", "kv"]);
    becomes_healthy(&host, "kv");
    assert_eq!(host.ok(&["exec", "kv", "redis-cli", "get", "greeting"]), "hello");

    // Another container with the same volume; `rm -v` leaves volumes that have a name.
    host.ok(&["exec", "kv", "redis-cli", "set", "greeting", "hello again"]);
    host.ok(&["rm", "-f", "-v", "kv"]);
    host.ok(&[&run[..], &["redis"]].concat());
    becomes_healthy(&host, "kv");
    assert_eq!(host.ok(&["exec", "kv", "redis-cli", "get", "greeting"]), "hello again");
    // SIGTERM: redis saves and ends well.
    host.ok(&["stop", "kv"]);
    assert_eq!(host.ok(&["inspect", "-f", "{{.State.ExitCode}}", "kv"]), "0");
    assert!(host.ok(&["logs", "kv"]).contains("User requested shutdown"));
    host.ok(&["rm", "kv"]);
    host.ok(&["volume", "rm", "kvdata"]);
}

#[test]
fn postgres_recovers_from_a_crash() {
    let host = programs();
    build_postgres(&host);
    let run = ["run", "-d", "--name", "db", "--network", "none", "-u", "postgres", "--shm-size", "96m"];
    let run = [&run[..], &["-v", "pgdata:/srv/postgres", "postgres", "-c", "max_connections=20"]].concat();
    host.ok(&run);
    let ready = || host.ok(&["exec", "db", "sh", "-c", "until pg_isready -q; do sleep 0.1; done"]);
    let psql = |sql: &str| host.ok(&["exec", "db", "psql", "-qAtc", sql]);
    ready();
    assert_eq!(psql("show max_connections"), "20");
    assert_eq!(host.ok(&["exec", "db", "sh", "-c", "df --output=size /dev/shm | tail -n1"]).trim(), "98304");
    assert!(host.ok(&["exec", "db", "ls", "/dev/shm"]).contains("PostgreSQL."), "its shared memory is there");
    psql("create table t (n int); insert into t select generate_series(1, 1000)");

    crash(&host, "db");
    assert_eq!(host.ok(&["wait", "db"]), "137");
    host.ok(&["start", "db"]);
    ready();
    assert_eq!(psql("select count(*), sum(n) from t"), "1000|500500");
    let log = |word: &str| host.rrun(&["logs", "db"]).stderr.contains(word);
    assert!(log("automatic recovery in progress"), "{:?}", host.rrun(&["logs", "db"]));

    // The image's STOPSIGNAL is postgres' fast shutdown; SIGTERM would wait for this client.
    host.ok(&["exec", "-d", "db", "psql", "-c", "select pg_sleep(1000)"]);
    eventually("the client is there", || {
        psql("select count(*) from pg_stat_activity where query like '%(1000)' and pid <> pg_backend_pid()")
            .eq("1")
            .then_some(())
    });
    host.ok(&["stop", "-t", "60", "db"]);
    assert_eq!(host.ok(&["inspect", "-f", "{{.State.ExitCode}}", "db"]), "0");
    assert!(log("received fast shutdown request") && log("database system is shut down"));

    host.ok(&["rm", "db"]);
    host.ok(&run);
    ready();
    assert_eq!(psql("select count(*), sum(n) from t"), "1000|500500");
    host.ok(&["rm", "-f", "db"]);
    host.ok(&["volume", "rm", "pgdata"]);
}

#[test]
fn an_application_of_three_containers() {
    let host = programs().with_lan();
    build_redis(&host);
    build_postgres(&host);
    host.ok(&["network", "create", "back"]);
    host.ok(&["run", "-d", "--name", "cache", "--network", "back", "redis"]);
    let db = ["run", "-d", "--name", "db-1", "--network", "back", "--network-alias", "db", "-u", "postgres"];
    host.ok(&[&db[..], &["postgres"]].concat());
    // On a slow machine this is most of the test: it takes the time that it takes.
    host.ok(&["exec", "db-1", "sh", "-c", "until pg_isready -q; do sleep 0.1; done"]);
    let page = "import http.server, redis, psycopg2, time
cache = redis.Redis('cache')
while True:
    try:
        db = psycopg2.connect(host='db', user='postgres', dbname='postgres')
        break
    except psycopg2.OperationalError:
        time.sleep(0.1)
db.autocommit = True
rows = db.cursor()
rows.execute('create table visits (n int)')
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        n = cache.incr('visits')
        rows.execute('insert into visits values (%s)', (n,))
        rows.execute('select count(*) from visits')
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'visit %d, %d kept' % (n, rows.fetchone()[0]))
http.server.HTTPServer(('', 8000), Page).serve_forever()
";
    let app = ["run", "-d", "--init", "--name", "app", "--network", "back", "-p", "80:8000", "programs"];
    host.ok(&[&app[..], &["python3", "-u", "-c", page]].concat());
    eventually("the page is there", || get(&host, 80).starts_with("HTTP/1.0 200").then_some(()));
    let before: u32 = host.ok(&["exec", "cache", "redis-cli", "get", "visits"]).parse().expect("a number");
    let (n, kept) = (before + 1, before + 1);
    assert!(get(&host, 80).ends_with(&format!("visit {n}, {kept} kept")));

    // The cache is replaced while the others run: another container, another address, the same name.
    host.ok(&["rm", "-f", "-v", "cache"]);
    host.ok(&["run", "-d", "--name", "squatter", "--network", "back", "programs", "sleep", "1000"]);
    host.ok(&["run", "-d", "--name", "cache", "--network", "back", "redis"]);
    becomes_healthy(&host, "cache");
    eventually("the new cache is found", || {
        get(&host, 80).ends_with(&format!("visit 1, {} kept", kept + 1)).then_some(())
    });
    // Python as PID 1 would ignore SIGTERM: the init passes it on.
    host.ok(&["stop", "app"]);
    assert_eq!(host.ok(&["inspect", "-f", "{{.State.ExitCode}}", "app"]), "143");
}

#[test]
fn python_is_limited() {
    let host = programs();
    let run = ["run", "--name", "eater", "--network", "none", "-m", "64m", "--memory-swap", "64m", "programs"];
    let eat = "b = []\nwhile True: b.append(b'x' * (1 << 20))";
    assert_eq!(host.rrun(&[&run[..], &["python3", "-c", eat]].concat()).code, 137);
    let state = host.ok(&["inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "eater"]);
    assert_eq!(state, "true 137");
    // The same program is told by the kernel that there are no more processes, and lives on.
    let fork = "import os, signal
n = 0
try:
    while n < 100:
        if os.fork() == 0: signal.pause()
        n += 1
except BlockingIOError:
    print(n, flush=True)
os.kill(0, signal.SIGKILL)";
    let run = ["run", "--rm", "--init", "--network", "none", "--pids-limit", "12", "programs", "python3", "-c", fork];
    let ran = host.rrun(&run);
    assert_eq!((ran.stdout.as_str(), ran.code), ("10\n", 137), "init and itself are the other two: {ran:?}");
    // Two busy processes on a twentieth of a processor are held back in every period.
    let busy = "import os\nos.fork()\nwhile True: pass";
    let run = ["run", "-d", "--name", "busy", "--network", "none", "--cpus", "0.05", "programs", "python3", "-c", busy];
    host.ok(&run);
    let stat = "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null | sed -n 's/^nr_throttled //p'";
    let throttled = || host.ok(&["exec", "busy", "sh", "-c", stat]).parse::<u32>().expect("a number");
    eventually("it is throttled", || (throttled() > 3).then_some(()));
}
