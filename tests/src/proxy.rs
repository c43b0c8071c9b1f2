//! A private nginx or HAProxy in front of a test's APIs, with the default settings of its package.

use tokio::process::Child;

use crate::daemon;
use crate::env::TestEnv;
use crate::host::free_port;
use crate::process::Process;

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
        let (port, file) = (free_port()?, env.file(&format!("{program}.conf")));
        std::fs::write(&file, config(port))?;
        let file = file.display().to_string();
        let child = daemon::start(env, program, &[], &[args, &[&file]].concat(), port).await?;
        Ok(Self { url: format!("http://127.0.0.1:{port}"), _child: child })
    }
}

fn addresses<'a>(upstreams: &'a [&Process]) -> impl Iterator<Item = &'a str> {
    upstreams.iter().map(|process| process.address())
}
