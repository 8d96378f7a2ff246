"""From a folder of pictures to a dataset of what people think of their edits.

    python example.py http://localhost:8000 my-photos --task fill

with a token in ONELOOP_TOKEN (page “Account”; scopes read, manage and export). `my-photos` holds
`cat.jpg`, `cat_mask.png` (white: the area to edit) and `cat.txt` (what shall be there). People then
judge at /label/; without them the script waits.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from oneloop import Client, OneLoopError


def run(client: Client, folder: Path, task: str, name: str, out: Path, every: float) -> None:
    pushed = client.sources.push(folder, task=task)
    print(f"{pushed.created} sources are new, {pushed.existing} were there.", file=sys.stderr)
    for refused in pushed.refused:
        print(f"row {refused.row}: {refused.reason}", file=sys.stderr)

    numbers = [number for number in pushed.sources if number is not None]
    order = client.generations.create(sources=numbers)
    made = client.generations.wait(order, every=min(every, 2.0))
    print(f"{made.ready} sets by “{made.policy}” are ready.", file=sys.stderr)

    campaign = client.campaigns.create(name=name, tasks=[task], run=made.id)
    for progress in client.campaigns.watch(campaign, every=every):
        print(f"{progress.judged} of {progress.wanted} turns are judged.", file=sys.stderr)
    client.campaigns.close(campaign)

    ordered = client.exports.create(campaigns=[campaign.name])
    export = client.exports.wait(ordered, every=min(every, 1.0))
    print(client.exports.download(export, out))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", default="fill")
    parser.add_argument("--name", default="From a script")
    parser.add_argument("--out", type=Path, default=Path("dataset.zip"))
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks")
    said = parser.parse_args()
    try:
        with Client(said.url, token=os.environ["ONELOOP_TOKEN"]) as client:
            run(client, said.folder, said.task, said.name, said.out, said.every)
    except KeyError:
        parser.error("put a token into ONELOOP_TOKEN (page “Account”)")
    except OneLoopError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
