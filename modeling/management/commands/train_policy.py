from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotation.models import Judgment
from generation import console
from generation.models import Source
from generation.ownership import JobState
from generation.sources import SourceError, tags_from
from modeling import options, progress_line, runs, snapshots
from modeling.models import RewardModel, Snapshot, TrainingRun
from modeling.policy.config import ALGORITHMS, LABELLED


class Command(console.Command):
    help = "Train the policy against a reward model, on the active tasks' training sources."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--algorithm",
            choices=ALGORITHMS,
            help="frozen: the reference is the parent (Algorithm 1); dynamic: it is the moving "
            "average of the policy (Algorithm 2); refl: ReFL with one scalar score; diffusion_dpo "
            "and sft: from labelled pairs; diffusion_nft: from rewards without gradient. Default: "
            "frozen.",
        )
        parser.add_argument("--parent", help="Start from this policy (default: the active one).")
        parser.add_argument("--reward", help="Rewarded by this model (default: the active one).")
        parser.add_argument(
            "--tag",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="Train on sources that carry this tag only.",
        )
        parser.add_argument(
            "--snapshot",
            metavar="HASH",
            help="Labels for diffusion_dpo and sft (default: those that the reward model learnt "
            "from, or all there are).",
        )
        parser.add_argument("--resume", metavar="RUN", help="Go on with a run (number or folder).")
        options.add_settings(parser)
        console.add_json(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        try:
            run = self._run(given)
            progress_line.execute(self.stderr, run)
        except (runs.RunFailed, snapshots.SnapshotError, SourceError) as error:
            raise CommandError(str(error)) from error
        if run.state != JobState.SUCCEEDED:
            raise CommandError(f"{run}: {run.error or run.get_state_display()}")
        policy = run.policy
        assert policy is not None
        figures = {k: v for k, v in run.result.items() if isinstance(v, int | float | str)}
        options.print_table(
            self.stdout,
            ["at the end", "value"],
            [[k, f"{v:.4g}" if isinstance(v, float) else str(v)] for k, v in figures.items()],
        )
        if reason := runs.alarm(run):
            self.stdout.write(self.style.WARNING(f"Alarm: {reason}"))
        self.write_json(
            given["json"],
            {
                "policy": policy.name,
                "parent": str(policy.parent),
                "run": run.directory,
                "config": run.config,
                "result": run.result,
            },
        )
        self.stdout.write(
            self.style.SUCCESS(
                f"Registered policy '{policy}'. Compare it with its parent by "
                f"`evaluate_policy --policy '{policy}'`; a reward that rose proves nothing."
            )
        )

    def _run(self, given: dict[str, Any]) -> TrainingRun:
        if given["resume"]:
            run = options.find_run(given["resume"], TrainingRun.Kind.POLICY)
            run.retry()
            run.refresh_from_db()
            return run
        config = options.settings_of(given)
        if given["algorithm"]:
            config["algorithm"] = given["algorithm"]
        # A wrong setting should not cost the time of a snapshot.
        runs.check_settings(reward={}, policy=config)
        reward = options.find_reward(given["reward"])
        run = runs.start_policy(
            parent=options.find_policy(given["parent"]),
            reward=reward,
            config=config,
            snapshot=_labels(given, config, reward),
            sources=_tagged(given["tag"]) if given["tag"] else None,
        )
        if run.message:
            self.stderr.write(run.message)
        return run


def _labels(given: dict[str, Any], config: dict[str, Any], reward: RewardModel) -> Snapshot | None:
    """What an algorithm that learns from labels is to learn from; None for the others."""
    if given["snapshot"]:
        return options.find_snapshot(given["snapshot"])
    if config.get("algorithm") not in LABELLED or reward.snapshot is not None:
        return None
    return snapshots.take(Judgment.objects.all())


def _tagged(pairs: list[str]) -> list[Source]:
    found = Source.objects.usable().filter(task__active=True, tags__contains=tags_from(pairs))
    if not found.train().exists():
        raise SourceError(
            f"No training source of an active task is tagged {', '.join(pairs)}. Import more: each "
            "picture falls into the training or the held-out part by its content."
        )
    return list(found.select_related("task", "image", "mask").order_by("pk"))
