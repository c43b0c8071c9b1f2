"""Measures both stacks, one after the other, on one private PostgreSQL and Redis, under the same load. See bench/run."""
import datetime, json, os, secrets, sys, time

import psycopg
from servers import PULSE, ROOT, Failed, run, start_datastores, start_ours, start_reference, temporary_servers

SECONDS = float(os.environ.get("BENCH_SECONDS", "15"))
SECRET = secrets.token_hex(32)
RATES = {"ours": 1000, "reference": 300}  # the reference cannot accept 1,000/s on a small machine
STALLED = 90  # seconds without a processed event after which the rest is reported as lost


def measure(name, start, servers, postgres_port, redis):
    server = f"host=127.0.0.1 port={postgres_port} user=bench"
    with psycopg.connect(f"{server} dbname=postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} OWNER pulse")
        port, roles = start(servers, f"postgresql://pulse@127.0.0.1:{postgres_port}/{name}", redis, SECRET)
        token = run(PULSE, "token", "issue", "--user", 1, "--jwt-secret", SECRET).strip()
        with psycopg.connect(f"{server} dbname={name}", autocommit=True) as events:
            def phase(title, seconds, *flags):
                """Posts events, waits until all are processed, and returns rates and costs."""
                print(f"{name}: {title}", file=sys.stderr)
                admin.execute("CHECKPOINT")
                costs = ("SELECT (SELECT sum(calls)::bigint FROM pg_stat_statements WHERE userid = 'pulse'::regrole),"
                         " pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
                last = events.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]
                cpu, (statements, wal), begun = servers.cpu_seconds(), admin.execute(costs).fetchone(), time.monotonic()
                report = json.loads(run(PULSE, "load", "--json", "--url", f"http://127.0.0.1:{port}", "--token", token,
                                        "--connections", 64, "--duration", f"{seconds}s", *flags))
                processed, moved = -1, time.monotonic()
                while True:
                    asked = time.monotonic()
                    query = "SELECT count(*) FILTER (WHERE processed), count(*) FROM events WHERE id > %s"
                    done, rows = events.execute(query, (last,)).fetchone()
                    now = time.monotonic()
                    processed, moved = done, now if done > processed else moved
                    if done == rows or now - moved > STALLED:
                        break
                    time.sleep(max(0.1, 4 * (now - asked)))
                after, (statements_after, wal_after) = servers.cpu_seconds(), admin.execute(costs).fetchone()
                if not rows:
                    raise Failed(f"{name} accepted nothing: {report['refused']}")
                if report["refused"] or done < rows or rows != report["accepted_events"]:
                    print(f"{name}: refused {report['refused']}, {rows - done} never processed, {rows} rows for "
                          f"{report['accepted_events']} accepted", file=sys.stderr)
                return {**report, "processed": done / (moved - begun), "lost": rows - done,
                        "statements": (statements_after - (statements or 0)) / rows, "wal": (wal_after - wal) / rows,
                        "cpu": {part: (after[part] - cpu[part]) / (moved - begun) for part in after}}

            phase("warm-up", 2, "--rate", 100)
            single = phase("single posts", SECONDS)
            batch = phase("batches of 100", SECONDS, "--batch", 100)
            steady = phase(f"{RATES[name]} single posts/s", SECONDS, "--rate", RATES[name])
        servers.stop(*roles)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    return {"single": single, "batch": batch, "steady": steady}


def table(ours, reference, load, versions):
    def row(label, phase, key, form, better):
        mine, theirs = ours[phase][key], reference[phase][key]
        ratio = mine / theirs if better == "higher" else theirs / mine
        return f"| {label} | {mine:{form}} | {theirs:{form}} | {ratio:.1f}× |", ratio

    rows = [row("single posts, accepted, events/s", "single", "accepted_per_second", ",.0f", "higher"),
            row("single posts, end to end, events/s", "single", "processed", ",.0f", "higher"),
            row("batches of 100, accepted, events/s", "batch", "accepted_per_second", ",.0f", "higher"),
            row("batches of 100, end to end, events/s", "batch", "processed", ",.0f", "higher"),
            row("steady rate (a), accepted, events/s", "steady", "accepted_per_second", ",.0f", "higher"),
            row("steady rate (a), accept p50, ms", "steady", "p50_ms", ",.1f", "lower"),
            row("steady rate (a), accept p99, ms", "steady", "p99_ms", ",.1f", "lower"),
            row("single posts, statements per event", "single", "statements", ".2f", "lower"),
            row("single posts, WAL bytes per event", "single", "wal", ",.0f", "lower")]
    p99, kept = ours["steady"]["p99_ms"], ours["steady"]["accepted_per_second"]
    steady = f"{p99:.1f} ms at {kept:,.0f} events/s"
    targets = [("single posts, end to end", "≥ 8× the reference", f"{rows[1][1]:.1f}×", rows[1][1] >= 8),
               ("batches of 100, end to end", "≥ 2× the reference", f"{rows[3][1]:.1f}×", rows[3][1] >= 2),
               ("accept p99 at 1,000 events/s", "< 50 ms", steady, p99 < 50 and kept > 950)]
    problems = [f"- {name}, {phase}: refused {result['refused'] or 'nothing'}, {result['lost']} events never processed"
                for name, stack in (("ours", ours), ("reference", reference))
                for phase, result in stack.items() if result["refused"] or result["lost"]]
    ours_cpu, reference_cpu = ours["single"]["cpu"], reference["single"]["cpu"]
    phases = [*ours.values(), *reference.values()]
    others = max(phase["cpu"]["everything else on the machine"] for phase in phases)
    if others > 0.25:
        problems.append(f"- the machine was busy: other processes used up to {others:.2f} cores during a phase")
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    return "\n".join([
        "# Comparison with the reference stack", "",
        f"Written by `make bench` on {today}: {os.cpu_count()} CPUs shared by all processes and the load generator; "
        f"load average {load:.1f} before the run, {SECONDS:g} s per phase, {versions}.", "",
        "| | PulseBoard Ingest | reference | ratio |", "|---|--:|--:|--:|", *(text for text, _ in rows), "",
        f"(a) {RATES['ours']:,} events/s are offered to PulseBoard Ingest and {RATES['reference']} to the reference stack, "
        "which cannot accept 1,000.",
        "If the reference stack accepts fewer than it is offered, its latencies are those of a growing queue.",
        "End to end: number of events divided by the time from the first post until the last event is processed.", "",
        "| target | required | measured | met |", "|---|---|---|---|",
        *(f"| {title} | {required} | {measured} | {'yes' if met else '**no**'} |"
          for title, required, measured, met in targets), "",
        "| CPU cores used during single posts, end to end | PulseBoard Ingest | reference |", "|---|--:|--:|",
        *(f"| {part} | {used:.2f} | {reference_cpu.get(part, 0):.2f} |" for part, used in ours_cpu.items()), "",
        *(["Problems:", "", *problems, ""] if problems else [])])


def main():
    load = os.getloadavg()[0]
    with temporary_servers() as (servers, folder):
        postgres, redis = start_datastores(servers, folder)
        with psycopg.connect(f"host=127.0.0.1 port={postgres} user=bench dbname=postgres", autocommit=True) as admin:
            admin.execute("CREATE EXTENSION pg_stat_statements")
            admin.execute("CREATE ROLE pulse LOGIN")
            version = admin.execute("SHOW server_version").fetchone()[0].split()[0]
        versions = f"PostgreSQL {version}, {' '.join(run('redis-server', '--version').split()[:3])}"
        reference = measure("reference", start_reference, servers, postgres, f"redis://127.0.0.1:{redis}/0")
        ours = measure("ours", start_ours, servers, postgres, f"redis://127.0.0.1:{redis}/1")
        results = table(ours, reference, load, versions)
        (ROOT / "bench/RESULTS.md").write_text(results)
        print(results)


if __name__ == "__main__":
    main()
