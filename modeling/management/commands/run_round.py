import time
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.urls import reverse

from generation import console
from generation.models import Policy
from generation.ownership import JobState
from modeling import options, progress_line, round_decisions, round_report, rounds, runs
from modeling.models import Round, RoundStep

POLL_SECONDS = 1.0


class Command(console.Command):
    help = (
        "Turn the loop: generate, label, train the reward model, gate, train the policy, compare "
        "it with its parent on held-out sources, gate, promote. A gate that stays shut is a "
        "result, not an error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--rounds", type=int, default=1, help="One after the other (default 1)."
        )
        parser.add_argument(
            "--seeds",
            type=int,
            default=1,
            help="Independent repetitions of one round from the same models. With more than one "
            "nothing is promoted: they measure.",
        )
        parser.add_argument("--seed", type=int, default=0, help="The first seed (default 0).")
        parser.add_argument("--annotators", choices=["human", "simulated"], default="human")
        parser.add_argument("--noise", type=float, help="Slips of simulated annotators (0.05).")
        parser.add_argument(
            "--resume", action="store_true", help="Go on with the open round, failed steps too."
        )
        parser.add_argument(
            "--keep-going",
            action="store_true",
            help="Measure on after a gate that stayed shut; nothing is promoted then.",
        )
        options.add_settings(parser)
        console.add_json(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        if given["rounds"] < 1 or given["seeds"] < 1:
            raise CommandError("--rounds and --seeds must be at least 1.")
        if given["rounds"] > 1 and given["seeds"] > 1:
            raise CommandError("Give --rounds or --seeds: repetitions do not build on each other.")
        config = self._config(given)
        if given["annotators"] == "simulated" and not Policy.objects.exists():
            self.stderr.write("The database is empty: loading the starter project.")
            call_command("load_starter", stdout=self.stderr)
        reports, turned = [], self._before(given)
        over_rounds: list[dict[str, Any]] = []
        for number in range(max(given["rounds"], given["seeds"])):
            round_ = self._start(given, config, number)
            if not self._work(round_):
                return
            self._print(round_)
            reports.append(round_report.report(round_))
            turned.append(round_)
            figures: dict[str, Any] = {"seeds": given["seeds"], "rounds": reports}
            if given["seeds"] == 1:
                over_rounds = round_report.usable_over_rounds(turned)
                figures["usable_over_rounds"] = over_rounds
            if given["json"] != "-":  # a file holds the rounds so far
                self.write_json(given["json"], figures)
        if given["json"] == "-":
            self.write_json("-", figures)
        self._print_over_rounds(over_rounds)
        promoted = sum(report["promoted"] for report in reports)
        if given["seeds"] > 1:
            self.stdout.write("Repetitions measure only: nothing was promoted.")
        self.stdout.write(
            self.style.SUCCESS(f"Finished {len(reports)} rounds; {promoted} promoted a policy.")
        )

    def _before(self, given: dict[str, Any]) -> list[Round]:
        """Whoever resumes sees what was reached before as well."""
        if not given["resume"]:
            return []
        return list(Round.objects.filter(finished_at__isnull=False).order_by("number"))

    def _print_over_rounds(self, rows: list[dict[str, Any]]) -> None:
        if not any(row["n"] for row in rows):
            return
        self.stdout.write("\nUsable by ground truth, of the policy that each round left active:")
        options.print_table(
            self.stdout,
            ["round", "policy", "usable", "95 %", "n", "since the start", "95 %", "newly trained"],
            [
                [
                    "start" if row["round"] is None else str(row["round"]),
                    row["policy"] + ("" if row["promoted"] or row["round"] is None else " (kept)"),
                    _percent(row["usable"]),
                    f"{_percent(row['low'])}–{_percent(row['high'])}",
                    str(row["n"]),
                    _percent(row["difference"], signed=True),
                    f"{_percent(row['difference_low'], signed=True)} … "
                    f"{_percent(row['difference_high'], signed=True)}",
                    _percent(row["new"]),
                ]
                for row in rows
            ],
        )
        self.stdout.write("")

    def _config(self, given: dict[str, Any]) -> dict[str, Any]:
        config = options.settings_of(given)
        if given["noise"] is not None:
            config["noise"] = given["noise"]
        if given["keep_going"]:
            config["keep_going"] = True
        if given["seeds"] > 1:
            config["promote"] = False
        try:
            runs.check_settings(reward=config.get("reward", {}), policy=config.get("policy", {}))
        except runs.RunFailed as error:
            raise CommandError(str(error)) from error
        return config

    def _start(self, given: dict[str, Any], config: dict[str, Any], number: int) -> Round:
        found = Round.objects.filter(finished_at__isnull=True).first()
        if given["resume"] and number == 0:
            if found is None:
                raise CommandError("There is no open round to go on with.")
            for step in found.steps.filter(state__in=[JobState.FAILED, JobState.CANCELLED]):
                round_decisions.retry(step)
            return found
        try:
            return rounds.create(
                annotators=given["annotators"], seed=given["seed"] + number, config=config
            )
        except rounds.RoundError as error:
            hint = " Go on with it by --resume." if found else ""
            raise CommandError(f"{error}{hint}") from error

    def _work(self, round_: Round) -> bool:
        """Do the steps here; False when the round waits for people."""
        self.stdout.write(
            f"Round {round_.number}, seed {round_.seed}: from policy '{round_.parent_policy}' and "
            f"reward model '{round_.parent_reward}'"
        )
        announced = None
        while (step := rounds.current_step(round_)) is not None:
            if rounds.waits_for_people(step):
                self._tell_what_it_waits_for(step)
                return False
            if step.state == JobState.FAILED:
                raise CommandError(
                    f"{step.get_name_display()} failed: {step.error} Go on with "
                    f"`run_round --resume`, or cancel the round on its page."
                )
            if announced != step.pk:
                self.stdout.write(f"{step.get_name_display()} …")
                announced = step.pk
            if rounds.execute(step, progress=progress_line.Printer(self.stderr)):
                self._print_step(RoundStep.objects.get(pk=step.pk))
            else:
                time.sleep(POLL_SECONDS)  # a worker has it, or it now waits for people
        round_.refresh_from_db()
        return True

    def _print_step(self, step: RoundStep) -> None:
        if step.state != JobState.SUCCEEDED:
            return
        result = step.result or {}
        gate = ""
        if "passed" in result:
            gate = "passed: " if result["passed"] else "not passed: "
        words = result.get("reason") or result.get("figure") or ""
        self.stdout.write(f"  {gate}{words} ({round_report.seconds(step):.0f} s)")
        if notes := result.get("notes"):
            self.stdout.write(f"  {notes}")

    def _tell_what_it_waits_for(self, step: RoundStep) -> None:
        if step.name != RoundStep.Name.LABEL:
            self.stdout.write(
                f"Round {step.round.number}, {step.get_name_display()}: {step.message} Its page, "
                f"{reverse('modeling:round', args=[step.round.number])}, has what is to be done."
            )
            return
        progress = round_decisions.labelling_progress(step.round)
        host = next(iter(settings.CSRF_TRUSTED_ORIGINS), "http://127.0.0.1:8000")
        self.stdout.write(
            f"Round {step.round.number} waits for labels: {progress.done} of {progress.total} "
            f"sets. Label them at {host}{reverse('annotation:label')}, then go on with "
            "`run_round --resume`; the site's own workers go on by themselves."
        )

    def _print(self, round_: Round) -> None:
        report = round_report.report(round_)
        if round_.reward_model is not None:
            evaluation = round_.reward_model.evaluations.first()
            if evaluation is not None:
                self.stdout.write("")
                options.reward_tables(self.stdout, evaluation.figures)
        if report["usable"] or report["win_tie_lose"]:
            self.stdout.write("")
            options.policy_tables(self.stdout, report)
        self.stdout.write("")
        options.print_table(
            self.stdout,
            ["step", "seconds"],
            [[name, f"{taken:.0f}"] for name, taken in report["seconds"].items()],
        )
        self.stdout.write(f"Round {round_.number}: {round_.outcome}")


def _percent(value: float | None, *, signed: bool = False) -> str:
    return "–" if value is None else f"{100 * value:{'+' if signed else ''}.1f}"
