"""The chart as Python sees it: loaded, rendered, linted with the pinned Helm, its objects as dictionaries.

Promises: what is rendered here is what `helm template` renders, hooks included; no cluster is asked.
"""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/fedpipe"
TOOLS = pathlib.Path(os.environ.get("FEDPIPE_TOOLS") or ROOT / ".tools").absolute()
RELEASE, NAMESPACE = "fedpipe", "fedpipe"

for place in ("helm", "kubernetes", "chart"):
    sys.path.insert(0, str(TOOLS / "python" / place))
sys.dont_write_bytecode = True  # the tools' folder stays as it was installed
try:
    import helm_python
    import yaml
except ImportError as missing:
    raise SystemExit(f"chart: {missing}. Next: ./run setup helm kubernetes-schemas kubectl hadolint chart-python") from missing


def render(values: dict, name: str = RELEASE) -> dict[str, str]:
    """Template → text, templates that render nothing left out. Values that the schema refuses raise."""
    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(values, name=name, namespace=NAMESPACE)
    places = {path.removeprefix("fedpipe/templates/"): text for path, text in rendered.items()}
    return {path: text for path, text in sorted(places.items()) if text.strip()}


def objects(values: dict, name: str = RELEASE) -> list[dict]:
    """Every Kubernetes object of a rendering, in the order of the templates."""
    texts = [text for path, text in render(values, name).items() if path.endswith(".yaml")]
    return [thing for text in texts for thing in parse(text)]


def parse(text: str) -> list[dict]:
    """The objects of a YAML text."""
    return [thing for thing in yaml.load_all(text, Loader=Strict) if thing]


class Strict(yaml.SafeLoader):
    """Refuses a mapping that has a key twice: YAML libraries would silently keep one."""


def _mapping(loader: Strict, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"twice in one mapping: {sorted(twice)}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def lint(values: dict) -> list[str]:
    """What `helm lint --strict` finds."""
    report = helm_python.lint(CHART, values, strict=True, namespace=NAMESPACE)
    found = [f"{message['path']}: {message['error']}" for message in report["messages"] if message["severity"] >= 2]
    return found + list(report["errors"])


def find(things: list[dict], kind: str, name: str) -> dict:
    """The object of this kind and name."""
    matching = [thing for thing in things if thing["kind"] == kind and thing["metadata"]["name"] == name]
    if len(matching) != 1:
        have = sorted(f"{thing['kind']}/{thing['metadata']['name']}" for thing in things)
        raise LookupError(f"{kind}/{name}: {len(matching)} of {have}")
    return matching[0]


def pods(things: list[dict]) -> dict[str, dict]:
    """`Kind/name` → the spec of the pods that it makes."""
    found = {}
    for thing in things:
        place = f"{thing['kind']}/{thing['metadata']['name']}"
        if thing["kind"] == "Pod":
            found[place] = thing["spec"]
        elif thing["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
            found[place] = thing["spec"]["template"]["spec"]
    return found
