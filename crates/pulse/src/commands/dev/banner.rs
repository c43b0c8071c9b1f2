//! The start message of `pulse dev`.

use std::path::Path;
use std::time::Instant;

/// The start message for a person, on stderr.
#[derive(Default)]
pub(crate) struct Banner {
    lines: Vec<String>,
}

impl Banner {
    pub(crate) fn line(&mut self, name: &str, detail: &str, started: Instant) {
        self.lines.push(format!("  {name:<18} {detail:<46} {:>4.1} s", started.elapsed().as_secs_f64()));
    }

    #[expect(clippy::print_stderr, reason = "the banner is for the person at the terminal, not for a log")]
    pub(crate) fn show(
        &self,
        api: &str,
        admin: &str,
        console: &str,
        (token, jwt_secret): (&str, &str),
        data_dir: Option<&Path>,
        process_start: Instant,
    ) {
        let data = match data_dir {
            Some(path) => format!("kept in {}", path.display()),
            None => "temporary, removed on exit   (--data-dir PATH keeps it)".into(),
        };
        let lines = self.lines.join("\n");
        eprintln!(
            "PulseBoard Ingest {version}   development mode, not for production
{lines}
  API                {api}   docs /docs
  Admin              {admin}   /livez /readyz /metrics
  Console            {console}   sign in with the token that `pulse token issue --user me --scope admin` prints
  Worker, scheduler  running in this process
  Data               {data}
Set these variables for `pulse demo`, `pulse load`, `pulse token` and the examples:
  export PULSE_URL={api}
  export PULSE_TOKEN={token}
  export PULSE_JWT_SECRET={jwt_secret}
Post an event, then list the events:
  curl -sS {api}/api/v1/events -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' -d '{{\"event_name\":\"page_view\",\"event_type\":\"engagement\",\"payload\":{{\"page\":\"/home\"}}}}'
  curl -sS {api}/api/v1/events -H 'Authorization: Bearer {token}'
Ready in {seconds:.1} s. Press Ctrl-C to stop everything.",
            version = env!("CARGO_PKG_VERSION"),
            seconds = process_start.elapsed().as_secs_f64(),
        );
    }
}
