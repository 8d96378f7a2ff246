"""What came from what: snapshot → reward model → policy, and parents; forwards and backwards.

A model is *tainted* while something it learnt from is withdrawn: a source, or a person whose
judgments are in its snapshot. Whatever descends from a tainted model is tainted, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from annotation.models import Judgment
from generation.models import Policy, Source, Split, Withdrawal
from modeling.models import RewardModel, Snapshot, TrainingRun

SNAPSHOT, REWARD, POLICY = "snapshot", "reward_model", "policy"
KINDS = {SNAPSHOT: lazy("Snapshot"), REWARD: lazy("Reward model"), POLICY: lazy("Policy")}
Key = tuple[str, int]


@dataclass(frozen=True)
class Node:
    kind: str
    pk: int
    name: str
    detail: str
    made: str  # a date; what sorts

    @property
    def key(self) -> Key:
        return self.kind, self.pk


@dataclass(frozen=True)
class Edge:
    """`target` learnt from `origin`, started from it, or was rewarded by it."""

    origin: Key
    target: Key
    how: str  # "learnt from", "started from", "rewarded by"


@dataclass
class Graph:
    nodes: dict[Key, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)

    def ancestors(self, keys: Iterable[Key]) -> set[Key]:
        """The keys and everything that they come from."""
        return self._reached(keys, backwards=True)

    def descendants(self, keys: Iterable[Key]) -> set[Key]:
        return self._reached(keys, backwards=False)

    def _reached(self, keys: Iterable[Key], *, backwards: bool) -> set[Key]:
        steps: dict[Key, list[Key]] = defaultdict(list)
        for edge in self.edges:
            start, end = (edge.target, edge.origin) if backwards else (edge.origin, edge.target)
            steps[start].append(end)
        waiting, found = list(keys), set()
        while waiting:
            if (key := waiting.pop()) not in found:
                found.add(key)
                waiting += steps[key]
        return found

    def part(self, keys: set[Key]) -> Graph:
        return Graph(
            {key: node for key, node in self.nodes.items() if key in keys},
            [edge for edge in self.edges if edge.origin in keys and edge.target in keys],
        )


def whole() -> Graph:
    """All models of the installation: one node each, so thousands at most."""
    graph = Graph()
    for snapshot in Snapshot.objects.all():
        count = snapshot.counts.get("judgments", 0)
        _add(graph, SNAPSHOT, snapshot, snapshot.content_hash[:12], _judgments(count))
    for model in RewardModel.objects.select_related("snapshot"):
        _add(graph, REWARD, model, model.name, model.get_state_display())
        _link(graph, (SNAPSHOT, model.snapshot_id), (REWARD, model.pk), "learnt from")
        _link(graph, (REWARD, model.parent_id), (REWARD, model.pk), "started from")
    runs = {run.policy_id: run for run in TrainingRun.objects.filter(policy__isnull=False)}
    for policy in Policy.objects.all():
        _add(graph, POLICY, policy, policy.name, policy.get_state_display())
        _link(graph, (POLICY, policy.parent_id), (POLICY, policy.pk), "started from")
        if (run := runs.get(policy.pk)) is not None:
            _link(graph, (REWARD, run.parent_reward_id), (POLICY, policy.pk), "rewarded by")
            _link(graph, (SNAPSHOT, run.snapshot_id), (POLICY, policy.pk), "learnt from")
    return graph


def _judgments(count: int) -> str:
    return _("%(n)s judgments") % {"n": count}


def _add(
    graph: Graph, kind: str, row: Snapshot | RewardModel | Policy, name: str, detail: str
) -> None:
    node = Node(kind, row.pk, name, detail, f"{row.created_at:%Y-%m-%d %H:%M:%S.%f}")
    graph.nodes[node.key] = node


def _link(graph: Graph, origin: tuple[str, int | None], target: Key, how: str) -> None:
    if origin[1] is not None:
        graph.edges.append(Edge((origin[0], origin[1]), target, how))


# What learnt from a source, a person, a judgment --------------------------------------------------


def learnt_from(
    *,
    source: Source | None = None,
    person: User | None = None,
    judgment: Judgment | None = None,
) -> set[Key]:
    """The models that saw it themselves; `Graph.descendants` of them are all that it reaches."""
    judged: QuerySet[Judgment] = Judgment.objects.none()
    keys: set[Key] = set()
    if source is not None:
        judged = Judgment.objects.filter(set__source=source)
        runs = source.training_runs.filter(policy__isnull=False)
        keys |= {(POLICY, pk) for pk in runs.values_list("policy", flat=True) if pk is not None}
    elif person is not None:
        judged = Judgment.objects.filter(assignment__annotator=person)
    elif judgment is not None:
        judged = Judgment.objects.filter(pk=judgment.pk)
    return keys | {(SNAPSHOT, pk) for pk in _snapshots_with(judged)}


def _snapshots_with(judged: QuerySet[Judgment]) -> list[int]:
    through = Snapshot.judgments.through.objects.filter(judgment__in=judged)
    return list(through.values_list("snapshot", flat=True).distinct())


def taints(graph: Graph) -> dict[Key, list[str]]:
    """For each tainted model the withdrawn things that it comes from, in words."""
    found: dict[Key, list[str]] = defaultdict(list)
    for withdrawal in Withdrawal.objects.standing().select_related("source", "person"):
        said = describe(withdrawal)
        roots = learnt_from(source=withdrawal.source, person=withdrawal.person)
        for key in graph.descendants(roots):
            found[key].append(said)
    return dict(found)


def describe(withdrawal: Withdrawal) -> str:
    """Pages of models are open to every viewer: people have no name here."""
    if withdrawal.source_id is not None:
        what = _("source %(n)s") % {"n": withdrawal.source_id}
    else:
        what = _("an annotator")
    return _("%(what)s was withdrawn: %(reason)s") % {"what": what, "reason": withdrawal.reason}


# A snapshot's contents ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Contents:
    judgments: int
    people: int
    sources: int
    held_out: int  # of the sources
    withdrawn: int  # judgments of what is withdrawn now


def contents(snapshot: Snapshot) -> Contents:
    judged = snapshot.judgments.all()
    sources = Source.objects.filter(sets__judgments__in=judged).distinct()
    return Contents(
        judgments=judged.count(),
        people=judged.values("assignment__annotator").distinct().count(),
        sources=sources.count(),
        held_out=sources.filter(split=Split.HOLDOUT).count(),
        withdrawn=judged.withdrawn().count(),
    )
