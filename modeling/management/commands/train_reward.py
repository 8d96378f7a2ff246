from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotation.models import Judgment
from generation import console
from generation.ownership import JobState
from modeling import evaluation, gates, options, progress_line, runs, snapshots
from modeling.models import Snapshot, TrainingRun


class Command(console.Command):
    help = "Train a reward model on the labels that are there, and measure it on held-out ones."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--campaign", help="Labels of this campaign only (name or number).")
        parser.add_argument("--snapshot", metavar="HASH", help="Train on this snapshot.")
        parser.add_argument(
            "--feedback",
            type=float,
            metavar="WEIGHT",
            help="Learn from what became of pictures in production, too, so much as from people.",
        )
        parser.add_argument(
            "--imported",
            type=float,
            metavar="WEIGHT",
            help="Learn from imported preferences, too, so much as from people asked here.",
        )
        parser.add_argument("--parent", help="Start from this reward model (default: the active).")
        parser.add_argument("--resume", metavar="RUN", help="Go on with a run (number or folder).")
        parser.add_argument(
            "--min-judgments",
            type=int,
            default=runs.MIN_JUDGMENTS,
            help=f"Refuse fewer labels than this (default {runs.MIN_JUDGMENTS}).",
        )
        options.add_settings(parser)
        console.add_json(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        try:
            run = self._run(given)
            progress_line.execute(self.stderr, run)
            self._report(run, given)
        except (
            runs.RunFailed,
            snapshots.SnapshotError,
            evaluation.EvaluationError,
        ) as error:
            raise CommandError(str(error)) from error

    def _run(self, given: dict[str, Any]) -> TrainingRun:
        if given["resume"]:
            run = options.find_run(given["resume"], TrainingRun.Kind.REWARD)
            run.retry()
            run.refresh_from_db()
            return run
        config = options.settings_of(given)
        # A wrong setting should not cost the time of a snapshot.
        runs.check_settings(reward=config, policy={})
        parent = options.find_reward(given["parent"])
        snapshot = self._snapshot(given)
        self.stderr.write(f"{snapshot}: {snapshot.counts}")
        return runs.start_reward(
            snapshot=snapshot,
            parent=parent,
            config=config,
            min_judgments=given["min_judgments"],
        )

    def _snapshot(self, given: dict[str, Any]) -> Snapshot:
        weights = ("feedback", "imported")
        if given["snapshot"]:
            for name in weights:
                if given[name] is not None:
                    raise CommandError(f"A snapshot is as it was taken: leave out --{name}.")
            return options.find_snapshot(given["snapshot"])
        for name in weights:
            if given[name] is not None and not 0 < given[name] <= 10:
                raise CommandError(f"--{name} takes a weight above 0, at most 10.")
        judgments = Judgment.objects.current()
        if given["campaign"]:
            campaign = options.find_campaign(given["campaign"])
            judgments = judgments.filter(assignment__item__campaign=campaign)
        left_out = 0 if given["imported"] is None else snapshots.left_out(judgments)
        if left_out:
            self.stderr.write(
                f"{left_out} imported judgments are left out: of held-out sources, or of pictures "
                "that differ in size."
            )
        return snapshots.take(
            judgments, feedback_weight=given["feedback"], imported_weight=given["imported"]
        )

    def _report(self, run: TrainingRun, given: dict[str, Any]) -> None:
        if run.state != JobState.SUCCEEDED:
            raise CommandError(f"{run}: {run.error or run.get_state_display()}")
        model, last, snapshot = run.reward_model, run.parent_reward, run.snapshot
        assert model is not None
        assert last is not None
        assert snapshot is not None
        found = evaluation.compare_rewards(model, last, snapshot, run)
        options.reward_tables(self.stdout, found.new.figures)
        for task, name, reason in model.excluded:
            self.stdout.write(f"left out of the policy's reward: {task} × {name}: {reason}")
        gate = gates.reward_gate(
            new=found.new.figures,
            last=found.last.figures,
            comparison=found.overall,
            excluded=model.excluded,
        )
        verdict = "better than" if gate.passed else "not better than"
        self.stdout.write(f"{verdict} '{last}': {gate.reason}")
        self.write_json(
            given["json"],
            {
                "reward_model": model.name,
                "parent": last.name,
                "run": run.directory,
                "snapshot": snapshot.content_hash,
                "figures": found.new.figures,
                "parent_figures": found.last.figures,
                "comparison": found.overall,
                "excluded": model.excluded,
                "gate": gate.as_dict(),
            },
        )
        self.stdout.write(self.style.SUCCESS(f"Registered reward model '{model}'."))
