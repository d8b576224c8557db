"""The value sets that the chart is checked with: helm/fedpipe/ci/*-values.yaml."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from helmchart import CHART, yaml  # noqa: E402

SETS = {path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text()) for path in sorted((CHART / "ci").glob("*-values.yaml"))}
