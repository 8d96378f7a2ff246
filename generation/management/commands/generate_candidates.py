from typing import Any

from django.core.management.base import CommandError, CommandParser

from generation import candidates, console, policies, sources
from generation.models import CandidateSet, GenerationRun, Policy, Source, Split
from generation.ownership import JobState


class Command(console.Command):
    help = "Make candidate sets for sources of a task, drawn from the task's sampling plan."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--task", help="Slug of the task, for example fill.")
        parser.add_argument("--sets", type=int, default=10, help="How many sets (default 10).")
        parser.add_argument("--policy", help="Name of the policy; the active one by default.")
        parser.add_argument(
            "--mix",
            action="append",
            default=[],
            metavar="POLICY=SHARE",
            help="Draw each candidate's policy from several; repeatable, instead of --policy.",
        )
        parser.add_argument(
            "--split",
            choices=[*Split.values, "any"],
            default=Split.TRAIN,
            help="Which sources to take (default train).",
        )
        parser.add_argument(
            "--tag",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="Only sources that carry this tag.",
        )
        parser.add_argument("--seed", type=int, default=0, help="Decides sources and draws.")
        parser.add_argument("--resume", type=int, metavar="RUN", help="Go on with an order.")
        parser.add_argument(
            "--queue", action="store_true", help="Leave the work to the gpu worker."
        )
        console.add_json(parser, "what was made")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run = _resumed(options["resume"]) if options["resume"] else _ordered(options)
        except (candidates.CandidateError, policies.PolicyError, sources.SourceError) as error:
            raise CommandError(str(error)) from None
        if options["queue"]:
            candidates.ring(run)
        else:
            self.stderr.write(f"Making {run.total} candidates with “{run.policy}” …")
            with console.Meter("candidates", run.total) as meter:
                made = candidates.make(run, progress=meter)
            if not made:
                raise CommandError(f"Order {run.pk} is being made elsewhere, or was cancelled.")
            run.refresh_from_db()
        ready = run.sets.ready().count()
        self.write_json(options["json"], _as_json(run, ready))
        if run.state == JobState.FAILED:
            raise CommandError(f"{run.error}\nGo on with: generate_candidates --resume {run.pk}")
        verb = "Queued" if options["queue"] else "Made"
        self.stdout.write(
            f"{verb} order {run.pk}: {run.sets.count()} sets, {run.total} candidates, "
            f"{ready} sets ready."
        )


def _ordered(options: dict[str, Any]) -> GenerationRun:
    if not options["task"]:
        raise CommandError("Say which task: --task fill.")
    if options["sets"] < 1:
        raise CommandError("--sets must be at least 1.")
    task = sources.task_named(options["task"])
    mix = _mix(options["mix"])
    if mix:
        policy = max(mix, key=lambda one: mix[one])
    else:
        policy = policies.named(options["policy"]) if options["policy"] else policies.active()
    count, seed = options["sets"], options["seed"]
    split = None if options["split"] == "any" else options["split"]
    tags = sources.tags_from(options["tag"])
    picked = candidates.pick_sources(task, count, split, seed, tags)
    # Fewer sources than sets: each serves again, with other draws.
    wanted: list[Source] = [picked[number % len(picked)] for number in range(count)]
    return candidates.order_sets(policy=policy, sources=wanted, seed=seed, mix=mix)


def _mix(said: list[str]) -> dict[Policy, float]:
    mix = {}
    for one in said:
        name, _, share = one.rpartition("=")
        try:
            likely = float(share)
        except ValueError:
            raise CommandError(f"--mix {one}: write POLICY=SHARE, for example base=0.5.") from None
        mix[policies.named(name.strip())] = likely
    return mix


def _resumed(run_id: int) -> GenerationRun:
    run = GenerationRun.objects.filter(pk=run_id).select_related("policy").first()
    if run is None:
        raise CommandError(f"There is no order {run_id}.")
    if run.state == JobState.SUCCEEDED:
        raise CommandError(f"Order {run_id} is finished: there is nothing left to make.")
    run.retry()
    run.refresh_from_db()
    return run


def _as_json(run: GenerationRun, ready: int) -> dict[str, Any]:
    states = run.sets.values_list("state", flat=True)
    return {
        "run": run.pk,
        "state": run.state,
        "error": run.error,
        "policy": run.policy.name,
        "seed": run.seed,
        "candidates": run.total,
        "sets": len(states),
        "ready": ready,
        "failed": sum(state == CandidateSet.State.FAILED for state in states),
    }
