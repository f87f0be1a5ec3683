#!/usr/bin/env python3
"""Measures the two relays against nginx in interleaved rounds; prints raw results as JSON lines, then a table.

    run.py BENCH_BIN STACK_BIN SCRATCH [--rounds 3] [--only small,large,...] [--add FILE ...]

BENCH_BIN holds mockllm and llmload, STACK_BIN the relays, SCRATCH is a folder that may be written.
Mock and load run on core 0, the gateway under test on core 1. `--add` counts an earlier run's JSON lines in;
with `--rounds 0` nothing is measured. nginx runs first and last in each round; a ratio is to the mean of the two.
"""
import argparse, json, os, pathlib, socket, statistics, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent
MOCK = 23100
LOADS = {
    "small": "--conns 64 --body-size 500 --warmup 0.7 --duration 3",
    "large": "--conns 64 --body-size 200000 --warmup 0.7 --duration 3",
    "burst": "--conns 16 --stream --events 500 --warmup 0.7 --duration 3",
    "paced": "--conns 200 --stream --events 100 --delay-ms 20 --ramp-ms 1900 --warmup 2.2 --duration 4",
    "one": "--conns 1 --body-size 500 --warmup 0.5 --duration 2",
    "lag": "--conns 1 --stream --events 400 --delay-ms 2 --warmup 0.5 --duration 2",
}
SLOW = "--conns 1000 --stream --events 40 --delay-ms 250 --ramp-ms 1500 --warmup 2 --duration 4"
RATE = "--rate 4000 --max-conns 64 --body-size 500 --warmup 1 --duration 4"
VALUE = {
    "small": lambda r: r["cpu"]["s_per_10k_requests"] * 100,
    "large": lambda r: r["cpu"]["s_per_10k_requests"] * 100,
    "burst": lambda r: r["cpu"]["s_per_1m_events"],
    "paced": lambda r: r["cpu"]["s_per_1m_events"],
    "one": lambda r: r["latency_us"]["p50"],
    "lag": lambda r: r["event_lag_us"]["p50"],
    "rate": lambda r: r["cpu"]["s_per_10k_requests"] * 100,
}


def started(port, command, core=None):
    pin = ["taskset", "-c", str(core)] if core is not None else []
    process = subprocess.Popen(pin + [str(c) for c in command], stderr=subprocess.DEVNULL)
    for _ in range(2000):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.005)
    sys.exit(f"nothing listens on {port}")


class Bench:
    def __init__(self, args):
        self.bench, self.stack, self.scratch = (pathlib.Path(p).resolve() for p in (args.bench, args.stack, args.scratch))
        self.rows = []

    def gateway(self, name, core=1, workers=1):
        if name.startswith("nginx"):
            return 23201, started(23201, ["nginx", "-p", self.scratch, "-c", HERE / "nginx.conf"], core)
        kind, _, runtime = name.partition("/")
        command = [self.stack / kind, "--listen", "127.0.0.1:23200", "--upstream", f"127.0.0.1:{MOCK}"]
        return 23200, started(23200, command + ["--workers", workers, "--runtime", runtime or "current"], core)

    def load(self, round_, name, what, flags, port, pid, core=0):
        pin = ["taskset", "-c", str(core)] if core is not None else []
        watch = ["--watch", str(pid)] if pid else []
        busy = os.getloadavg()[0]
        out = subprocess.run(pin + [self.bench / "llmload", "--target", f"127.0.0.1:{port}", "--name", name]
                             + flags.split() + watch, capture_output=True, text=True, check=True).stdout
        row = json.loads(out) | {"round": round_, "what": what, "load_before": busy}
        if row["errors"] or row["incomplete_streams"]:
            print("FAULT", name, what, row["error_kinds"], row["status"], row["incomplete_streams"], file=sys.stderr)
        self.rows.append(row)
        print(json.dumps(row), file=sys.stderr)
        return row

    def relative(self, what, name, base="nginx"):
        value = lambda n: {r["round"]: VALUE[what](r) for r in self.rows if r["what"] == what and r["name"] == n}
        mine, theirs, direct = value(name), value(base), value("direct")
        if base == "nginx" and name == "nginx again":
            pass  # the spread of nginx against itself
        elif base == "nginx":
            theirs = {k: (v + value("nginx again")[k]) / 2 for k, v in theirs.items()}
        if what in ("one", "lag"):  # what the gateway adds to the path without one
            ratios = [(mine[k] - direct[k]) / (theirs[k] - direct[k]) for k in mine if k in theirs and k in direct]
        else:
            ratios = [mine[k] / theirs[k] for k in mine if k in theirs]
        if not ratios:
            return ""
        return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}–{max(ratios):.2f}] ({statistics.median(mine.values()):.1f} µs)"


def main():
    parser = argparse.ArgumentParser()
    for name in ("bench", "stack", "scratch"):
        parser.add_argument(name)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--add", nargs="*", default=[])
    parser.add_argument("--only", default="small,large,burst,paced,one,lag,rss,rate")
    args = parser.parse_args()
    only = args.only.split(",")
    bench = Bench(args)
    for path in args.add:
        rows = [json.loads(line) for line in open(path) if line.startswith("{")]
        bench.rows += [row | {"round": f"{path} {row['round']}"} for row in rows]
    names = ["nginx", "relay-raw", "relay-hyper", "nginx again"]
    layouts = ["relay-raw/current", "relay-raw/steal", "relay-hyper/current", "relay-hyper/steal"]

    mock = started(MOCK, [bench.bench / "mockllm"], 0)
    for k in range(args.rounds):
        for what in (w for w in only if w in LOADS):
            if what in ("one", "lag"):
                bench.load(k, "direct", what, LOADS[what], MOCK, None)
            for name in names:
                port, gateway = bench.gateway(name)
                bench.load(k, name, what, LOADS[what], port, gateway.pid)
                gateway.terminate(), gateway.wait()
        for name in names[:3] if "rss" in only else []:
            port, gateway = bench.gateway(name)
            bench.load(k, name, "rss", SLOW, port, gateway.pid)
            gateway.terminate(), gateway.wait()
    mock.terminate(), mock.wait()
    if "rate" in only:
        mock = started(MOCK, [bench.bench / "mockllm"])
        for k in range(args.rounds):
            for name in layouts:
                port, gateway = bench.gateway(name, None, 2)
                bench.load(k, name, "rate", RATE, port, gateway.pid, None)
                gateway.terminate(), gateway.wait()
        mock.terminate(), mock.wait()

    for name in names[:3]:
        rows = [r for r in bench.rows if r["what"] == "small" and r["name"] == name]
        split = [statistics.median(r["cpu"][k] / r["requests"] * 1e6 for r in rows) for k in ("user_s", "sys_s")] if rows else []
        print(f"small {name}: user, system µs {[round(v, 1) for v in split]}")
    for what in only:
        if what in LOADS:
            print(f"| {what} | " + " | ".join(bench.relative(what, n) for n in names) + " |")
    for name in names[:3] if "rss" in only else []:
        rows = [r["cpu"] for r in bench.rows if r["what"] == "rss" and r["name"] == name]
        idle, peak = (statistics.median(r[k] for r in rows) / 1024 for k in ("rss_before_kb", "rss_peak_kb"))
        print(f"| rss {name} | idle {idle:.1f} MB | 1,000 slow streams {peak:.1f} MB |")
    for name in layouts if "rate" in only else []:
        rows = [r for r in bench.rows if r["what"] == "rate" and r["name"] == name]
        med = lambda f: statistics.median(f(r) for r in rows)
        print(f"| rate {name} | {bench.relative('rate', name, 'relay-raw/current')} | rps {med(lambda r: r['rps']):.0f} |"
              f" p50 {med(lambda r: r['latency_us']['p50']):.0f} µs | p99 {med(lambda r: r['latency_us']['p99']):.0f} µs |")


main()
