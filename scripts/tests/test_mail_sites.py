"""Behaviour of the mail dealer on a small invented corpus."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import mail_sites  # noqa: E402


def raw(subject: str, body: str, **headers: str) -> bytes:
    """A mail as it lies in the corpus."""
    lines = [f"Subject: {subject}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()), "", body]
    return "\n".join(lines).encode()


# Numbers are not letters: bodies must differ in words to be different mails.
def word(number: int) -> str:
    return "".join("abcdefghij"[int(digit)] for digit in f"{number:05}")


def write_corpus(folder: pathlib.Path) -> None:
    """Seven lists of ham of different size, and 100 spam."""
    number = 0
    for size in (60, 40, 30, 20, 12, 8, 4):
        for _ in range(size):
            number += 1
            path = folder / "easy-ham-1" / f"{number:05}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw(f"Re: {word(number)}", f"Dear list, {word(number)}", List_Id=f"A list <list-{size}.example.org>"))
    for _ in range(100):
        number += 1
        path = folder / "spam-1" / f"{number:05}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw(f"Win {word(number)}", f"Buy now {word(number)}", From="seller@example.com"))


class Parsing(unittest.TestCase):
    def parse(self, content: bytes) -> mail_sites.Mail:
        return mail_sites.parse("easy-ham-1/1.txt", content, spam=False)

    def test_an_encoded_subject_is_decoded(self):
        self.assertEqual(self.parse(raw("=?iso-8859-1?Q?Caf=E9_?= now", "x")).subject, "Café now")

    def test_the_plain_part_is_preferred_to_the_html_part(self):
        body = (
            "--B\nContent-Type: text/html\n\n<p>marked up</p>\n--B\nContent-Type: text/plain\n"
            "Content-Transfer-Encoding: quoted-printable\n\npl=61in\n--B--\n"
        )
        content = raw("s", body, MIME_Version="1.0", Content_Type='multipart/alternative; boundary="B"')
        self.assertEqual(self.parse(content).body.strip(), "plain")

    def test_html_loses_tags_scripts_and_entities(self):
        body = "<html><style>p{}</style><!-- hidden --><script>x()</script><p>Fish &amp; chips</p></html>"
        self.assertEqual(self.parse(raw("s", body, Content_Type="text/html")).body.split(), ["Fish", "&", "chips"])

    def test_a_charset_nobody_knows_is_read_as_latin_1(self):
        content = raw("s", "", Content_Type="text/plain; charset=no-such-charset") + "\n".encode() + b"na\xefve"
        self.assertIn("naïve", self.parse(content).body)

    def test_a_list_is_known_by_the_name_in_brackets_and_else_by_the_sender(self):
        self.assertEqual(self.parse(raw("s", "b", List_Id="The Forks <Fork.example.com>")).list_name, "fork.example.com")
        self.assertEqual(self.parse(raw("s", "b", From="Someone <someone@Example.COM>")).list_name, "from example.com")

    def test_the_question_is_never_cut(self):
        record = self.parse(raw("s " * 500, "word " * 500)).record()
        self.assertTrue(record["prompt"].endswith("\nIs this mail spam? Answer:"))
        self.assertLess(len(record["prompt"]), mail_sites.SUBJECT_CHARACTERS + mail_sites.CHARACTERS + 60)
        self.assertEqual(record["completion"], " no")


class Dealing(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        write_corpus(self.folder / "corpus")
        self.mails = mail_sites.without_repeats(mail_sites.read_corpus(self.folder / "corpus"))
        self.sites = mail_sites.deal(self.mails, 10)

    def test_mails_that_begin_alike_are_one_mail(self):
        letter = "x" * mail_sites.SAME_AFTER_LETTERS
        mails = [mail_sites.parse(f"spam-1/{i}", raw("s", f"{letter[:50]} {i}\n{letter[50:]} {word(i)}"), spam=True) for i in range(3)]
        self.assertEqual(mail_sites.without_repeats(mails), mails[:1])

    def test_every_mail_goes_to_one_place(self):
        placed = [mail.name for site in self.sites for mail in site.train + site.held_out]
        self.assertEqual(sorted(placed), sorted(mail.name for mail in self.mails))

    def test_no_held_out_mail_begins_like_a_training_mail(self):
        trained = {mail.beginning() for site in self.sites for mail in site.train}
        self.assertFalse(trained & {mail.beginning() for site in self.sites for mail in site.held_out})

    def test_a_list_lies_whole_on_one_site(self):
        homes: dict[str, set[str]] = {}
        for site in self.sites:
            for mail in site.train + site.held_out:
                if not mail.spam:
                    homes.setdefault(mail.list_name, set()).add(site.name)
        self.assertEqual({name: len(where) for name, where in homes.items()}, dict.fromkeys(homes, 1))
        self.assertEqual(len(homes), 7)

    def test_held_out_mail_is_half_spam_on_every_site(self):
        for site in self.sites:
            self.assertEqual(sum(mail.spam for mail in site.held_out), 5)
            self.assertEqual(len(site.held_out), 10)

    def test_spam_is_dealt_50_30_20(self):
        spam = [sum(mail.spam for mail in site.train + site.held_out) for site in self.sites]
        self.assertEqual(spam, [50, 30, 20])

    def test_too_few_mails_to_hold_back_is_an_error_that_says_where(self):
        with self.assertRaisesRegex(ValueError, "mail-c has 20 mails of one kind"):
            mail_sites.deal(self.mails, 40)

    def test_the_same_corpus_gives_the_same_bytes(self):
        for out in ("one", "two"):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                self.assertEqual(mail_sites.main([str(self.folder / "corpus"), str(self.folder / out), "--held-out", "10"]), 0)
            self.assertIn("mail-a", printed.getvalue())
        for site, _ in mail_sites.SITES:
            for name in ("train.jsonl", "heldout.jsonl"):
                one = (self.folder / "one" / site / name).read_bytes()
                self.assertEqual(one, (self.folder / "two" / site / name).read_bytes())
                for line in one.splitlines():
                    self.assertEqual(set(json.loads(line)), {"prompt", "completion"})


if __name__ == "__main__":
    unittest.main()
