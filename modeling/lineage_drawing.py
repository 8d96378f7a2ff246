"""A graph of models as plain SVG geometry: a column a kind, a row a generation."""

from __future__ import annotations

from dataclasses import dataclass

from django.urls import reverse

from modeling.lineage import KINDS, POLICY, REWARD, SNAPSHOT, Graph, Key, Node

COLUMNS = [SNAPSHOT, REWARD, POLICY]
WIDTH, HEIGHT = 200, 50  # of a box
ACROSS, DOWN = 270, 78  # from box to box
MARGIN = 12
HEAD = 26
ADDRESSES = {
    SNAPSHOT: "modeling:lineage_snapshot",
    REWARD: "modeling:lineage_reward",
    POLICY: "modeling:lineage_policy",
}


@dataclass(frozen=True)
class Box:
    node: Node
    x: int
    y: int
    address: str
    focus: bool
    taint: list[str]
    kind: str  # in words

    @property
    def short(self) -> str:
        name = self.node.name
        return name if len(name) <= 27 else f"{name[:26]}…"


@dataclass(frozen=True)
class Line:
    path: str
    how: str


@dataclass(frozen=True)
class Drawing:
    boxes: list[Box]
    lines: list[Line]
    heads: list[tuple[int, str]]
    width: int
    height: int
    box_width: int = WIDTH
    box_height: int = HEIGHT


def draw(graph: Graph, focus: Key, taints: dict[Key, list[str]]) -> Drawing:
    rows = _rows(graph)
    boxes = {
        key: Box(
            node=node,
            x=MARGIN + COLUMNS.index(node.kind) * ACROSS,
            y=HEAD + MARGIN + rows[key] * DOWN,
            address=reverse(ADDRESSES[node.kind], args=[node.pk]),
            focus=key == focus,
            taint=taints.get(key, []),
            kind=str(KINDS[node.kind]),
        )
        for key, node in graph.nodes.items()
    }
    lines = [Line(_path(boxes[e.origin], boxes[e.target]), e.how) for e in graph.edges]
    heads = [(MARGIN + n * ACROSS, str(KINDS[kind])) for n, kind in enumerate(COLUMNS)]
    lowest = max((box.y for box in boxes.values()), default=HEAD)
    return Drawing(
        boxes=sorted(boxes.values(), key=lambda box: (box.y, box.x)),
        lines=lines,
        heads=heads,
        width=2 * MARGIN + (len(COLUMNS) - 1) * ACROSS + WIDTH,
        height=lowest + HEIGHT + MARGIN,
    )


def _rows(graph: Graph) -> dict[Key, int]:
    """Under its parent, beside or under what it was made from, in a row of its column's own."""
    rows: dict[Key, int] = {}
    taken: set[tuple[str, int]] = set()
    # In the order in which they were made, what a model comes from is placed before it; at the same
    # moment snapshots come first and policies last.
    ordered = sorted(
        graph.nodes.values(), key=lambda node: (node.made, COLUMNS.index(node.kind), node.pk)
    )
    for node in ordered:
        row = 0
        for edge in graph.edges:
            if edge.target == node.key and edge.origin in rows:
                row = max(row, rows[edge.origin] + (edge.origin[0] == node.kind))
        while (node.kind, row) in taken:
            row += 1
        taken.add((node.kind, row))
        rows[node.key] = row
    return rows


def _path(origin: Box, target: Box) -> str:
    if origin.x == target.x:
        x = origin.x + WIDTH // 4
        if target.y - origin.y <= DOWN:
            return f"M{x},{origin.y + HEIGHT} L{x},{target.y}"
        # Past the boxes between them.
        side = origin.x - MARGIN + 4
        return (
            f"M{origin.x},{origin.y + HEIGHT // 2} C{side},{origin.y + HEIGHT} "
            f"{side},{target.y} {target.x},{target.y + HEIGHT // 2}"
        )
    start, end = origin.x + WIDTH, target.x
    y0, y1 = origin.y + HEIGHT // 2, target.y + HEIGHT // 2
    middle = (start + end) // 2
    return f"M{start},{y0} C{middle},{y0} {middle},{y1} {end},{y1}"
