"""200 annotators for five minutes: `python -m tests.load` (`make load`).

Starts a site of its own with real pictures, measures one annotator alone, then all of them, and
says whether anything failed and how much longer they wait for the next set than the one did. With
`--label-studio PYTHON`, the Python of an environment that has `label-studio` and `uwsgi`, the same
people do the same to a Label Studio on the same PostgreSQL, which must have pg_trgm: name one with
`PG_BIN=/usr/lib/postgresql/15/bin`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from config.runtime.postgres import Postgres

REPOSITORY = Path(__file__).resolve().parents[2]
# What would lead a process to the user's own data.
OTHERS = {"DATABASE_URL", "CELERY_BROKER_URL", "MEDIA_ROOT", "MEDIA_BACKEND", "PORT"}
PICTURES, SIDE = 200, 512
MOST_TIMES_SLOWER = 3
START_SECONDS = 180


def main() -> int:
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="oneloop-load-") as folder:
        for name in OTHERS:
            os.environ.pop(name, None)
        os.environ |= {
            "ONELOOP_DATA": f"{folder}/data",
            "DJANGO_SETTINGS_MODULE": "config.settings",
        }
        import django

        django.setup()
        found = {"users": asked.users, "think_s": asked.think, "oneloop": _oneloop(asked, folder)}
        if asked.label_studio:
            found["label_studio"] = _label_studio(asked, folder)
    Path(asked.json).write_text(json.dumps(found, indent=1) + "\n")
    return _report(found, Path(asked.json))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300, help="Of the load (default 300).")
    parser.add_argument("--settle", type=float, default=60, help="Until all are at work.")
    parser.add_argument("--alone", type=float, default=45, help="Seconds of one annotator alone.")
    parser.add_argument("--think", type=float, default=10, help="Seconds a set, on average.")
    parser.add_argument("--items", type=int, default=20_000, help="Sets of the campaign.")
    parser.add_argument("--label-studio", metavar="PYTHON", help="Measure it, too.")
    parser.add_argument("--its-seconds", type=float, default=120, help="… for so long.")
    parser.add_argument("--json", metavar="FILE", default="load.json")
    return parser.parse_args()


def _report(found: dict[str, Any], into: Path) -> int:
    print(
        f"\n{found['users']} annotators, {found['think_s']:g} s a set; from submission to next set:"
    )
    for system in ("oneloop", "label_studio"):
        for case in ("alone", "loaded"):
            if one := found.get(system, {}).get(case):
                took = f"p50 {one['p50_ms']:6.0f} ms, p95 {one['p95_ms']:6.0f} ms"
                rate = f"{one['cycles']:7} sets{one['per_second']:7.1f}/s"
                print(f"{system:13}{case:7}{rate}  {took}  failures {one['failures']}")
    alone, loaded = found["oneloop"]["alone"], found["oneloop"]["loaded"]
    times = loaded["p95_ms"] / alone["p95_ms"]
    print(f"p95 under load: {times:.2f} × the one alone (limit {MOST_TIMES_SLOWER})")
    for failure in loaded["examples"] + alone["examples"]:
        print("failed:", failure)
    print(f"Written to {into}")
    return int(times > MOST_TIMES_SLOWER or loaded["failures"] + alone["failures"] > 0)


# OneLoop ------------------------------------------------------------------------------------------


def _oneloop(asked: argparse.Namespace, folder: str) -> dict[str, Any]:
    from django.conf import settings
    from django.db import connections

    from config.bench.cycle import session_of, slugs_of
    from config.bench.site import Site
    from config.bench.world import analyse, make_world
    from config.runtime.postgres import Postgres

    site, postgres = Site(), Postgres(settings.DATA_DIR)
    _say("OneLoop starts …")
    try:
        site.start()
        postgres.acquire()
        _say(f"{PICTURES} pictures, {asked.items:,} sets, {asked.users} people …")
        world = make_world(items=asked.items, people=asked.users, images=_pictures())
        analyse()
        orders = {
            "system": "oneloop",
            "host": f"http://127.0.0.1:{site.port}",
            "campaign": world.campaign.pk,
            "slugs": slugs_of(world.campaign),
            "people": [session_of(world, place) for place in range(asked.users)],
        }
        return _both(asked, orders, Path(folder), asked.seconds)
    finally:
        for one in connections.all(initialized_only=True):
            one.close()
            one.close_pool()  # type: ignore[attr-defined]
        site.stop()
        postgres.release_and_wait()


def _pictures() -> list[Any]:
    """Blurred noise, about as large in bytes as photographs are."""
    import numpy as np
    from PIL import Image as Pillow

    from generation import images

    random = np.random.default_rng(0)
    made = []
    for _ in range(PICTURES):
        coarse = random.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        picture = Pillow.fromarray(coarse).resize((SIDE, SIDE), Pillow.Resampling.BICUBIC)
        made += images.store_all([picture])
    return made


# Label Studio -------------------------------------------------------------------------------------


def _label_studio(asked: argparse.Namespace, folder: str) -> dict[str, Any]:
    from django.conf import settings

    from config.runtime.postgres import Postgres

    postgres = Postgres(settings.DATA_DIR)
    postgres.acquire()
    try:
        return _on_its_database(asked, folder, postgres)
    finally:
        postgres.release_and_wait()


def _on_its_database(asked: argparse.Namespace, folder: str, postgres: Postgres) -> dict[str, Any]:
    import psycopg
    from django.conf import settings

    from config.bench.site import _free_port
    from config.runtime import paths

    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE label_studio")
    python = Path(asked.label_studio).absolute()
    where = "import importlib.util as i; print(i.find_spec('label_studio').origin)"
    home = Path(subprocess.check_output([python, "-c", where], text=True).strip()).parent
    port = _free_port()
    host = f"http://127.0.0.1:{port}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DJANGO")} | {
        "DJANGO_DB": "default",
        "DJANGO_SETTINGS_MODULE": "core.settings.label_studio",
        "POSTGRE_USER": paths.ROLE,
        "POSTGRE_NAME": "label_studio",
        "POSTGRE_HOST": str(paths.socket_directory(paths.postgres_home(settings.DATA_DIR))),
        "BASE_DATA_DIR": f"{folder}/label-studio",
        "LABEL_STUDIO_HOST": host,
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "COLLECT_ANALYTICS": "0",
    }
    _say("Label Studio makes its tables …")
    manage: list[str | Path] = [python, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(manage, cwd=home, env=environment, check=True, stdout=subprocess.DEVNULL)
    slugs = ["consistency", "structure", "text-alignment", "aesthetics"]
    seed: list[str | Path] = [python, Path(__file__).with_name("label_studio_seed.py")]
    seed += [str(asked.users), str(min(asked.items, 20_000)), *slugs]
    said = subprocess.check_output(seed, cwd=home, env=environment, text=True)
    orders = json.loads(said.splitlines()[-1])
    orders |= {"system": "label-studio", "host": host, "slugs": slugs}
    uwsgi: list[str | Path] = [python.with_name("uwsgi"), "--http", f"127.0.0.1:{port}"]
    uwsgi += ["--http-keepalive"]
    uwsgi += ["--master", "--processes", "2", "--module", "core.wsgi", "--die-on-term"]
    uwsgi += ["--disable-logging", "--buffer-size", "32768", "--listen", "100"]
    with _running(uwsgi, home, environment, f"{folder}/uwsgi.log"):
        _wait_for(f"{host}/version")
        return _both(asked, orders, Path(folder), asked.its_seconds)


@contextmanager
def _running(command: list[Any], home: Path, environment: Any, log: str) -> Iterator[None]:
    with open(log, "wb") as out:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=out, stderr=out)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(url: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except OSError:
            time.sleep(0.3)
    raise SystemExit(f"{url} does not answer.")


# Both ---------------------------------------------------------------------------------------------


def _both(
    asked: argparse.Namespace, orders: dict[str, Any], folder: Path, seconds: float
) -> dict[str, Any]:
    _people(orders | {"think": 0.2}, folder, users=1, seconds=5)  # warm
    _say("one annotator alone …")
    alone = _people(orders | {"think": 0.5}, folder, users=1, seconds=asked.alone)
    _say(f"{asked.users} annotators for {seconds:g} s …")
    orders = orders | {"think": asked.think, "settle": asked.settle}
    loaded = _people(orders, folder, users=asked.users, seconds=seconds)
    return {"alone": alone, "loaded": loaded}


def _people(orders: dict[str, Any], folder: Path, *, users: int, seconds: float) -> dict[str, Any]:
    into, file = folder / "measured.json", folder / "orders.json"
    into.unlink(missing_ok=True)
    file.write_text(json.dumps({"settle": 1} | orders | {"into": str(into)}))
    command = [sys.executable, "-m", "locust", "-f", "tests/load/annotators.py", "--headless"]
    command += ["--users", str(users), "--spawn-rate", str(max(1, users / 10))]
    command += [
        "--run-time",
        f"{int(seconds + orders.get('settle', 1))}s",
        "--only-summary",
        "--loglevel",
        "ERROR",
    ]
    command += ["--stop-timeout", "60", "--exit-code-on-error", "0"]
    result = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"LOAD_ORDERS": str(file)},
        capture_output=True,
        text=True,
        check=False,
    )
    if not into.exists():
        raise SystemExit(f"The annotators did not start:\n{result.stderr[-3000:]}")
    measured = json.loads(into.read_text())
    took = measured["seconds"]["cycle"]
    if len(took) < 2:
        raise SystemExit(f"Nobody came to a second set: {measured['failures'][:3]}")
    return {
        "cycles": len(took),
        "per_second": len(took) / seconds,
        "p50_ms": 1000 * median(took),
        "p95_ms": 1000 * quantiles(took, n=20)[-1],
        "longest_ms": 1000 * max(took),
        "pictures": len(measured["seconds"]["picture"]),
        "failures": len(measured["failures"]),
        "examples": measured["failures"][:5],
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
