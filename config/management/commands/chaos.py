import json
import os
import random
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config.management.commands.bench import OTHERS

MUST_BE_ZERO = ("lost", "doubled", "stuck")


class Command(BaseCommand):
    help = (
        "Kill the processes of a site at random moments while people submit and work is being "
        "done, and count what was acknowledged and is not there. The site has data of its own "
        "that are thrown away afterwards. 200 kills take about a quarter of an hour."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--kills", type=int, default=200, help="Default 200.")
        parser.add_argument("--seed", type=int, help="Of what is killed when; drawn unless given.")
        parser.add_argument("--pause", type=float, default=4.0, help="Seconds between two kills.")
        parser.add_argument("--people", type=int, default=8, help="Who submit (default 8).")
        parser.add_argument("--items", type=int, default=20_000, help="Of their campaign.")
        parser.add_argument(
            "--settle", type=float, default=240.0, help="Seconds to finish after the last kill."
        )
        parser.add_argument(
            "--json", metavar="FILE", default="chaos.json", help="Default chaos.json."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        names = ("kills", "seed", "pause", "people", "items", "settle")
        orders = {name: options[name] for name in names}
        if orders["seed"] is None:
            orders["seed"] = random.SystemRandom().randrange(10**6)
        found = self._kill(orders)
        Path(options["json"]).write_text(json.dumps(found, indent=1) + "\n")
        for key, value in found.items():
            self.stdout.write(f"{key:28}{value:>12,}")
        wrong = {key: found[key] for key in MUST_BE_ZERO if found[key]}
        if wrong:
            raise CommandError(f"Not everything is well: {wrong}. What it is stands above.")
        self.stdout.write(f"Nothing lost, doubled or stuck; written to {options['json']}")

    def _kill(self, orders: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="oneloop-chaos-") as folder:
            into = Path(folder) / "found.json"
            environment = {k: v for k, v in os.environ.items() if k not in OTHERS}
            environment |= {
                "ONELOOP_DATA": str(Path(folder) / "data"),
                "WEBHOOK_PRIVATE_ADDRESSES": "1",  # the listener is on this machine
                "OMP_NUM_THREADS": "1",
            }
            command = [sys.executable, "-m", "config.chaos", json.dumps(orders), str(into)]
            if subprocess.run(command, cwd=settings.BASE_DIR, env=environment).returncode != 0:
                raise CommandError("It broke off; what went wrong stands above.")
            found: dict[str, Any] = json.loads(into.read_text())
        return found
