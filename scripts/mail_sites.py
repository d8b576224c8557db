#!/usr/bin/env python3
"""Deal the SpamAssassin corpus to three mail providers that do not resemble each other.

Promises: the same corpus gives the same files, byte for byte; mails that begin alike are one mail, so that none is both
learned from and asked about; a mailing list lies whole on one site; each site keeps back as much spam as ham.
Does not: fetch the corpus (`./run setup mail`), or tokenize: the engine cuts what is still too long, in the middle.

    scripts/mail_sites.py CORPUS OUT [--held-out N]     writes OUT/<site>/{train,heldout}.jsonl
"""

import argparse
import email
import email.header
import email.message
import email.policy
import hashlib
import html
import json
import pathlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

# Name of each site and its share of the spam. Most spam names no list, so it is dealt by share.
SITES = (("mail-a", 0.5), ("mail-b", 0.3), ("mail-c", 0.2))
HELD_OUT_PER_SITE = 102
SAME_AFTER_LETTERS = 100  # mails whose bodies share these first letters are one mail
SUBJECT_CHARACTERS = 60
WORDS = 30
CHARACTERS = 150
QUESTION = "Is this mail spam? Answer:"


@dataclass(frozen=True)
class Mail:
    """One mail as a person reads it. `list_name` is what it was distributed by: its list, or its sender's domain."""

    name: str
    subject: str
    body: str
    list_name: str
    spam: bool

    def beginning(self) -> str:
        """The first letters of the body (of the subject, if the body has none), by which repeats are known."""
        return letters(self.body) or letters(self.subject)

    def record(self) -> dict[str, str]:
        """The training record: question after the mail, answer as the completion."""
        body = " ".join(self.body.split()[:WORDS])[:CHARACTERS].rstrip()
        prompt = f"Subject: {self.subject[:SUBJECT_CHARACTERS].rstrip()}\n{body}\n{QUESTION}"
        return {"prompt": prompt, "completion": " yes" if self.spam else " no"}

    def order(self) -> str:
        """A fixed shuffle: the digest of the name, which tells nothing about the mail."""
        return hashlib.sha256(self.name.encode()).hexdigest()


@dataclass
class Site:
    """What one provider holds, and what it keeps back for the score."""

    name: str
    lists: list[str] = field(default_factory=list)
    train: list[Mail] = field(default_factory=list)
    held_out: list[Mail] = field(default_factory=list)


def letters(text: str) -> str:
    """The first letters alone, in lower case: a new date, number or line break does not make a new mail."""
    return "".join(c for c in text[: 40 * SAME_AFTER_LETTERS].lower() if c.isalpha())[:SAME_AFTER_LETTERS]


# ---------------------------------------------------------------------------------------------------------------------
# Reading mails.
# ---------------------------------------------------------------------------------------------------------------------


def read_corpus(folder: pathlib.Path) -> list[Mail]:
    """Every mail below `folder`, in the order of the names; a folder named spam-… holds spam, every other ham."""
    return [
        parse(f"{path.parent.name}/{path.name}", path.read_bytes(), spam=path.parent.name.startswith("spam"))
        for path in sorted(folder.glob("*/*.txt"))
    ]


def parse(name: str, raw: bytes, spam: bool) -> Mail:
    """A mail from its raw bytes. Old mail breaks every rule: what cannot be decoded is replaced, never refused."""
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    return Mail(
        name=name,
        subject=header(message, "Subject"),
        body=readable(message),
        list_name=list_of(message),
        spam=spam,
    )


def header(message: email.message.Message, name: str) -> str:
    """A header's text, encoded words decoded, on one line."""
    text = ""
    try:
        for part, charset in email.header.decode_header(str(message.get(name, ""))):
            text += decode(part, charset) if isinstance(part, bytes) else part
    except (email.errors.HeaderParseError, ValueError):
        text = str(message.get(name, ""))
    return " ".join(text.split())


def list_of(message: email.message.Message) -> str:
    """The List-Id in angle brackets, or all of it, or else the domain of the sender."""
    identity = header(message, "List-Id")
    if identity:
        bracketed = re.search(r"<([^<>]+)>", identity)
        return (bracketed.group(1) if bracketed else identity).lower()
    domain = re.search(r"@([\w.-]+)", header(message, "From"))
    return f"from {domain.group(1).lower()}" if domain else "from nobody"


def readable(message: email.message.Message) -> str:
    """The plain text if there is any, else the text of the HTML."""
    plain, marked_up = "", ""
    for part in message.walk():
        kind = part.get_content_type()
        if part.is_multipart() or not kind.startswith("text/"):
            continue
        payload = part.get_payload(decode=True)
        text = decode(payload if isinstance(payload, bytes) else b"", part.get_content_charset())
        if kind == "text/html" or re.match(r"\s*<(!doctype|html|head|body)\b", text, re.IGNORECASE):
            marked_up = marked_up or without_tags(text)
        else:
            plain = plain or text
    return plain if plain.strip() else marked_up


def without_tags(text: str) -> str:
    """What a reader of the HTML would see, roughly."""
    text = re.sub(r"(?is)<(script|style|title)\b.*?</\1\s*>|<!--.*?-->", " ", text)
    return html.unescape(re.sub(r"(?s)<[^<>]*>", " ", text))


def decode(raw: bytes, charset: str | None) -> str:
    """Text in the charset that is claimed; Latin-1, which takes every byte, if that is unknown or wrong."""
    try:
        return raw.decode(charset or "ascii")
    except (LookupError, UnicodeError, ValueError):
        return raw.decode("latin-1")


# ---------------------------------------------------------------------------------------------------------------------
# Dealing.
# ---------------------------------------------------------------------------------------------------------------------


def without_repeats(mails: Iterable[Mail]) -> list[Mail]:
    """The first of all mails that begin alike."""
    seen: dict[str, Mail] = {}
    for mail in mails:
        seen.setdefault(mail.beginning(), mail)
    return list(seen.values())


def deal(mails: list[Mail], held_out_per_site: int, shares: tuple[tuple[str, float], ...] = SITES) -> list[Site]:
    """The sites of `shares`; `mails` must hold no repeats. Each site keeps back half spam, half ham."""
    sites = [Site(name) for name, _ in shares]
    deal_ham([mail for mail in mails if not mail.spam], sites)
    deal_spam([mail for mail in mails if mail.spam], sites, shares)
    for site in sites:
        site.train.sort(key=Mail.order)
        for spam in (True, False):
            kind = [mail for mail in site.train if mail.spam == spam]
            if len(kind) <= held_out_per_site // 2:
                raise ValueError(f"{site.name} has {len(kind)} mails of one kind: too few to keep {held_out_per_site // 2} back")
            site.held_out += kind[: held_out_per_site // 2]
        kept_back = set(site.held_out)
        site.train = [mail for mail in site.train if mail not in kept_back]
        site.held_out.sort(key=Mail.order)
    return sites


def deal_ham(ham: list[Mail], sites: list[Site]) -> None:
    """Whole lists, the largest first, each to the site that has the least ham so far."""
    lists: dict[str, list[Mail]] = {}
    for mail in ham:
        lists.setdefault(mail.list_name, []).append(mail)
    for name, members in sorted(lists.items(), key=lambda item: (-len(item[1]), item[0])):
        poorest = min(sites, key=lambda site: len(site.train))
        poorest.lists.append(name)
        poorest.train += members


def deal_spam(spam: list[Mail], sites: list[Site], shares: tuple[tuple[str, float], ...] = SITES) -> None:
    """By their shares, in the fixed shuffle."""
    spam = sorted(spam, key=Mail.order)
    begin, share = 0, 0.0
    for site, (_, part) in zip(sites, shares, strict=True):
        share += part
        end = round(share * len(spam))
        site.train += spam[begin:end]
        begin = end


# ---------------------------------------------------------------------------------------------------------------------
# The command.
# ---------------------------------------------------------------------------------------------------------------------


def write(sites: list[Site], out: pathlib.Path) -> None:
    """One folder per site, one JSON record a line."""
    for site in sites:
        folder = out / site.name
        folder.mkdir(parents=True, exist_ok=True)
        for name, mails in (("train", site.train), ("heldout", site.held_out)):
            lines = [json.dumps(mail.record(), ensure_ascii=False) + "\n" for mail in mails]
            (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def table(sites: list[Site], read: int, kept: int) -> str:
    """What lies where, for the terminal."""
    rows = [f"{read} mails read, {read - kept} begin like another and are left out", ""]
    rows.append(f"{'site':8} {'lists':>5} {'ham':>6} {'spam':>6} {'held out':>9}  largest lists")
    for site in sites:
        spam = sum(mail.spam for mail in site.train)
        largest = ", ".join(site.lists[:3])
        rows.append(f"{site.name:8} {len(site.lists):5} {len(site.train) - spam:6} {spam:6} {len(site.held_out):9}  {largest}")
    return "\n".join(rows)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--held-out", type=int, default=HELD_OUT_PER_SITE, metavar="N", help="mails kept back per site (default %(default)s)")
    options = parser.parse_args(arguments)
    read = read_corpus(options.corpus)
    if not read:
        print(f"mail_sites: there are no mails below {options.corpus}. Next: ./run setup mail", file=sys.stderr)
        return 1
    mails = without_repeats(read)
    try:
        sites = deal(mails, options.held_out)
    except ValueError as error:
        print(f"mail_sites: {error}", file=sys.stderr)
        return 1
    write(sites, options.out)
    print(table(sites, len(read), len(mails)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
