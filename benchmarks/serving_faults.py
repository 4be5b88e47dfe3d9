"""A served model under load with malformed requests, clients that hang up, and processes that are killed.

    python benchmarks/serving_faults.py [--requests 1000] [--out benchmarks/results/serving_faults.json]
    python benchmarks/serving_faults.py --memory 3000     whether memory goes on growing, with plain vLLM beside it

Needs `make serving`, and Linux for /proc and /dev/shm. The bundled model is served by `holitom serve`.

1. Requests: most are good, a fourth is malformed (benchmarks/faulty_requests.py), a tenth is cancelled by its client,
   with 16 in flight. Each good answer is compared with the one given alone. Then: nothing runs or waits, no block of
   the KV cache is in use, and there are as many processes and as much in /dev/shm as before.
2. SIGTERM under load, without and with --shutdown-timeout: what the requests in flight get, what is left.
3. SIGKILL of the engine under load, and of the whole process group: what clients get, what is left.

With --memory: the good requests that plain vLLM can answer, with and without holitom, and the resident memory after
each part of them; as they are, and with oneDNN's caches of what it compiled for each shape (1,024 entries) held small.

The report is written after each; one that is there is continued.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
from faulty_requests import SERVER, Asked, good_requests, malformed_requests, write_films
from safetensors.torch import load_file, save_file
from vllm_server import ENVIRONMENT, Server

from holitom.bench.machine import machine
from holitom.cli.loading import resolve
from holitom.integrations.vllm.launch import find_launcher

IN_FLIGHT = 16
MALFORMED, CANCELLED = 0.25, 0.10
GONE, CUT = "no answer", "cut off"
STOCK, PARTS = "plain vLLM", 8  # parts of the requests after which memory is looked at
SMALL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8", "LRU_CACHE_CAPACITY": "8"}
KV_CACHE = 64 << 20  # bytes: soon in use from end to end, while each first use of a block makes its pages resident


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the phases and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serving_faults.json"))
    parser.add_argument("--memory", type=int, metavar="REQUESTS", help="only look at memory, so many requests each")
    given = parser.parse_args(arguments)
    found = find_launcher()
    report: dict[str, Any] = {
        "requests": given.requests,
        "in_flight": IN_FLIGHT,
        "machine": machine(torch.device("cpu")) | {found.distribution: found.version},
    }
    if given.out.exists():
        report = json.loads(given.out.read_text("utf-8"))
    with tempfile.TemporaryDirectory(prefix="holitom-faults-") as work:
        folder = Path(work)
        write_films(folder)
        phases = {"load": lambda: under_load(folder, given.requests)}
        phases |= {name: functools.partial(ended, folder, *phase) for name, phase in ENDS.items()}
        if given.memory is not None:
            phases = {
                f"memory, {name}{label}": functools.partial(memory, folder, given.memory, name == STOCK, variables)
                for label, variables in (("", {}), (", small caches of oneDNN", SMALL_CACHES))
                for name in ("holitom", STOCK)
            }
        for name, phase in phases.items():
            if name in report:
                continue
            print(name, file=sys.stderr)
            report[name] = phase()
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(given.out)
    if given.memory is not None:
        print(*(f"{name}: {found}" for name, found in report.items() if name in phases), sep="\n")
        return
    complaints = faults(report)
    if complaints:
        raise SystemExit("\n".join(complaints))


def faults(report: dict[str, Any]) -> list[str]:
    """What must not be, in sentences."""
    load = report["load"]
    told = [f"{label}: answered as another request" for label in load["differing"]]
    told += [f"{label}: {answers}" for label, answers in load["good_refused"].items()]
    for label, statuses in load["malformed"].items():
        told += [f"{label}: {status}" for status in statuses if not status.startswith("4")]
    if not load["alive"]:
        told.append("the server ended")
    for name in ("running", "waiting", "kv_cache_usage"):
        if load["after"][name] != 0:
            told.append(f"{name} after the load: {load['after'][name]}")
    if load["after"]["processes"] != load["before"]["processes"]:
        told.append(f"processes: {load['before']['processes']} before, {load['after']['processes']} after")
    for name in ("load", *ENDS):
        lost = name == "sigkill_group"  # nobody is left who could give its shared memory back
        if report[name]["left_processes"] or (report[name]["left_shared_memory"] and not lost):
            told.append(f"{name} leaves {report[name]['left_processes']} {report[name]['left_shared_memory']}")
        told += [f"{name}: {label} answered as another request" for label in report[name].get("differing", [])]
    return told


def as_on_the_hub(folder: Path) -> Path:
    """A copy of the bundled model whose weights have the names that plain vLLM knows."""
    path = folder / "tiny"
    if not path.exists():
        shutil.copytree(resolve("tiny"), path)
        file = path / "model.safetensors"
        weights = {
            name.replace("vision_tower.", "vision_tower.vision_model."): w for name, w in load_file(file).items()
        }
        save_file(weights, file, metadata={"format": "pt"})
    return path


class Served(Server):  # type: ignore[misc]
    """The bundled model; knows its processes and what lies in shared memory because of it."""

    def __init__(self, folder: Path, *more: str, plain: bool = False, **variables: str) -> None:
        words = [sys.executable, "-m", "holitom", "serve", "tiny", "--retention", str(SERVER["retention"]), "--"]
        if plain:
            words = [*find_launcher().words, str(as_on_the_hub(folder))]
        words += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--served-model-name", "tiny"]
        words += ["--allowed-local-media-path", str(folder), *more]
        own = {**ENVIRONMENT, "VLLM_SERVER_DEV_MODE": "1", "OMP_NUM_THREADS": "1", **variables}
        self.shared: set[str] = set()
        super().__init__(words, folder / "log.txt", environment=own)

    def processes(self) -> list[psutil.Process]:
        """Its process and all that stem from it, also where their parent has ended: they share a session."""
        return [process for process in psutil.process_iter() if _session(process) == self.process.pid]

    def note_shared_memory(self) -> int:
        """How many files in /dev/shm its processes have mapped now; :meth:`left` looks for them."""
        now: set[str] = set()
        for process in self.processes():
            with suppress(OSError):
                now |= set(re.findall(r"/dev/shm/\S+", Path(f"/proc/{process.pid}/maps").read_text()))
        self.shared |= now
        return len(now)

    def left(self) -> dict[str, Any]:
        """What is still there after it has ended, half a minute later at most."""
        end = time.monotonic() + 30
        while self.processes() and time.monotonic() < end:
            time.sleep(0.2)
        return {
            "left_processes": sorted(" ".join(each.cmdline())[-60:] or each.name() for each in self.processes()),
            "left_shared_memory": sorted(path for path in self.shared if Path(path).exists()),
        }

    def state(self) -> dict[str, Any]:
        """Processes, memory and requests by the server's own metrics."""
        page = self.get("metrics")

        def metric(name: str) -> float:
            return sum(float(value) for value in re.findall(rf"^vllm:{name}{{[^}}]*}} (\S+)$", page, re.MULTILINE))

        processes = self.processes()
        return {
            "running": metric("num_requests_running"),
            "waiting": metric("num_requests_waiting"),
            "kv_cache_usage": metric("kv_cache_usage_perc"),
            "processes": len(processes),
            "open_files": sum(each.num_fds() for each in processes),
            "resident_mb": round(sum(each.memory_info().rss for each in processes) / 1e6),
            "shared_memory": self.note_shared_memory(),
        }

    def engine(self) -> psutil.Process:
        """The process that runs the model."""
        [found] = [each for each in self.processes() if "EngineCore" in each.name() + " ".join(each.cmdline())]
        return found


def _session(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (ProcessLookupError, PermissionError, psutil.Error):
        return None


def under_load(folder: Path, requests: int) -> dict[str, Any]:
    """The first phase."""
    good, bad = good_requests(folder), malformed_requests(folder)
    order = random.Random(0)
    kinds = order.choices(
        ("malformed", "cancelled", "good"), (MALFORMED, CANCELLED, 1 - MALFORMED - CANCELLED), k=requests
    )
    plan = [(kind, order.choice(bad if kind == "malformed" else good), order.uniform(0, 1)) for kind in kinds]
    with Served(folder) as server:
        alone = asyncio.run(send_all(server, [("good", each, 0.0) for each in good], 1))
        want = {each.label: answer for (_, each, _), answer in zip(plan_of(good), alone, strict=True)}
        asyncio.run(forget(server))
        before = server.state()
        since = time.monotonic()
        answers = asyncio.run(send_all(server, plan, IN_FLIGHT))
        seconds = time.monotonic() - since
        alive = server.alive
        after = settled(server) if alive else {}
        log = server.tail(4000) if not alive else ""
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(60)
        left = server.left()
    malformed: dict[str, Counter[str]] = {}
    refused: dict[str, list[str]] = {}
    differing, compared, retried, largest = [], 0, 0, 0.0
    for (kind, each, _), answer in zip(plan, answers, strict=True):
        if kind == "malformed":
            malformed.setdefault(each.label, Counter())[str(answer["status"])] += 1
        elif kind == "good":
            retried += answer["retries"]
            if answer["status"] != 200:
                refused.setdefault(each.label, []).append(f"{answer['status']} {answer['said'][:200]}")
                continue
            compared += 1
            off = distance(answer["said"], want[each.label]["said"])
            largest = max(largest, off)
            if off > 1e-3:
                differing.append(each.label)
    return {
        "seconds": round(seconds, 1),
        "kinds": dict(Counter(kinds)),
        "good": {"compared": compared, "retries": retried, "largest_logprob_difference": largest},
        "differing": differing,
        "good_refused": refused,
        "malformed": {label: dict(statuses) for label, statuses in sorted(malformed.items())},
        "messages": {
            each.label: str(a["said"])[:300] for (k, each, _), a in zip(plan, answers, strict=True) if k == "malformed"
        },
        "cancelled": dict(Counter(a["status"] for (k, _, _), a in zip(plan, answers, strict=True) if k == "cancelled")),
        "distinct_answers": len({str(answer["said"]) for answer in alone}),
        "alive": alive,
        "before": before,
        "after": after,
        "exit_code": code,
        "log": log,
        **left,
    }


def memory(folder: Path, requests: int, plain: bool, variables: dict[str, str]) -> dict[str, Any]:
    """Megabytes (1e6 bytes) that are resident, at the start and after each part of the requests.

    Args:
        folder: with the films.
        requests: in all.
        plain: vLLM without holitom.
        variables: of the server's environment.
    """
    comparable = ("picture", "text", "film 0 ", "film 4 ", "film 8 ")  # plain vLLM fails on other lengths at once
    good = [each for each in good_requests(folder) if each.label.startswith(comparable)]
    good = [each for each in good if "mm_processor_kwargs" not in each.body]
    order = random.Random(2)
    found: dict[str, list[int]] = {"engine": [], "other processes": []}
    with Served(folder, "--kv-cache-memory-bytes", str(KV_CACHE), plain=plain, **variables) as server:
        for part in range(PARTS + 1):
            chosen = order.choices(good, k=requests // PARTS) if part else good
            answers = asyncio.run(send_all(server, [("good", each, 0.0) for each in chosen], IN_FLIGHT))
            if refused := [answer for answer in answers if answer["status"] != 200]:
                raise SystemExit(f"not answered: {refused[0]}\n{server.tail()}")
            settled(server)
            engine = server.engine()
            resident = {each.pid: each.memory_info().rss for each in server.processes()}
            found["engine"].append(round(resident.pop(engine.pid) / 1e6))
            found["other processes"].append(round(sum(resident.values()) / 1e6))
    return found


def plan_of(good: list[Asked]) -> list[tuple[str, Asked, float]]:
    """All of them once."""
    return [("good", each, 0.0) for each in good]


def settled(server: Served) -> dict[str, Any]:
    """The state once nothing runs any more, half a minute later at most."""
    end = time.monotonic() + 30
    while (state := server.state())["running"] + state["waiting"] + state["kv_cache_usage"] and time.monotonic() < end:
        time.sleep(1)
    return state


def ended(folder: Path, what: str, number: int, more: tuple[str, ...]) -> dict[str, Any]:
    """Ends a part of the server while requests are in flight.

    Args:
        what: "server", "engine" or "group".
        number: of the signal.
        more: arguments of the server.
    """
    good = good_requests(folder)
    plan = [("good", each, 0.0) for each in random.Random(1).choices(good, k=10 * IN_FLIGHT)]
    with Served(folder, *more) as server:
        alone = asyncio.run(send_all(server, plan_of(good), 1))
        want = {each.label: answer for each, answer in zip(good, alone, strict=True)}
        asyncio.run(forget(server))

        async def load_and_end() -> list[dict[str, Any]]:
            done: list[str] = []
            load = asyncio.create_task(send_all(server, plan, IN_FLIGHT, retry=False, done=done))
            while len(done) < IN_FLIGHT:
                await asyncio.sleep(0.05)
            server.note_shared_memory()
            times.append(time.monotonic())
            if what == "group":
                os.killpg(server.process.pid, number)
            else:
                (server.process if what == "server" else server.engine()).send_signal(number)
            return await load

        times: list[float] = []
        answers = asyncio.run(load_and_end())
        end = time.monotonic() + 60
        while server.process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        seconds, code = time.monotonic() - times[0], server.process.poll()
        left = server.left()
    statuses = Counter(str(answer["status"]) for answer in answers)
    differing = []
    for (_, each, _), got in zip(plan, answers, strict=True):
        told = want[each.label]["said"]
        if got["status"] == CUT:
            told = told[: len(got["said"])]
        if got["status"] in (200, CUT) and distance(got["said"], told) > 1e-3:
            differing.append(each.label)
    return {
        "answers": dict(statuses),
        "errors": dict(Counter(answer["said"][:120] for answer in answers if answer["status"] not in (200, CUT, GONE))),
        "differing": differing,
        "seconds_to_end": round(seconds, 1),
        "exit_code": code,
        **left,
    }


ENDS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "sigterm": ("server", signal.SIGTERM, ()),
    "sigterm_with_timeout": ("server", signal.SIGTERM, ("--shutdown-timeout", "30")),
    "sigkill_engine": ("engine", signal.SIGKILL, ()),
    "sigkill_group": ("group", signal.SIGKILL, ()),
}


async def send_all(
    server: Served,
    plan: list[tuple[str, Asked, float]],
    in_flight: int,
    retry: bool = True,
    done: list[str] | None = None,
) -> list[dict[str, Any]]:
    """Sends requests; those called "cancelled" are given up after so many seconds. Notes in ``done`` what has ended."""
    gate = asyncio.Semaphore(in_flight)
    async with httpx.AsyncClient(base_url=server.url, timeout=300 if retry else 60) as client:

        async def one(kind: str, asked: Asked, patience: float) -> dict[str, Any]:
            async with gate:
                if kind != "cancelled":
                    answer = await ask(client, asked, 2 if retry and kind == "good" else 0)
                    if done is not None:
                        done.append(asked.label)
                    return answer
                try:
                    return await asyncio.wait_for(ask(client, asked, 0), patience)
                except asyncio.TimeoutError:
                    return {"status": "cancelled", "said": "", "retries": 0}

        return list(await asyncio.gather(*(one(*each) for each in plan)))


async def ask(client: httpx.AsyncClient, asked: Asked, retries: int) -> dict[str, Any]:
    """The status, and what was said: tokens with their log-probabilities, or a message.

    A status of 500 and above, or no answer, is tried again, as OpenAI's client does.
    """
    for attempt in range(retries + 1):
        try:
            answer = await client.post(
                "/v1/chat/completions", content=asked.content, headers={"content-type": "application/json"}
            )
        except httpx.TransportError:  # the server is gone, or has closed a connection that was idle
            if attempt < retries:
                continue
            return {"status": GONE, "said": "", "retries": attempt}
        if answer.status_code < 500:
            break
    said: Any = answer.text
    if answer.status_code == 200:
        [choice] = answer.json()["choices"]
        said = [(token["token"], token["logprob"]) for token in (choice["logprobs"] or {}).get("content") or []]
        if choice["finish_reason"] == "abort":  # a server that is told to end answers with what it has
            return {"status": CUT, "said": said, "retries": attempt}
    return {"status": answer.status_code, "said": said, "retries": attempt}


async def forget(server: Served) -> None:
    """Empties all caches."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        for cache in ("prefix", "mm", "encoder"):
            (await client.post(f"/reset_{cache}_cache")).raise_for_status()


def distance(got: list[Any], want: list[Any]) -> float:
    """The largest difference of log-probabilities; infinite where the tokens differ."""
    if [token for token, _ in got] != [token for token, _ in want]:
        return float("inf")
    return max((abs(one - other) for (_, one), (_, other) in zip(got, want, strict=True)), default=0.0)


if __name__ == "__main__":
    main()
