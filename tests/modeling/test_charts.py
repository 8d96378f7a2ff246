import pytest

from modeling.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart


def test_it_draws_the_first_and_last_point_at_the_edges() -> None:
    chart = line_chart(title="Loss", unit="nats", series={"loss": [(1, 2.0), (2, 1.0), (3, 0.0)]})
    assert chart is not None
    points = [tuple(map(float, p.split(","))) for p in chart.lines[0].points.split()]
    assert points[0][0] == pytest.approx(LEFT)
    assert points[-1][0] == pytest.approx(WIDTH - RIGHT)
    # Falling values go down the page and stay inside the frame.
    assert TOP < points[0][1] < points[1][1] < points[2][1] < HEIGHT - BOTTOM


def test_it_thins_long_series_to_means() -> None:
    series = [(float(x), float(x % 2)) for x in range(1000)]
    chart = line_chart(title="t", unit="u", series={"a": series}, most=100)
    assert chart is not None
    assert len(chart.rows) == 100
    assert {values[0] for _, values in chart.rows} == {0.5}
    assert chart.n == 1000


def test_it_draws_nothing_from_a_single_point() -> None:
    assert line_chart(title="t", unit="u", series={"a": [(1.0, 1.0)]}) is None


def test_it_draws_a_constant() -> None:
    chart = line_chart(title="t", unit="u", series={"a": [(1.0, 5.0), (2.0, 5.0)]})
    assert chart is not None
    heights = {p.split(",")[1] for p in chart.lines[0].points.split()}
    assert len(heights) == 1
