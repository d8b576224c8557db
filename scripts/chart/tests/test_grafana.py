"""The dashboards are what Grafana's own types say a dashboard, a panel and its options are: TypeScript reads them as values of `@grafana/schema`."""

import copy
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import dashboards  # noqa: E402
import grafana  # noqa: E402
import helmchart  # noqa: E402

NODE = helmchart.TOOLS / "node"
# The plugin of each kind of panel, as the schema names it.
PLUGINS = {"timeseries": "TimeSeries", "stat": "Stat", "state-timeline": "StateTimeline"}
HEADER = [
    'import type { Dashboard, Panel, RowPanel } from "@grafana/schema";',
    # JSON has the values of enumerations, not their names.
    "type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;",
    *(
        f'import type * as {name} from "@grafana/schema/dist/esm/raw/composable/{name.lower()}/panelcfg/x/{name}PanelCfg_types.gen";'
        for name in PLUGINS.values()
    ),
]
CONFIGURATION = {"compilerOptions": {"noEmit": True, "strict": True, "module": "nodenext", "target": "es2022", "lib": ["es2022"], "types": [], "pretty": False}, "files": ["dashboards.ts"]}


def claims(document: dict) -> list[str]:
    """What is claimed of one dashboard, a line each: it, its panels, and what the schema leaves open in those, by their plugin."""
    found = [(document, "Dashboard")]
    for panel in document["panels"]:
        found.append((panel, "RowPanel" if panel["type"] == "row" else "Panel"))
        if panel["type"] != "row":
            plugin = PLUGINS[panel["type"]]
            found.append((panel["options"], f"{plugin}.Options"))
            if "custom" in panel["fieldConfig"]["defaults"]:
                found.append((panel["fieldConfig"]["defaults"]["custom"], f"{plugin}.FieldConfig"))
    return [f"({json.dumps(value)}) satisfies Plain<{kind}>;" for value, kind in found]


def complaints(documents: list[dict]) -> list[str]:
    """What TypeScript says against the claims."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "node_modules").symlink_to(NODE / "node_modules")
        (folder / "tsconfig.json").write_text(json.dumps(CONFIGURATION))
        lines = [*HEADER, *(line for document in documents for line in claims(document))]
        (folder / "dashboards.ts").write_text("\n".join(lines) + "\n")
        command = ["node", str(NODE / "node_modules/typescript/lib/_tsc.js"), "--project", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        said = [line[:300] for line in done.stdout.splitlines()]
        assert (done.returncode == 0) == (not said), done.stdout + done.stderr
        return said


class Grafana(unittest.TestCase):
    maxDiff = None

    def test_every_dashboard_is_one_by_grafanas_own_types(self):
        written = [json.loads((helmchart.CHART / f"dashboards/{one.name}.json").read_text()) for one in dashboards.ALL]
        self.assertEqual(complaints(written), [])

    def test_a_wrong_dashboard_is_none(self):
        right = grafana.document(dashboards.FLEET)
        first = next(index for index, panel in enumerate(right["panels"]) if panel["type"] == "stat")
        wrong = [copy.deepcopy(right) for _ in range(5)]
        wrong[0]["refresh"] = 10
        wrong[1]["panels"][first]["options"]["colorMode"] = "rainbow"
        wrong[2]["panels"][first]["descriptions"] = "a field that there is not"
        wrong[3]["panels"][first]["fieldConfig"]["defaults"]["thresholds"]["mode"] = "relative"
        drawn = next(index for index, panel in enumerate(right["panels"]) if panel["type"] == "timeseries")
        wrong[4]["panels"][drawn]["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"] = "bold"
        each = len(claims(right))
        lines = [int(found[1]) for found in re.finditer(r"dashboards\.ts\((\d+),", "\n".join(complaints([right, *wrong])))]
        self.assertEqual({(line - 1 - len(HEADER)) // each for line in lines}, {1, 2, 3, 4, 5})


if __name__ == "__main__":
    unittest.main()
