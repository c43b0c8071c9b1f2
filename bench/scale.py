"""Measures what an event costs at several rates, and with several APIs. See bench/run."""
import concurrent.futures, datetime, json, os, re, secrets, time

import psycopg
from servers import PULSE, ROOT, Failed, answers, free_port, run, start_datastores, temporary_servers

SECONDS = float(os.environ.get("BENCH_SECONDS", "10"))
PAGE, BEGIN, END = ROOT / "docs/scale.md", "<!-- Written by `make bench-scale`. -->", "<!-- End of what `make bench-scale` writes. -->"
PARTS = ("postgres", "redis", "api", "worker", "scheduler")


class Instance:
    """Processes of one instance, on one database."""

    def __init__(self, servers, postgres_port, redis_port):
        self.servers, self.count, secret = servers, 0, secrets.token_hex(32)
        database = f"postgresql://bench@127.0.0.1:{postgres_port}/pulse"
        self.env = {"PULSE_DATABASE_URL": database, "PULSE_REDIS_URL": f"redis://127.0.0.1:{redis_port}",
                    "PULSE_JWT_SECRET": secret, "PULSE_LOG": "warn"}
        with psycopg.connect(f"host=127.0.0.1 port={postgres_port} user=bench dbname=postgres", autocommit=True) as admin:
            admin.execute("CREATE DATABASE pulse")
        self.database = psycopg.connect(database, autocommit=True)
        self.database.execute("CREATE EXTENSION pg_stat_statements")
        run(PULSE, "migrate", env={**os.environ, **self.env})
        self.token = run(PULSE, "token", "issue", "--user", 1, "--jwt-secret", secret).strip()

    def start(self, role, *flags):
        """Starts a process of a role. Returns its name, and the port on which an API listens."""
        self.count += 1
        name, port, admin = f"{role}-{self.count}", free_port(), free_port()
        listen = {"PULSE_ADMIN_LISTEN": f"127.0.0.1:{admin}", "PULSE_LISTEN": f"127.0.0.1:{port}"}
        self.servers.start(name, [PULSE, role, *flags], lambda: answers(admin, "/readyz"), env={**self.env, **listen})
        return name, port

    def load(self, port, *flags):
        return json.loads(run(PULSE, "load", "--json", "--url", f"http://127.0.0.1:{port}", "--token", self.token, *flags))

    def number(self, query):
        return self.database.execute(query).fetchone()[0]

    def settled(self):
        while self.number("SELECT count(*) FROM tasks"):
            time.sleep(0.1)

    def cpu(self):
        used = dict.fromkeys(PARTS, 0.0)
        for name, seconds in self.servers.cpu_seconds().items():
            if (part := name.partition("-")[0]) in used:
                used[part] += seconds
        return used


def costs(instance, ports, *flags):
    """Posts to all APIs at once and waits until all is processed. Returns the rate and what an event costs."""
    figures = "SELECT sum(calls)::bigint, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint FROM pg_stat_statements"
    instance.database.execute("CHECKPOINT")
    cpu, (statements, wal) = instance.cpu(), instance.database.execute(figures).fetchone()
    with concurrent.futures.ThreadPoolExecutor(len(ports)) as pool:
        flags = ("--duration", f"{SECONDS:g}s", "--connections", max(1, 64 // len(ports)), *flags)
        reports = list(pool.map(lambda port: instance.load(port, *flags), ports))
    instance.settled()
    after, (statements_after, wal_after) = instance.cpu(), instance.database.execute(figures).fetchone()
    events = sum(report["accepted_events"] for report in reports)
    if any(report["refused"] for report in reports):
        raise Failed(f"refused: {reports}")
    return {"rate": sum(report["accepted_per_second"] for report in reports),
            "p99": max(report["p99_ms"] for report in reports), "wal": (wal_after - wal) / events,
            "statements": (statements_after - statements) / events,
            **{part: 1e6 * (after[part] - cpu[part]) / events for part in PARTS}}


COLUMNS = {"events/s": ("rate", ",.0f"), "p99 of a post, ms": ("p99", ".1f"), "statements per event": ("statements", ".2f"),
           "PostgreSQL, µs of CPU per event": ("postgres", ".0f"), "API, µs": ("api", ".0f"), "worker, µs": ("worker", ".0f"),
           "Redis, µs": ("redis", ".0f"), "WAL, bytes per event": ("wal", ",.0f")}


def table(title, rows, without=()):
    columns = {name: column for name, column in COLUMNS.items() if name not in without}
    return [f"| {title} | {' | '.join(columns)} |", f"|---{'|--:' * len(columns)}|",
            *(f"| {name} | {' | '.join(f'{cost[key]:{form}}' for key, form in columns.values())} |" for name, cost in rows)]


def curve(instance):
    (api, port), (worker, _) = instance.start("api"), instance.start("worker")
    costs(instance, [port], "--rate", 100)
    rows = [(f"{rate:,}/s offered", costs(instance, [port], "--rate", rate)) for rate in (250, 1000, 2000, 4000)]
    rows.append(("as many as possible", costs(instance, [port])))
    rows.append(("in batches of 100", costs(instance, [port], "--batch", 100)))
    instance.servers.stop(worker, api)
    return table("posts", rows)


def apis(instance, rate=2000):
    worker, _ = instance.start("worker")
    rows = []
    for number in (1, 2, 4):
        started = [instance.start("api") for _ in range(number)]
        rows.append((number, costs(instance, [port for _, port in started], "--rate", rate // number)))
        instance.servers.stop(*(name for name, _ in started))
    instance.servers.stop(worker)
    # Pages are logged as a whole after a checkpoint, which the rows of the former table have made many.
    return table("APIs", rows, without=["WAL, bytes per event"])


def main():
    load = os.getloadavg()[0]
    with temporary_servers() as (servers, folder):
        instance = Instance(servers, *start_datastores(servers, folder))
        instance.start("scheduler")
        today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
        written = [BEGIN, "", f"Measured on {today} with {os.cpu_count()} CPU cores for all processes and the load generator; load average "
                   f"{load:.1f} before.", "", "### More load", "", *curve(instance), "", "### More APIs", "", "2,000 single posts per second in all.", "", *apis(instance), "", END]
        text = PAGE.read_text()
        PAGE.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: "\n".join(written), text, flags=re.S))
        print("\n".join(written))


if __name__ == "__main__":
    main()
