"""The servers of a benchmark run: one PostgreSQL, one Redis, and the processes of the measured stack."""
import contextlib, os, pathlib, resource, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PULSE = f"{os.environ.get('CARGO_TARGET_DIR', ROOT / 'target')}/release/pulse"
VENV = ROOT / ".cache/bench-venv/bin"
UNPRIVILEGED_UID = 65534


class Failed(Exception):
    pass


class Servers:
    """Child processes. They are stopped newest first, and the kernel kills them if this process dies."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}

    def start(self, name, command, is_ready, stop=signal.SIGTERM, unprivileged=False, env=(), cwd="/"):
        drop = [f"--reuid={UNPRIVILEGED_UID}", f"--regid={UNPRIVILEGED_UID}", "--clear-groups"] if unprivileged and os.getuid() == 0 else []
        log = self.folder / f"{name}.log"
        with log.open("w") as file:
            child = subprocess.Popen(["setpriv", *drop, "--pdeathsig", stop.name[3:], "--", *map(str, command)],
                                     stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=cwd,
                                     env={**os.environ, **dict(env)}, start_new_session=True)
        self.running[name] = child, stop
        deadline = time.monotonic() + 60
        while not is_ready():
            if child.poll() is not None or time.monotonic() > deadline:
                how = "was not ready within 60 s" if child.poll() is None else f"ended with {child.returncode}"
                raise Failed(f"{name} {how}; its log ends with:\n" + "\n".join(log.read_text().splitlines()[-15:]))
            time.sleep(0.1)

    def stop(self, *names):
        for name in names or list(reversed(self.running)):
            child, how = self.running.pop(name)
            child.send_signal(how)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def cpu_seconds(self):
        """CPU seconds used so far by each server with its children, the load generator, and the rest of the machine."""
        processes = {}
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                processes[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))  # with ended children
        owner = {child.pid: name for name, (child, _) in self.running.items()}
        used = dict.fromkeys(self.running, 0.0)
        for pid, (_, ticks) in processes.items():
            while pid in processes and pid not in owner:
                pid = processes[pid][0]
            if pid in owner:
                used[owner[pid]] += ticks / os.sysconf("SC_CLK_TCK")
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        used["load generator"] = ended.ru_utime + ended.ru_stime
        user, nice, system, _, _, irq, softirq = map(int, pathlib.Path("/proc/stat").read_text().split()[1:8])
        busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
        return {**used, "everything else on the machine": busy - sum(used.values())}


@contextlib.contextmanager
def temporary_servers():
    """Servers, and their folder. Both end with the block, in which a failure ends the program."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pulse-bench-"))
    folder.chmod(0o711)
    servers = Servers(folder)
    try:
        yield servers, folder
    except Failed as failed:
        sys.exit(f"error: {failed}")
    finally:
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command[:2]))} failed:\n" + (done.stderr or done.stdout)[-2000:])
    return done.stdout


def start_datastores(servers, folder):
    """As the project's own development servers: fsync on, append-only file. Returns both ports."""
    postgres_port, redis_port = free_port(), free_port()
    installed = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    initdb = str(installed[-1]) if installed else shutil.which("initdb")
    if not initdb or not shutil.which("redis-server"):
        raise Failed("PostgreSQL or Redis is missing: on Debian, run apt-get install postgresql redis-server")
    for part in ("postgres", "redis"):
        (folder / part).mkdir(mode=0o700)
        if os.getuid() == 0:
            os.chown(folder / part, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
    drop = ["setpriv", f"--reuid={UNPRIVILEGED_UID}", f"--regid={UNPRIVILEGED_UID}", "--clear-groups"] if os.getuid() == 0 else []
    data = folder / "postgres/data"
    run(*drop, initdb, "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-U", "bench", "-D", data,
        cwd="/")
    settings = ["listen_addresses=127.0.0.1", f"port={postgres_port}", f"unix_socket_directories={folder}/postgres",
                "shared_buffers=256MB", "max_wal_size=4GB", "max_connections=200", "fsync=on",
                "shared_preload_libraries=pg_stat_statements"]
    options = [word for setting in settings for word in ("-c", setting)]
    servers.start("postgres", [pathlib.Path(initdb).with_name("postgres"), "-D", data, *options],
                  lambda: listens(postgres_port), stop=signal.SIGINT, unprivileged=True)
    servers.start("redis", ["redis-server", "--bind", "127.0.0.1", "--port", redis_port, "--dir", folder / "redis",
                            "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"],
                  lambda: listens(redis_port), unprivileged=True)
    return postgres_port, redis_port


def start_reference(servers, database, redis, secret):
    """Starts the stack as bench/reference/README.md says. Returns its port, and the roles to stop, in order."""
    cwd, port = ROOT / "bench/reference", free_port()
    env = {"DATABASE_URL": database, "REDIS_URL": redis, "JWT_SECRET": secret}
    run(VENV / "python", "schema.py", cwd=cwd, env={**os.environ, **env})
    api = "app:app --workers 2 --loop uvloop --http httptools --no-access-log".split()
    api = [VENV / "uvicorn", *api, "--port", port]
    servers.start("api", api, lambda: answers(port, "/openapi.json"), env=env, cwd=cwd)
    worker = "-A tasks worker --concurrency 2 --loglevel WARNING".split()
    servers.start("worker", [VENV / "celery", *worker], lambda: True, env=env, cwd=cwd)
    return port, ("worker", "api")


def start_ours(servers, database, redis, secret):
    """Starts three processes with default settings. Returns the port, and the roles to stop, in order."""
    port = free_port()
    env = {"PULSE_DATABASE_URL": database, "PULSE_REDIS_URL": redis, "PULSE_JWT_SECRET": secret, "PULSE_LOG": "warn"}
    run(PULSE, "migrate", env={**os.environ, **env})
    for role in ("api", "worker", "scheduler"):
        admin = free_port()
        listen = {"PULSE_ADMIN_LISTEN": f"127.0.0.1:{admin}", "PULSE_LISTEN": f"127.0.0.1:{port}"}
        servers.start(role, [PULSE, role], lambda: answers(admin, "/readyz"), env={**env, **listen})
    return port, ("scheduler", "worker", "api")
