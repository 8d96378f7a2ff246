"""Held-out figures: reward models on held-out labels, policies against their parents."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from django.db import transaction
from PIL import Image as PILImage

from generation import candidates, images, shared
from generation.models import Policy, Source
from modeling import gates, policy_inputs, reward_gap, snapshots
from modeling.models import Evaluation, EvaluationPair, RewardModel, Snapshot, TrainingRun
from modeling.reward_gap import MARGIN_TIE, SCORE_TIE
from modeling.statistics import bootstrap, mcnemar, p_worse, paired_difference, win_tie_lose

# Pictures that are equal outside the mask have an infinite PSNR; 8 bits cannot show more than this.
PSNR_CAP = 60.0

Progress = Callable[[int, int], None]


class EvaluationError(Exception):
    """One readable sentence: why nothing could be measured, and the remedy."""


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled for an evaluation; the same for both policies."""

    num_inference_steps: int = 6
    guidance_scale: float = 30.0
    true_cfg_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.num_inference_steps < 1:
            raise ValueError(
                f"num_inference_steps must be at least 1, got {self.num_inference_steps}"
            )
        if self.true_cfg_scale < 1:
            raise ValueError(f"true_cfg_scale must be at least 1, got {self.true_cfg_scale}")


# --- reward models ---


@dataclass(frozen=True)
class RewardComparison:
    """A new reward model and the last one on the same held-out pairs."""

    new: Evaluation
    last: Evaluation
    overall: dict[str, Any]  # parent, new, difference, low, high, n over best/worst pairs


def evaluate_reward(model: RewardModel, snapshot: Snapshot) -> Evaluation:
    """Measure the model on the snapshot's held-out labels."""
    return _reward_row(model, snapshot, _outcomes(model, snapshot)[0])


def compare_rewards(
    new: RewardModel, last: RewardModel, snapshot: Snapshot, run: TrainingRun | None = None
) -> RewardComparison:
    """Measure both models on the snapshot's held-out labels, or read what `run` measured."""
    from modeling.reward import evaluate

    names = ["result.json", "before.json", "holdout.jsonl", "holdout_before.jsonl"]
    files = [shared.file_of(run.directory, name) for name in names] if run is not None else []
    found = [path for path in files if path is not None]
    if len(found) == len(names):
        figures = [json.loads(path.read_text()) for path in found[:2]]
        outcomes = [evaluate.read_outcomes(path) for path in found[2:]]
    else:
        measured = [_outcomes(model, snapshot) for model in (new, last)]
        figures = [found for found, _ in measured]
        outcomes = [found for _, found in measured]
    with transaction.atomic():
        return RewardComparison(
            new=_reward_row(new, snapshot, figures[0]),
            last=_reward_row(last, snapshot, figures[1]),
            overall=evaluate.compare(outcomes[1], outcomes[0])["overall"] | _flips(*outcomes),
        )


def _flips(new: list[Any], last: list[Any]) -> dict[str, Any]:
    """Pairs that only one of the two models orders as people did, and McNemar's exact test."""
    before = {one.key: one.correct for one in last if one.relation == "direct"}
    steps = [one.correct - before[one.key] for one in new if one.relation == "direct"]
    gained, lost = sum(step > 0 for step in steps), sum(step < 0 for step in steps)
    return {"gained": gained, "lost": lost, "p": mcnemar(gained, lost)}


def _outcomes(model: RewardModel, snapshot: Snapshot) -> tuple[dict[str, Any], list[Any]]:
    import torch

    from modeling.reward.evaluate import evaluate
    from modeling.rundir import RunError

    snapshots.check(snapshot)
    on_gpu = torch.cuda.is_available()
    try:
        return evaluate(
            shared.local(snapshot.directory),
            shared.local(model.location),
            adapter=shared.local(model.adapter),
            device="cuda" if on_gpu else "cpu",
            dtype=torch.bfloat16 if on_gpu else torch.float32,
        )
    except (RunError, FileNotFoundError) as error:
        raise EvaluationError(str(error)) from error


def _reward_row(model: RewardModel, snapshot: Snapshot, found: dict[str, Any]) -> Evaluation:
    """One row per model and snapshot: measured again, its figures are replaced."""
    left_out = ("before", "output", "pairs", "seconds", "steps")
    figures = {key: value for key, value in found.items() if key not in left_out}
    figures["position"] = found["position_consistency"]
    figures["position_consistency"] = found["position_consistency"]["accuracy"]
    figures["calibration_error"] = found["calibration"]["ece"]
    row, _ = Evaluation.objects.update_or_create(
        kind=Evaluation.Kind.REWARD,
        reward_model=model,
        snapshot=snapshot,
        defaults={"figures": figures},
    )
    return row


# --- policies ---


@dataclass
class Pair:
    """One source under both policies with the same noise, and what was measured of it."""

    source: Source
    seed: int
    parent: PILImage.Image
    new: PILImage.Image
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    usable: tuple[bool, bool] | None = None  # parent, new
    psnr: tuple[float, float] | None = None


def noise_seed(source: Source, seed: int) -> int:
    """The noise of a source in every evaluation with `seed`, whatever the policies are."""
    name = f"{seed}:{source.image.sha256}:{source.mask.sha256}:{source.effective_prompt}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) >> 1


def evaluate_policy(
    policy: Policy,
    parent: Policy,
    *,
    sources: Sequence[Source],
    seed: int = 0,
    judge: RewardModel | None = None,
    reward: RewardModel | None = None,
    sampling: Sampling | None = None,
    progress: Progress | None = None,
    stored: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """Sample every source under both policies with the same noise and compare them pair by pair.

    `judge` is a reward model that did not train the policy; its margins are reported, and decide
    only where no ground truth exists. `reward` is the one that did train it. `stored` is called in
    the transaction that stores the row.
    """
    if not sources:
        raise EvaluationError(
            "There is no held-out source to evaluate on. Import more sources: about a fifth of all "
            "pictures are kept aside for this."
        )
    sampling = sampling or Sampling()
    pairs = _sample(policy, parent, list(sources), seed, sampling, progress)
    for pair in pairs:
        _measure(pair)
    for model, key in ((judge, "margin"), (reward, "reward_margin")):
        if model is not None:
            _judge(pairs, model, key)
    figures = policy_figures(pairs, judge=judge, reward=reward)
    config = {"seed": seed, "sampling": asdict(sampling), "judge": judge.name if judge else None}
    pictures = [(images.store(pair.parent), images.store(pair.new)) for pair in pairs]
    with transaction.atomic():
        evaluation = Evaluation.objects.create(
            kind=Evaluation.Kind.POLICY,
            policy=policy,
            parent_policy=parent,
            figures=figures,
            config=config,
        )
        EvaluationPair.objects.bulk_create(
            EvaluationPair(
                evaluation=evaluation,
                source=pair.source,
                seed=pair.seed,
                parent_image=before,
                image=after,
                scores=pair.scores,
            )
            for pair, (before, after) in zip(pairs, pictures, strict=True)
        )
        if stored is not None:
            stored(evaluation)
    return evaluation


def _sample(
    policy: Policy,
    parent: Policy,
    sources: list[Source],
    seed: int,
    sampling: Sampling,
    progress: Progress | None,
) -> list[Pair]:
    seeds = [noise_seed(source, seed) for source in sources]
    made: list[list[PILImage.Image]] = []
    total = 2 * len(sources)
    for place, one in enumerate((parent, policy)):

        def tell(done: int, _of: int = 0, before: int = place * len(sources)) -> None:
            if progress is not None:
                progress(before + done, total)

        made.append(candidates.render(one, sources, seeds, **asdict(sampling), progress=tell))
    return [
        Pair(source=source, seed=number, parent=before, new=after)
        for source, number, before, after in zip(sources, seeds, *made, strict=True)
    ]


def _measure(pair: Pair) -> None:
    """PSNR against the source outside the mask, and ground truth where it is known."""
    source, mask = inputs_at(pair.source, pair.new.size)
    outside = np.asarray(mask) < 128
    if outside.any():
        pair.psnr = (_psnr(pair.parent, source, outside), _psnr(pair.new, source, outside))
    if pair.source.scene is None:
        return
    from modeling.starter import truth
    from modeling.starter.world import SIZE, Scene

    if pair.new.size != (SIZE, SIZE):
        return
    scene = Scene.from_dict(pair.source.scene)
    before = truth.score(np.asarray(pair.parent), scene)
    after = truth.score(np.asarray(pair.new), scene)
    pair.scores |= {"parent": before, "new": after}
    pair.usable = (truth.usable(before), truth.usable(after))


def inputs_at(source: Source, size: tuple[int, int]) -> tuple[PILImage.Image, PILImage.Image]:
    """Picture and mask at a working size; a pixel is edited if any pixel behind it is."""
    picture, mask = images.open_image(source.image), images.open_image(source.mask)
    if picture.size != size:
        picture = picture.resize(size, PILImage.Resampling.LANCZOS)
        mask = mask.resize(size, PILImage.Resampling.BOX).point(lambda value: 255 if value else 0)
    return picture, mask


def _psnr(picture: PILImage.Image, source: PILImage.Image, where: np.ndarray) -> float:
    difference = np.asarray(picture, np.float64)[where] - np.asarray(source, np.float64)[where]
    error = float((difference**2).mean())
    return PSNR_CAP if error == 0 else min(PSNR_CAP, 10 * float(np.log10(255**2 / error)))


def _judge(pairs: list[Pair], judge: RewardModel, key: str) -> None:
    from modeling.judging import Judge

    jury = Judge(judge.location, judge.adapter)
    for pair in pairs:
        criteria, _ = policy_inputs.questions(pair.source.task, judge)
        queries = policy_inputs.ask(pair.source, criteria)
        if not queries:
            continue
        source, mask = inputs_at(pair.source, pair.new.size)
        values = jury.margins(pair.new, pair.parent, source, mask, list(queries.values()))
        pair.scores[key] = dict(zip(queries, values, strict=True))


# --- figures ---


def policy_figures(
    pairs: list[Pair], *, judge: RewardModel | None = None, reward: RewardModel | None = None
) -> dict[str, Any]:
    """The keys of `run_round --json`, and what the gate needs besides."""
    tasks: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        tasks[pair.source.task.slug].append(pair)
    figures: dict[str, Any] = {
        "n": len(pairs),
        "usable": {},
        "dimensions": {},
        "p_worse": {},
        "outside_psnr": _outside(pairs),
        "margin": _margins(tasks, judge, "margin"),
        "reward_margin": _margins(tasks, reward, "reward_margin"),
        "reward_gap": reward_gap.by_truth((pair.source.pk, pair.scores) for pair in pairs),
    }
    known = {task: [p for p in group if p.usable is not None] for task, group in tasks.items()}
    known = {task: group for task, group in known.items() if group}
    for task, group in known.items():
        figures["usable"][task] = _usable(group)
        before, after = _usable_lists(group)
        figures["p_worse"][task] = p_worse(before, after)
        figures["dimensions"][task] = {}
        for dimension in group[0].scores["new"]:
            old = [pair.scores["parent"][dimension] for pair in group]
            new = [pair.scores["new"][dimension] for pair in group]
            figures["dimensions"][task][dimension] = asdict(paired_difference(old, new))
            figures["p_worse"][f"{task}/{dimension}"] = p_worse(old, new)
    everything = [pair for group in known.values() for pair in group]
    if everything:
        figures["usable"]["all"] = _usable(everything)
        figures["usable"]["all"]["gained"], figures["usable"]["all"]["lost"] = _discordant(
            everything
        )
        figures["win_tie_lose"] = win_tie_lose(
            [float(np.mean(list(pair.scores["parent"].values()))) for pair in everything],
            [float(np.mean(list(pair.scores["new"].values()))) for pair in everything],
            tie=SCORE_TIE,
        )
    else:
        values = [float(np.mean(list(p.scores["margin"].values()))) for p in judged(pairs)]
        figures["win_tie_lose"] = win_tie_lose([0.0] * len(values), values, tie=MARGIN_TIE)
    figures["win_tie_lose"] = list(figures["win_tie_lose"])
    figures["below_zero"] = gates.below_zero(figures)
    return figures


def _usable_lists(group: list[Pair]) -> tuple[list[float], list[float]]:
    outcomes = [pair.usable for pair in group if pair.usable is not None]
    return [float(before) for before, _ in outcomes], [float(after) for _, after in outcomes]


def _usable(group: list[Pair]) -> dict[str, Any]:
    return asdict(paired_difference(*_usable_lists(group)))


def _discordant(group: list[Pair]) -> tuple[int, int]:
    before, after = _usable_lists(group)
    steps = np.asarray(after) - np.asarray(before)
    return int((steps > 0).sum()), int((steps < 0).sum())


def _outside(pairs: list[Pair]) -> dict[str, Any]:
    measured = [pair.psnr for pair in pairs if pair.psnr is not None]
    if not measured:
        return dict.fromkeys(["parent", "new", "difference", "low", "high"]) | {"n": 0}
    return asdict(paired_difference([a for a, _ in measured], [b for _, b in measured]))


def judged(pairs: list[Pair], key: str = "margin") -> list[Pair]:
    return [pair for pair in pairs if pair.scores.get(key)]


def _margins(tasks: dict[str, list[Pair]], judge: RewardModel | None, key: str) -> dict[str, Any]:
    """Mean margin of new over parent per task: log-odds over both orders and all dimensions."""
    if judge is None:
        return {}
    table = {}
    groups = {**tasks, "all": [pair for group in tasks.values() for pair in group]}
    for name, group in groups.items():
        values = [float(np.mean(list(pair.scores[key].values()))) for pair in judged(group, key)]
        if values:
            interval = bootstrap(values)
            table[name] = {
                "mean": interval.value,
                "low": interval.low,
                "high": interval.high,
                "n": interval.n,
                "judge": judge.name,
            }
    return table
