//! A private nginx or HAProxy in front of a test's APIs, with the default settings of its package.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::env::TestEnv;
use crate::host::free_port;
use crate::process::Process;
use crate::wait::eventually;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running proxy. It is killed when this is dropped.
pub struct Proxy {
    /// URL of the proxy.
    pub url: String,
    _child: Child,
}

impl Proxy {
    /// Starts nginx, and waits until it accepts connections.
    ///
    /// # Errors
    /// If it is not installed, or does not start within 20 s.
    pub async fn nginx(env: &TestEnv, upstreams: &[&Process]) -> anyhow::Result<Self> {
        let servers: String = addresses(upstreams).map(|address| format!("server {address};")).collect();
        let folder = env.file("nginx");
        std::fs::create_dir_all(&folder)?;
        let at = |name: &str| folder.join(name).display().to_string();
        // Only the limit of 1 MB is not the default: the API has its own.
        let config = |port| {
            format!(
                "daemon off; pid {}; error_log {} warn; events {{ }}\n\
                 http {{ access_log off; client_body_temp_path {}; proxy_temp_path {}; fastcgi_temp_path {};\n\
                 uwsgi_temp_path {}; scgi_temp_path {}; client_max_body_size 0;\n\
                 upstream pulse {{ {servers} }}\n\
                 server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://pulse; }} }} }}\n",
                at("pid"),
                at("error.log"),
                at("body"),
                at("proxy"),
                at("fastcgi"),
                at("uwsgi"),
                at("scgi"),
            )
        };
        Self::start(env, "nginx", &["-e", "/dev/null", "-c"], config).await
    }

    /// Starts HAProxy, and waits until it accepts connections.
    ///
    /// # Errors
    /// If it is not installed, or does not start within 20 s.
    pub async fn haproxy(env: &TestEnv, upstreams: &[&Process]) -> anyhow::Result<Self> {
        let servers: String = (0..)
            .zip(addresses(upstreams))
            .map(|(number, address)| format!("    server api{number} {address} check observe layer7\n"))
            .collect();
        let config = |port| {
            format!(
                "defaults\n    mode http\n    timeout connect 5s\n    timeout client 50s\n    timeout server 50s\n\
                 frontend clients\n    bind 127.0.0.1:{port}\n    default_backend pulse\nbackend pulse\n{servers}"
            )
        };
        Self::start(env, "haproxy", &["-db", "-f"], config).await
    }

    async fn start(
        env: &TestEnv,
        program: &str,
        args: &[&str],
        config: impl FnOnce(u16) -> String,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let (file, log_file) = (env.file(&format!("{program}.conf")), env.file(&format!("{program}.log")));
        std::fs::write(&file, config(port))?;
        let log = std::fs::File::create(&log_file)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).args(args).arg(&file).kill_on_drop(true);
        command.env("PATH", "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin");
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let listens = async || Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
        let started = eventually("the proxy listens", START_TIMEOUT, listens).await;
        started.with_context(|| format!("on Debian, run `apt-get install {program}`: {}", read(&log_file)))?;
        Ok(Self { url: format!("http://127.0.0.1:{port}"), _child: child })
    }
}

fn addresses<'a>(upstreams: &'a [&Process]) -> impl Iterator<Item = &'a str> {
    upstreams.iter().map(|process| process.address())
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
