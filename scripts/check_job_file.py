#!/usr/bin/env python3
"""The page of job fields names exactly the fields of a job file, with their words and defaults.

Promises: every field that `domain::job::Spec` reads has one row in docs/job-file.md, and no row has another; where a field takes words, the row's
value names all of them and no others, but for paths of other fields; the row's default is the source's. Read from the Rust source, which rustfmt keeps
in one shape; a field of another shape is named, not left out.
Does not: judge what a row says a field does, its limits, or what is refused.

    scripts/check_job_file.py
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = "docs/job-file.md"
# Where the types of a job file are declared.
SOURCES = ["libs/domain/src/job", "libs/domain/src/schedule.rs", "libs/domain/src/adapter/projection.rs"]
FIRST = "Spec"
# Types that read their own words by hand, with no derive to go by.
BY_HAND = {"Quorum": ["auto", "all"], "Sample": ["all"]}

ATTRIBUTES = r"((?:^#\[(?:[^\[\]]|\[[^\]]*\])*\]\n)*)"
DECLARED = re.compile(ATTRIBUTES + r"^pub (struct|enum) (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"((?:^    #\[.*\]\n)*)^    (?:pub(?:\(\w+\))? )?(\w+):\s+(.+),\n", re.MULTILINE)
# The beginning of every field, whatever its type looks like.
BEGUN = re.compile(r"^    (?:pub(?:\(\w+\))? )?([\w#]+):", re.MULTILINE)
VARIANT = re.compile(r"((?:^    #\[.*\]\n)*)^    (\w+),\n", re.MULTILINE)
ROW = re.compile(r"^\| `([a-z0-9_.]+)` \|(.*)\|$", re.MULTILINE)


class Types:
    """The structs, enums, defaults and constants of some Rust sources."""

    def __init__(self, text: str):
        text = re.sub(r"^ *//[/!]?.*\n", "", text, flags=re.MULTILINE)
        self.structs, self.enums, self.attributes = {}, {}, {}
        self.unread: list[str] = []
        for attributes, kind, name, body in DECLARED.findall(text):
            if "Deserialize" in attributes:
                self.attributes[name] = attributes
                (self.structs if kind == "struct" else self.enums)[name] = body
        defaults = re.findall(r"^impl Default for (\w+) \{\n.*?Self \{\n(.*?)^        \}", text, re.MULTILINE | re.DOTALL)
        self.defaults = {name: dict(re.findall(r"^ +(\w+): (.+),\n", body, re.MULTILINE)) for name, body in defaults}
        self.values = dict(re.findall(r"^(?:pub )?const (\w+): \w+ = (.+);$", text, re.MULTILINE))
        self.values |= dict(re.findall(r"^(?:pub )?const fn (\w+)\(\) -> \w+ \{\n    (.+)\n\}", text, re.MULTILINE))

    def words(self, name: str) -> dict[str, str]:
        """Each variant of an enum, as a job file writes it."""
        case = re.search(r'rename_all = "(\S+)"', self.attributes[name])
        joint = {"lowercase": "", "snake_case": "_", "kebab-case": "-"}[case[1]]
        found = {}
        for attributes, variant in VARIANT.findall(self.enums[name]):
            renamed = re.search(r'rename = "(\S+)"', attributes)
            found[variant] = renamed[1] if renamed else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", joint, variant).lower()
        return found

    def fields(self, name: str = FIRST, before: str = "") -> dict[str, tuple[set[str] | None, str]]:
        """Path of each field below a struct → the words that it takes, if it takes words, and its default as the page writes it."""
        found = {}
        own = "default" in re.findall(r"\w+", "".join(re.findall(r"#\[serde\(.*\)\]", self.attributes[name])))
        read = FIELD.findall(self.structs[name])
        self.unread += [f"{name}.{field}" for field in BEGUN.findall(self.structs[name]) if field not in {each[1] for each in read}]
        for attributes, field, kind in read:
            renamed = re.search(r'rename = "(\S+)"', attributes)
            path, inner = before + (renamed[1] if renamed else field), re.sub(r"^(?:Option|Choice|Vec)<(.*)>$", r"\1", kind)
            inner = re.sub(r"^Vec<(.*)>$", r"\1", inner)
            if inner in self.structs:
                if kind.startswith("Option<"):
                    found[path] = (None, "–")
                found |= self.fields(inner, path + ".")
                continue
            said = re.search(r"\bdefault(?: = \"(\w+)\")?", attributes)
            if said and said[1]:
                value = self.shown(self.values[said[1]], kind)
            elif own and name in self.defaults:
                value = self.shown(self.defaults[name][field], kind)
            else:
                value = self.empty(kind) if own or said else "required"
            found[path] = (self.taken(kind, inner), value)
        return found

    def taken(self, kind: str, inner: str) -> set[str] | None:
        """The words of a type: those of its enum, and `auto` of a choice."""
        words = set(self.words(inner).values()) if inner in self.enums else set(BY_HAND.get(inner, []))
        return words | ({"auto"} if kind.startswith("Choice<") else set()) or None

    def empty(self, kind: str) -> str:
        """The default of a type."""
        if kind in self.enums:
            chosen = re.search(r"#\[default\]\n((?:    #.*\n)*)    (\w+),", self.enums[kind])
            return f"`{self.words(kind)[chosen[2]]}`"
        return {"Option": "–", "Choice": "`auto`", "Vec": "`[]`", "bool": "false"}.get(kind.split("<")[0], "0")

    def shown(self, value: str, kind: str) -> str:
        """A default of the source, as the page writes it."""
        fixed = re.fullmatch(r"Choice::Fixed\((.*)\)", value)
        value = fixed[1] if fixed else self.values.get(value, value)
        if value in ("None", "Vec::new()") or value.endswith("::default()"):
            return self.empty(kind)
        if "::" in value:
            owner, variant = value.split("::")
            return f"`{self.words(owner)[variant] if owner in self.enums else variant.lower()}`"
        return value


def as_number(text: str) -> str | float:
    """Numbers by their value: 1e-3 is 0.001, 86_400 is 86400."""
    try:
        return float(text.replace("_", ""))
    except ValueError:
        return text


def differences(page: str, source: str) -> list[str]:
    """One sentence per row that is missing, too many, or says other words or another default than the source."""
    types = Types(source)
    if FIRST not in types.structs:
        return [f"the source has no struct {FIRST}: SOURCES names the files that declare a job file's types"]
    fields, rows = types.fields(), ROW.findall(page)
    named = [name for name, _ in rows]
    found = [f"{field} is not declared in one line: teach FIELD its shape" for field in types.unread]
    found += [f"{name} is a field of a job file and has no row" for name in fields if name not in named]
    for place, (name, rest) in enumerate(rows):
        if name not in fields:
            found.append(f"{name} has a row and is no field of a job file")
            continue
        if name in named[:place]:
            found.append(f"{name} has two rows")
        words, default = fields[name]
        cells = [cell.strip() for cell in rest.split("|")]
        if len(cells) != 4:
            found.append(f"{name}: a row has field, value, default, what it does, refused")
            continue
        told = set(re.findall(r"`([^`]+)`", cells[0]))
        if words is not None and told - (fields.keys() - words) != words:
            found.append(f"{name}: the page's words are {sorted(told)}, the source's {sorted(words)}")
        if as_number(cells[1]) != as_number(default):
            found.append(f"{name}: the page's default is {cells[1]}, the source's {default}")
    return found


def source(root: pathlib.Path) -> str:
    """The files that declare a job file's types, without their tests."""
    files = [path for name in SOURCES for path in ([root / name] if name.endswith(".rs") else sorted((root / name).rglob("*.rs")))]
    return "\n".join(path.read_text(encoding="utf-8").split("\n#[cfg(test)]\n")[0] for path in files)


def check(root: pathlib.Path) -> list[str]:
    """What the page of this tree says that its source does not, and the other way round."""
    return differences((root / PAGE).read_text(encoding="utf-8"), source(root))


def main() -> int:
    found = check(ROOT)
    for sentence in found:
        print(f"job file: {PAGE}: {sentence}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
