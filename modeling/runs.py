"""Training runs: a row that owns the work, a run directory, and a trainer in its own process."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.models import Judgment
from generation import faults, locations, policies, shared
from generation.models import Policy, Source, Split
from generation.ownership import LeaseLost
from modeling import gates, launch, policy_inputs, run_store, snapshots
from modeling.models import RewardModel, Snapshot, TrainingRun

if TYPE_CHECKING:
    import threading

# Fewer labels than this teach nothing that held-out pairs could show.
MIN_JUDGMENTS = 8
POLL_SECONDS = 0.5
# Settings that a run fills in itself.
REWARD_KEYS = ("snapshot", "base", "adapter")
CONDITIONS = "conditions"  # beside the runs: text embeddings and latents that they share
POLICY_KEYS = ("policy", "reward", "sources", "pairs")
MODULES = {
    TrainingRun.Kind.REWARD: "modeling.reward.train",
    TrainingRun.Kind.POLICY: "modeling.policy.train",
}
Person = User | AnonymousUser | None


class RunFailed(Exception):
    """One readable sentence: what went wrong with a run, and the remedy."""


def root() -> Path:
    return Path(settings.DATA_DIR) / "runs"


# --- starting ---


def reward_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The whole configuration of a reward run; RunFailed names a key that is wrong."""
    from modeling.reward.config import RewardConfig

    return _validated(RewardConfig, values)


def policy_config(values: Mapping[str, Any]) -> dict[str, Any]:
    from modeling.policy.config import PolicyConfig

    return _validated(PolicyConfig, values)


def check_settings(*, reward: Mapping[str, Any], policy: Mapping[str, Any]) -> None:
    """Raise RunFailed for settings that a later run would refuse."""
    _refuse_set_keys(reward, REWARD_KEYS)
    _refuse_set_keys(policy, POLICY_KEYS)
    reward_config({**reward, "snapshot": "-", "base": "-"})
    policy_config({**policy, "policy": {"location": "-"}, "reward": {"location": "-"}})


def _validated(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    import dataclasses

    from modeling.rundir import RunError, load_config

    try:
        config: Any = load_config(cls, values)
    except RunError as error:
        raise RunFailed(str(error)) from error
    # Through JSON, so that the row holds exactly what the trainer will read.
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def _refuse_set_keys(config: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if key in config:
            raise RunFailed(
                f"The configuration key '{key}' is filled in by the run itself; leave it out."
            )


def check_location(what: str, location: str) -> None:
    """Raise RunFailed for a directory that is not there; a hub id is not looked up."""
    if location.startswith(("/", ".", "~", shared.SCHEME)) and not shared.exists(location):
        raise RunFailed(
            _(
                "The checkpoint of %(what)s is missing: there is no directory '%(location)s'. "
                "Restore it, or register the model again with its new location."
            )
            % {"what": what, "location": location}
        )
    try:
        locations.check(location)
    except locations.LocationError as error:
        raise RunFailed(str(error)) from None


def check_policy(policy: Policy) -> None:
    for location in (policy.location, policy.transformer, policy.adapter):
        check_location(_("policy '%(name)s'") % {"name": policy}, location)


def check_reward(model: RewardModel) -> None:
    for location in (model.location, model.adapter):
        check_location(_("reward model '%(name)s'") % {"name": model}, location)


def start_reward(
    *,
    snapshot: Snapshot,
    parent: RewardModel,
    config: Mapping[str, Any],
    min_judgments: int = MIN_JUDGMENTS,
    user: Person = None,
) -> TrainingRun:
    """Queue a reward training on `snapshot` from `parent`; a wrong input leaves nothing behind."""
    _refuse_set_keys(config, REWARD_KEYS)
    check_reward(parent)
    snapshots.check(snapshot)
    values = reward_config(
        {
            **config,
            "snapshot": snapshot.directory,
            "base": parent.location,
            "adapter": parent.adapter,
        }
    )
    picked = snapshot.judgments.filter(outcome=Judgment.Outcome.PICKED)
    count = picked.filter(set__source__split=Split.TRAIN).count()
    if count < min_judgments:
        raise RunFailed(
            f"Too few labels to train a reward model: {snapshot} has {count} judgments with a best "
            f"and a worst on training pictures, and {min_judgments} are needed. Label more sets."
        )
    return _create(
        kind=TrainingRun.Kind.REWARD,
        config=values,
        fill=lambda directory: None,
        snapshot=snapshot,
        parent_reward=parent,
        user=user,
    )


def start_policy(
    *,
    parent: Policy,
    reward: RewardModel,
    config: Mapping[str, Any],
    sources: list[Source] | None = None,
    snapshot: Snapshot | None = None,
    user: Person = None,
) -> TrainingRun:
    """Queue a policy training from `parent` by `reward`, on the active tasks' training sources.

    An algorithm that learns from labelled pairs takes those of `snapshot`, or those that the reward
    model learnt from.
    """
    from modeling.policy.config import LABELLED

    _refuse_set_keys(config, POLICY_KEYS)
    check_policy(parent)
    check_reward(reward)
    if parent.kind == Policy.Kind.EXTERNAL:
        raise RunFailed(f"'{parent}' is an external system: it has no weights to train.")
    values = policy_config(
        {
            "max_pixels": parent.max_pixels,
            # What text encoders and VAE make of a source is the same in every run.
            "condition_cache": f"../{CONDITIONS}",
            **config,
            "policy": parent.spec(),
            "reward": {"location": reward.location, "adapter": reward.adapter},
            "sources": policy_inputs.FILE,
            "pairs": policy_inputs.PAIRS,
        }
    )
    labelled = values["algorithm"] in LABELLED
    snapshot = (snapshot or reward.snapshot) if labelled else None
    if labelled and snapshot is None:
        raise RunFailed(
            f"The algorithm '{values['algorithm']}' learns from labelled pairs, and '{reward}' was "
            "not trained on labels of this project. Give a snapshot of judgments."
        )
    try:
        text_alone = policies.makes_from_text_alone(parent)
        inputs = policy_inputs.collect(reward=reward, sources=sources, text_alone=text_alone)
        if snapshot is not None:
            inputs.pairs = policy_inputs.labelled_pairs(snapshot)
        run = _create(
            kind=TrainingRun.Kind.POLICY,
            config=values,
            fill=lambda directory: policy_inputs.write(directory, inputs),
            parent_policy=parent,
            parent_reward=reward,
            snapshot=snapshot,
            user=user,
        )
    except (policy_inputs.InputError, snapshots.SnapshotError) as error:
        raise RunFailed(str(error)) from error
    run.sources.add(*[int(row["id"]) for row in inputs.rows if row["split"] == Split.TRAIN])
    if inputs.notes:
        run.message = " ".join(inputs.notes)[:500]
        run.save(update_fields=["message"])
    return run


def _create(
    *,
    kind: TrainingRun.Kind,
    config: dict[str, Any],
    fill: Callable[[Path], None],
    user: Person,
    **links: Any,
) -> TrainingRun:
    owner = user if isinstance(user, User) else None
    most = settings.OPEN_RUNS_PER_PERSON
    open_runs = TrainingRun.objects.unfinished().filter(requested_by=owner)
    if owner is not None and open_runs.count() >= most:
        raise RunFailed(
            f"{most} trainings of yours are waiting or running. Wait for one of them, or cancel it."
        )
    directory = root() / f"{kind}-{timezone.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    directory.mkdir(parents=True)
    try:
        fill(directory)
        (directory / "config.json").write_text(json.dumps(config, indent=1))
        return TrainingRun.objects.create(
            kind=kind,
            config=config,
            directory=shared.publish(directory),
            requested_by=owner,
            **links,
        )
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


# --- working ---


def execute(run: TrainingRun, *, progress: Callable[[int, int, str], None] | None = None) -> bool:
    """Do the run's work if it is free; True when this call brought it to an end, good or bad.

    Safe to call twice, and again after a crash: the trainer goes on from its newest checkpoint, and
    the result is registered once, under the row's fencing token.
    """
    from generation import loaded
    from modeling import judging

    if not run.claim():
        return False
    try:
        with run.heartbeat() as lost:
            loaded.release()
            judging.release()
            _train(run, lost, progress)
            _register(run)
    except LeaseLost:
        run.refresh_from_db()
        return False
    except (RunFailed, launch.LaunchError) as error:
        run.fail(str(error))
    except Exception as error:
        if not run.may_pass(error):
            run.fail(faults.sentence(error) or f"{type(error).__name__}: {error}")
        raise
    return True


def _train(
    run: TrainingRun,
    lost: threading.Event,
    progress: Callable[[int, int, str], None] | None,
) -> None:
    if not shared.place(run.directory).resolve().is_relative_to(root().resolve()):
        raise RunFailed(f"The run directory '{run.directory}' lies outside '{root()}'.")
    for model in (run.parent_policy, run.parent_reward):
        if isinstance(model, Policy):
            check_policy(model)
        elif model is not None:
            check_reward(model)
    directory = run_store.on_this_machine(run)
    if not (directory / "config.json").is_file():
        raise RunFailed(
            f"The run directory '{directory}' is gone. Start the training again from the page or "
            "the command line."
        )
    if _is_finished(directory):
        return  # the trainer had come to its end when its worker was lost
    keep = run_store.Keeper(run, directory)
    trainer = launch.Trainer(MODULES[TrainingRun.Kind(run.kind)], directory, cwd=settings.BASE_DIR)
    try:
        while (code := trainer.wait(POLL_SECONDS)) is None:
            if lost.is_set():
                raise LeaseLost(f"{run} is no longer owned here")
            _pass_on(run, directory, progress)
            keep()
        _pass_on(run, directory, progress)
    finally:
        trainer.stop()
    keep(now=True)
    if code != 0 or not (directory / "result.json").is_file():
        raise RunFailed(_reason(directory, code, trainer))


def _is_finished(directory: Path) -> bool:
    ended = (directory / "result.json").is_file() and not (directory / "error.json").exists()
    return ended and any((directory / name).is_dir() for name in run_store.OUTPUTS)


def has_checkpoint(run: TrainingRun) -> bool:
    return run_store.has_checkpoint(run)


def alarm(run: TrainingRun) -> str:
    """What the training's watch for reward hacking said; "" when it stayed silent."""
    path = shared.file_of(run.directory, "result.json")
    return str(read_json(path).get("alarm") or "") if path else ""


def _pass_on(
    run: TrainingRun, directory: Path, progress: Callable[[int, int, str], None] | None
) -> None:
    found = read_json(directory / "progress.json")
    step, total = int(found.get("step", 0)), int(found.get("total", 0))
    message = str(found.get("message", ""))[:500]
    if (step, total, message) == (run.progress, run.total, run.message) or not total:
        return
    try:
        run.renew(progress=step, total=total, message=message)
    except DatabaseError:  # the database is restarting: the heartbeat decides
        connection.close()
        return
    run.progress, run.total, run.message = step, total, message
    if progress is not None:
        progress(step, total, message)


def _reason(directory: Path, code: int, trainer: launch.Trainer) -> str:
    message = str(read_json(directory / "error.json").get("message", ""))
    if message:
        return message
    if trainer.was_killed():
        return (
            "The trainer was killed, most likely by the system when the machine's memory ran out. "
            "End what else uses it, or lower batch_size or max_pixels. A new start of the run goes "
            "on from its newest checkpoint."
        )
    return (
        f"The trainer ended with exit code {code} and no result. Its last line: "
        f"{trainer.last_words() or '(none)'} The whole log is in '{directory / launch.LOG}'."
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a run directory's file; {} while there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


# --- the result ---


def _register(run: TrainingRun) -> None:
    directory = shared.place(run.directory)
    result = read_json(directory / "result.json")
    card = read_json(directory / "card.json")
    with transaction.atomic():
        # The fence: a worker that lost the row meanwhile rolls back what it registered.
        if run.kind == TrainingRun.Kind.REWARD:
            run.finish(reward_model=_reward_model(run, directory, card, result), result=result)
        else:
            run.finish(policy=_policy(run, directory, card, result), result=result)


def _common_card(run: TrainingRun, card: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return {**card, "run": run.pk, "config": run.config, "metrics": result}


def _reward_model(
    run: TrainingRun, directory: Path, card: dict[str, Any], result: dict[str, Any]
) -> RewardModel:
    parent = run.parent_reward
    assert parent is not None
    assert run.snapshot is not None
    full, adapter = directory / "model", directory / "adapter"
    if not full.is_dir() and not adapter.is_dir():
        raise RunFailed(f"The training left neither 'model' nor 'adapter' in '{directory}'.")
    return RewardModel.objects.create(
        name=_name("reward", run),
        location=shared.publish(full) if full.is_dir() else parent.location,
        adapter="" if full.is_dir() else shared.publish(adapter),
        parent=parent,
        snapshot=run.snapshot,
        excluded=gates.unusable_dimensions(result, parent.excluded),
        card={
            **_common_card(run, card, result),
            "parent": parent.name,
            "snapshot": run.snapshot.content_hash,
        },
    )


def _policy(
    run: TrainingRun, directory: Path, card: dict[str, Any], result: dict[str, Any]
) -> Policy:
    parent, reward = run.parent_policy, run.parent_reward
    assert parent is not None
    assert reward is not None
    learnt_from = run.snapshot or reward.snapshot
    full, adapter = directory / "transformer", directory / "adapter"
    if not full.is_dir() and not adapter.is_dir():
        raise RunFailed(f"The training left neither 'transformer' nor 'adapter' in '{directory}'.")
    spec: dict[str, Any] = {"transformer": parent.transformer, "subfolder": parent.subfolder}
    if full.is_dir():
        shared.publish(full)
        spec = {"transformer": run.directory, "subfolder": "transformer", "adapter": ""}
    else:
        spec["adapter"] = shared.publish(adapter)
    try:
        return policies.register(
            name=_name("policy", run),
            parent=parent,
            location=parent.location,
            revision=parent.revision,
            card={
                **_common_card(run, card, result),
                "parent": parent.name,
                "reward_model": reward.name,
                "snapshot": learnt_from.content_hash if learnt_from else None,
            },
            **spec,
        )
    except policies.PolicyError as error:
        raise RunFailed(f"The training left no usable policy: {error}") from error


def _name(prefix: str, run: TrainingRun) -> str:
    return f"{prefix} {Path(run.directory).name.removeprefix(f'{run.kind}-')}"
