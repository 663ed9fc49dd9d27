//! Programs at both ends of a connection, in Python: an echo server that says who called, and a caller.

use crate::Host;
use std::process::{Child, Command, Stdio};

/// A Python one-liner that connects to `addr:port`, and prints what the server sends.
pub fn call(addr: &str, port: u16) -> String {
    format!(
        "python3 -c 'import socket; s=socket.create_connection((\"{addr}\",{port}),3); s.settimeout(3); print(s.recv(200).decode().strip())'"
    )
}

/// A Python one-liner that must fail to connect: prints `refused`, `timeout` or `connected`.
pub fn probe(addr: &str, port: u16) -> String {
    format!(
        "python3 -c '\nimport socket\ntry:\n s=socket.create_connection((\"{addr}\",{port}),1); s.settimeout(1); print(\"connected\" if s.recv(1) else \"closed\")\nexcept TimeoutError: print(\"timeout\")\nexcept OSError as e: print(\"refused\")'"
    )
}

/// The same call over UDP: sends one datagram and prints the answer.
pub fn call_udp(addr: &str, port: u16) -> String {
    let family = if addr.contains(':') { "AF_INET6" } else { "AF_INET" };
    format!(
        "python3 -c 'import socket; s=socket.socket(socket.{family},socket.SOCK_DGRAM); s.settimeout(3); s.sendto(b\"hi\",(\"{addr}\",{port})); print(s.recv(200).decode().strip())'"
    )
}

/// What a busybox container runs to answer each TCP connection on `port` with `text` and the caller's
/// address (busybox nc's -e hands it over as NC_REMOTE… is not in every build, so httpd-like nc loops
/// are avoided: `tcpsvd` gives it in TCPREMOTEADDR).
pub fn serve(port: u16, text: &str) -> String {
    format!("exec tcpsvd -v 0.0.0.0 {port} sh -c 'echo {text} $TCPREMOTEADDR' 2>/dev/null")
}

/// The same on all addresses of both families.
pub fn serve6(port: u16, text: &str) -> String {
    format!("exec tcpsvd -v :: {port} sh -c 'echo {text} $TCPREMOTEADDR' 2>/dev/null")
}

/// A server on the host or the neighbour that answers `text` and the caller's address, until dropped.
pub struct Server(Child);

impl Server {
    pub fn on_host(host: &Host, addr: &str, port: u16, text: &str) -> Server {
        Server::spawn(|c| host.enter(c), addr, port, text)
    }

    pub fn on_neighbour(host: &Host, addr: &str, port: u16, text: &str) -> Server {
        Server::spawn(|c| host.enter_neighbour(c), addr, port, text)
    }

    fn spawn(enter: impl Fn(&mut Command), addr: &str, port: u16, text: &str) -> Server {
        let script = format!(
            "import socket\ns=socket.socket(socket.AF_INET6 if ':' in '{addr}' else socket.AF_INET)\n\
             s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\ns.bind(('{addr}',{port}))\ns.listen(64)\nprint('ready',flush=True)\n\
             while True:\n c,a=s.accept()\n c.sendall(('{text} %s\\n'%a[0]).encode())\n c.close()\n"
        );
        let mut c = Command::new("python3");
        c.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped());
        enter(&mut c);
        let mut child = c.spawn().expect("python3");
        let mut line = String::new();
        use std::io::BufRead;
        std::io::BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("the server's first line");
        assert_eq!(line, "ready\n", "a server on {addr}:{port}");
        Server(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
