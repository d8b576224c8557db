"""The fleet of the ablation and the data of its sites.

Promises: the same sources give the same files, byte for byte; no two sites look alike; what the small model was repaired
with lies on no site.
"""

import hashlib
import json
import pathlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "scripts"))

import mail_sites

GSM8K = {
    "gsm8k_train.jsonl": "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    "gsm8k_test.jsonl": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
}
# One record in four repairs the small model, by the first digit of its digest; the others are the sites'.
REPAIR = "0123"


@dataclass(frozen=True)
class Played:
    """What a site plays, and its share of the records."""

    name: str
    speed: float
    memory_mib: int
    share: float
    bandwidth: str | None = None


# Speed 1, 1/2, 1/4, 1/8; memory 8, 2, 1, 0.5 GiB; one slow link. The strongest site holds most records.
FLEET = (
    Played("site-1", 1.0, 8192, 0.4),
    Played("site-2", 0.5, 2048, 0.3),
    Played("site-3", 0.25, 1024, 0.2, bandwidth="4MiB"),
    Played("site-4", 0.125, 512, 0.1),
)
# The largest batches are planned only where a probe came near them: in this time it does, on two cores or one.
PROBE_SECONDS = 180
# Three that are alike: for what depends on ranks alone.
EVEN = tuple(Played(f"site-{number}", 1.0, 8192, 1 / 3) for number in (1, 2, 3))


class DataError(Exception):
    """What is missing and what to do next, in words for the terminal."""


def fleet_toml(sites: tuple[Played, ...], dataset: str, folder: pathlib.Path, memory_share: float = 1.0, probe_seconds: int = PROBE_SECONDS) -> str:
    """The fleet file; a model that is smaller by some share is given machines that are."""
    parts = []
    for site in sites:
        lines = [f'name = "{site.name}"', f'memory_limit = "{round(site.memory_mib * memory_share)}MiB"', f"speed = {site.speed}"]
        lines += [f"probe_seconds = {probe_seconds}"]
        if site.bandwidth:
            lines.append(f'bandwidth_limit = "{site.bandwidth}"')
        lines += [f"[workers.datasets.{dataset}]"]
        lines += [f'{kind} = "{folder / site.name / file}"' for kind, file in (("train", "train.jsonl"), ("held_out", "heldout.jsonl"))]
        parts.append("[[workers]]\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def scored_on_all(text: str, sites: tuple[Played, ...], folder: pathlib.Path, out: pathlib.Path) -> str:
    """The fleet file, but for its first sites holding the last one's held-out records between them, beside their own: so that a job
    without the last is scored on the same records as one with it."""
    *first, last = sites
    # A record may hold what `splitlines` takes for the end of a line.
    others = [f"{line}\n" for line in (folder / last.name / "heldout.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    out.mkdir(parents=True, exist_ok=True)
    for number, site in enumerate(first):
        own, both = folder / site.name / "heldout.jsonl", out / f"{site.name}.jsonl"
        both.write_text(own.read_text(encoding="utf-8") + "".join(others[number :: len(first)]), encoding="utf-8")
        text = text.replace(f'"{own}"', f'"{both}"')
    return text


# ---------------------------------------------------------------------------------------------------------------------
# GSM8K.
# ---------------------------------------------------------------------------------------------------------------------


def gsm8k(folder: pathlib.Path) -> tuple[list[dict], list[dict]]:
    """Its questions to learn from and to be asked, if the files are the published ones."""
    for name, expected in GSM8K.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing.\n  Next: lay GSM8K's files there, or name their folder with --gsm8k or FEDPIPE_GSM8K")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise DataError(f"{path} is not the published file: sha256 {found}, expected {expected}")
    read = lambda name: [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    return read("gsm8k_train.jsonl"), read("gsm8k_test.jsonl")


def question(row: dict) -> dict[str, str]:
    """A training record: the answer with its reasoning is what is learned."""
    return {"prompt": f"Question: {row['question']}\nAnswer:", "completion": f" {row['answer']}"}


def digest(text: str) -> str:
    """A fixed shuffle, which tells nothing about the text."""
    return hashlib.sha256(text.encode()).hexdigest()


def deal_gsm8k(folder: pathlib.Path, out: pathlib.Path, sites: tuple[Played, ...], held_out: int) -> None:
    """Half of what a site has is of one length of reasoning, from the shortest at the first to the longest at the last."""
    train, test = gsm8k(folder)
    order = lambda row: digest(row["question"])
    train = sorted((row for row in train if order(row)[0] not in REPAIR), key=order)
    by_steps = sorted(train[::2], key=lambda row: (row["answer"].count("\n"), order(row)))
    mixed = train[1::2]
    test = sorted(test, key=order)[: held_out * len(sites)]
    for site, banded, any_kind, asked in zip(sites, parts(by_steps, sites), parts(mixed, sites), equal(test, len(sites)), strict=True):
        own = sorted(banded + any_kind, key=order)
        write(out / site.name, [question(row) for row in own], [question(row) for row in asked])


def deal_alike(folder: pathlib.Path, out: pathlib.Path, sites: tuple[Played, ...], held_out: int) -> None:
    """Questions dealt evenly, as FedMeZO's sites have them: no site differs from another but by chance."""
    train, test = gsm8k(folder)
    order = lambda row: digest(row["question"])
    train = sorted((row for row in train if order(row)[0] not in REPAIR), key=order)
    test = sorted(test, key=order)[: held_out * len(sites)]
    for site, own, asked in zip(sites, equal(train, len(sites)), equal(test, len(sites)), strict=True):
        write(out / site.name, [question(row) for row in own], [question(row) for row in asked])


def parts(rows: list, sites: tuple[Played, ...]) -> list[list]:
    """The rows in their order, each site's share."""
    found, begin, share = [], 0, 0.0
    for site in sites:
        share += site.share
        end = round(share * len(rows))
        found.append(rows[begin:end])
        begin = end
    return found


def equal(rows: list, count: int) -> list[list]:
    """The rows dealt one by one."""
    return [rows[number::count] for number in range(count)]


# ---------------------------------------------------------------------------------------------------------------------
# Mail.
# ---------------------------------------------------------------------------------------------------------------------


def mails(corpus: pathlib.Path) -> list[mail_sites.Mail]:
    """The corpus without repeats."""
    read = mail_sites.read_corpus(corpus)
    if not read:
        raise DataError(f"there are no mails below {corpus}. Next: ./run setup mail")
    return mail_sites.without_repeats(read)


def deal_mail(corpus: pathlib.Path, out: pathlib.Path, sites: tuple[Played, ...], held_out: int) -> None:
    """Whole lists on one site, spam by share; each site is asked half spam, half ham."""
    kept = [mail for mail in mails(corpus) if mail.order()[0] not in REPAIR]
    shares = tuple((site.name, site.share) for site in sites)
    for site in mail_sites.deal(kept, held_out, shares):
        write(out / site.name, [mail.record() for mail in site.train], [mail.record() for mail in site.held_out])


# ---------------------------------------------------------------------------------------------------------------------
# The small model's.
# ---------------------------------------------------------------------------------------------------------------------


def repair(corpus: pathlib.Path, folder: pathlib.Path, out: pathlib.Path) -> None:
    """Plain text of what no site holds: questions with answers, and mails without a word on whether they are spam."""
    train, _ = gsm8k(folder)
    texts = [f"{text['prompt']}{text['completion']}" for text in map(question, train) if digest(text_of(text))[0] in REPAIR]
    texts += [mail.record()["prompt"].removesuffix(mail_sites.QUESTION) for mail in mails(corpus) if mail.order()[0] in REPAIR]
    texts.sort(key=digest)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")


def text_of(record: dict[str, str]) -> str:
    """The question alone, by which GSM8K's records are dealt."""
    return record["prompt"].removeprefix("Question: ").removesuffix("\nAnswer:")


def write(folder: pathlib.Path, train: list[dict], held_out: list[dict]) -> None:
    """A site's files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in (("train", train), ("heldout", held_out)):
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


DEALERS: dict[str, Callable[[pathlib.Path, pathlib.Path, tuple[Played, ...], int], None]] = {"gsm8k": deal_gsm8k, "mail": deal_mail}
