from typing import Any

from django.core.management.base import CommandError, CommandParser

from generation import candidates, console, policies
from generation.models import Source, Split, Task
from modeling import evaluation, gates, options, progress_line, runs
from modeling.round_config import RoundConfig


class Command(console.Command):
    help = "Compare a policy with its parent on held-out sources, with the same noise for both."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--policy", help="Name or number (default: the active one).")
        parser.add_argument("--parent", help="Compare with this one (default: its parent).")
        parser.add_argument("--judge", help="Reward model for margins (default: the active one).")
        parser.add_argument("--sources", type=int, default=60, help="Per task (default 60).")
        parser.add_argument("--seed", type=int, default=0, help="Of the noise (default 0).")
        options.add_settings(parser)
        console.add_json(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        policy = options.find_policy(given["policy"])
        parent = options.find_policy(given["parent"]) if given["parent"] else policy.parent
        if parent is None:
            raise CommandError(f"'{policy}' has no parent to compare with; name one by --parent.")
        judge = options.find_reward(given["judge"])
        sampling = self._sampling(given)
        sources: list[Source] = []
        for task in Task.objects.active():
            if Source.objects.usable().filter(task=task, split=Split.HOLDOUT).exists():
                sources += candidates.pick_sources(
                    task, given["sources"], Split.HOLDOUT, given["seed"]
                )
        try:
            runs.check_policy(policy)
            runs.check_policy(parent)
            runs.check_reward(judge)
            found = evaluation.evaluate_policy(
                policy,
                parent,
                sources=sources,
                seed=given["seed"],
                judge=judge,
                sampling=sampling,
                progress=progress_line.Printer(self.stderr),
            )
        except (
            evaluation.EvaluationError,
            runs.RunFailed,
            candidates.CandidateError,
            policies.PolicyError,
            FileNotFoundError,
        ) as error:
            raise CommandError(str(error)) from error
        options.policy_tables(self.stdout, found.figures)
        gate = gates.policy_gate(found.figures, alarm="")
        verdict = "better than" if gate.passed else "not better than"
        self.stdout.write(f"{verdict} '{parent}': {gate.reason}")
        self.write_json(
            given["json"],
            {
                "policy": policy.name,
                "parent": parent.name,
                "seed": given["seed"],
                "figures": found.figures,
                "gate": gate.as_dict(),
            },
        )
        self.stdout.write(
            self.style.SUCCESS(f"Stored evaluation {found.pk} with {len(sources)} pairs.")
        )

    def _sampling(self, given: dict[str, Any]) -> evaluation.Sampling:
        from modeling.rundir import RunError, load_config

        try:
            config = load_config(RoundConfig, {"sampling": options.settings_of(given)})
        except RunError as error:
            raise CommandError(str(error)) from error
        return config.sampling
