//! Examples at the end of a verb's help: what people do most, as lines to copy.

/// By verb; `network create` for one below another.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "run",
        &[
            "rrun run --rm -it alpine sh                       a shell in a fresh container",
            "rrun run -d --name web -p 8080:80 nginx           a server on the host's port 8080",
            "rrun run --rm -v data:/data -v $PWD:/src:ro IMAGE a volume, and a directory of the host",
            "rrun run --rm --network none alpine ip link show  no network at all",
            "rrun run --explain --rm alpine true               each step, with its microseconds",
        ],
    ),
    ("create", &["rrun create --name web -p 8080:80 nginx", "rrun start web"]),
    ("exec", &["rrun exec -it web sh", "rrun exec -u 0 -w /etc web ls -l"]),
    ("logs", &["rrun logs -f --tail 20 web", "rrun logs --since 10m web"]),
    ("ps", &["rrun ps -a", "rrun ps -q --filter status=exited", "rrun ps --format '{{.Names}}\\t{{.Ports}}'"]),
    ("inspect", &["rrun inspect -f '{{.State.Pid}}' web", "rrun inspect --type volume data"]),
    ("stop", &["rrun stop web", "rrun stop -t 0 web db"]),
    ("rm", &["rrun rm web", "rrun rm -fv web      running too, and its anonymous volumes"]),
    ("update", &["rrun update -m 512m --cpus 1.5 web", "rrun update --restart unless-stopped web"]),
    ("cp", &["rrun cp web:/etc/nginx ./nginx", "rrun cp page.html web:/srv/", "tar c . | rrun cp - web:/srv"]),
    ("commit", &["rrun commit -c 'CMD [\"nginx\"]' web mine:1"]),
    ("port", &["rrun port web", "rrun port add web 8081:80", "rrun port rm web 8081:80"]),
    ("stats", &["rrun stats", "rrun stats --no-stream --format '{{.Name}} {{.MemUsage}}'"]),
    ("events", &["rrun events --since 10m", "rrun events -f event=die --format '{{.Actor.Attributes.name}}'"]),
    ("explain", &["rrun explain run -p 8080:80 IMAGE true", "rrun explain run --script IMAGE true > run.sh"]),
    ("pull", &["rrun pull alpine", "rrun pull --platform linux/arm64 debian:12"]),
    ("push", &["rrun tag mine:1 reg.example/team/mine:1", "rrun push reg.example/team/mine:1"]),
    ("login", &["rrun login -u me --password-stdin reg.example < token"]),
    ("save", &["rrun save -o mine.tar mine:1", "rrun save mine:1 | ssh host rrun load"]),
    ("load", &["rrun load -i mine.tar"]),
    ("import", &["rrun import -c 'CMD [\"sh\"]' rootfs.tar.gz mine:1"]),
    (
        "network create",
        &[
            "rrun network create my-net",
            "rrun network create --subnet 10.9.0.0/24 --ipv6 my-net",
            "rrun network create -d macvlan -o parent=eth0 --subnet 192.168.1.0/24 lan",
        ],
    ),
    ("network connect", &["rrun network connect --alias db my-net postgres"]),
    (
        "volume create",
        &[
            "rrun volume create data",
            "rrun run -v data:/var/lib/data IMAGE",
            "rrun volume create -o type=nfs -o device=:/exports/data -o o=addr=192.0.2.10,rw shared",
        ],
    ),
    ("system prune", &["rrun system prune", "rrun system prune -af --volumes --filter until=24h"]),
    ("completion", &["rrun completion bash > /etc/bash_completion.d/rrun"]),
];

/// Puts the examples below the help of the verbs they belong to.
pub fn furnish(mut command: clap::Command) -> clap::Command {
    for (path, lines) in EXAMPLES {
        let text = format!("Examples:\n  {}", lines.join("\n  "));
        command = match path.split_once(' ') {
            None => command.mut_subcommand(path, |c| c.after_help(text)),
            Some((group, verb)) => command.mut_subcommand(group, |g| g.mut_subcommand(verb, |c| c.after_help(text))),
        };
    }
    command
}

#[cfg(test)]
mod tests {
    use super::EXAMPLES;
    use crate::args::Cli;

    /// What is shown must be understood.
    #[test]
    fn every_example_parses() {
        for line in EXAMPLES.iter().flat_map(|(_, lines)| *lines) {
            let Some(start) = line.find("rrun ") else { continue };
            let line = &line[start..];
            // Up to the remark or what belongs to the shell.
            let end = ["   ", " > ", " < ", " | ", " only", "  "].iter().filter_map(|m| line.find(m)).min();
            let mut words = vec![String::new()];
            let mut quoted = false;
            for c in line[..end.unwrap_or(line.len())].chars() {
                match c {
                    '\'' => quoted = !quoted,
                    ' ' if !quoted => words.push(String::new()),
                    c => words.last_mut().expect("never empty").push(c),
                }
            }
            let parsed = Cli::tree().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{words:?}: {}", parsed.err().map(|e| e.to_string()).unwrap_or_default());
        }
    }
}
