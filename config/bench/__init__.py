"""Measures what the issue tracker's limits speak of, on a site and a database of its own.

`manage.py bench` starts `python -m config.bench` with a throwaway data directory. Each figure is
one number under one key; ratios are taken within one run. What training costs is measured by the
training packages' own benchmarks: modeling/reward/bench.py, modeling/policy/bench.py and
step_bench.py.
"""
