from annotation import charts
from annotation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH


def bars(values: list[float], level: float | None = None) -> charts.Chart | None:
    names = [f"place {n}" for n in range(len(values))]
    shown = [str(value) for value in values]
    return charts.bar_chart(
        title="T", unit="u", head=[], names=names, values=values, shown=shown, rows=[], level=level
    )


def test_it_draws_bars_from_zero_in_proportion() -> None:
    chart = bars([10, 5, 0], level=5)
    assert chart is not None
    tall, half, none = chart.bars
    # The highest value leaves a tenth of room above it.
    assert abs(tall.height - (HEIGHT - TOP - BOTTOM) / 1.1) < 0.1
    assert abs(half.height - tall.height / 2) < 0.1
    assert none.height == 0
    assert all(abs(bar.y + bar.height - (HEIGHT - BOTTOM)) < 0.11 for bar in chart.bars)
    assert chart.level is not None
    assert abs(chart.level - half.y) < 0.11
    assert tall.title == "place 0: 10"
    assert [tick.label for tick in chart.y_ticks] == ["0", "5", "10"]


def test_it_draws_a_share_s_line_inside_its_band() -> None:
    chart = charts.band_chart(
        title="T",
        unit="u",
        head=[],
        names=["a", "b"],
        points=[(0.5, 0.25, 0.75), (1.0, 0.5, 1.0)],
        rows=[],
    )
    assert chart is not None
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in chart.line.split())
    assert LEFT < x0 < x1 < WIDTH - RIGHT
    middle = TOP + (HEIGHT - TOP - BOTTOM) / 2
    assert (y0, y1) == (middle, TOP)
    edge = [float(point.split(",")[1]) for point in chart.band.split()]
    assert edge[0] < y0 < edge[-1]
    assert chart.dots[1].label == "b: 100 %"


def test_it_draws_nothing_of_nothing_and_a_single_point_in_the_middle() -> None:
    assert bars([]) is None
    none = charts.band_chart(title="T", unit="", head=[], names=[], points=[], rows=[])
    assert none is None
    chart = charts.band_chart(
        title="T", unit="", head=[], names=["a"], points=[(0.5, 0.4, 0.6)], rows=[]
    )
    assert chart is not None
    assert abs(chart.dots[0].x - (LEFT + WIDTH - RIGHT) / 2) < 0.1


def test_it_names_few_points_of_many() -> None:
    chart = bars([1.0] * 72)
    assert chart is not None
    assert len(chart.x_ticks) <= 6
