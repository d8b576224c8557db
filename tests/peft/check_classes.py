#!/usr/bin/env python3
"""Opens classification adapters, and encoders that they were merged into, with the packages that people load them with, PEFT and
transformers, and compares what all say.

    FEDPIPE_BIN=target/debug/fedpipe python3 tests/peft/check_classes.py

Needs torch, transformers, peft and safetensors (benches/requirements.txt has versions); where one is missing every test is reported
as skipped, with its name. The models are the engine's tiny random BERT, RoBERTa and DistilBERT; with FEDPIPE_MINILM naming
all-MiniLM-L6-v2's folder that one is trained as well.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ENCODER = ROOT / "libs/engine/tests/reference/encoder"
OTHERS = [ROOT / "libs/engine/tests/reference/encoders" / name for name in ("roberta", "distilbert")]
FEDPIPE = os.environ.get("FEDPIPE_BIN", str(ROOT / "target/debug/fedpipe"))
MINILM = os.environ.get("FEDPIPE_MINILM")
LABELS = ["ham", "sport", "spam"]
WORDS = {"ham": "meeting", "sport": "goal", "spam": "money"}

try:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

    MISSING = None
except ImportError as error:
    MISSING = f"{error.name} is not installed"


def fedpipe(*words: object) -> dict:
    """What a command says as JSON."""
    done = subprocess.run([FEDPIPE, *map(str, words), "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@unittest.skipIf(MISSING, MISSING or "")
class Classes(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = pathlib.Path(place.name)
        self.data = self.place / "records.jsonl"
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.records = [
            {"text": f"{letters[number % 26]} {WORDS[label]} {WORDS[label]} {letters[number % 26]}!", "label": label}
            for number in range(30)
            for label in [LABELS[number % 3]]
        ]
        self.data.write_text("".join(json.dumps(record) + "\n" for record in self.records))

    def compare(self, model: pathlib.Path, rate: float, steps: int) -> None:
        adapter = self.place / "adapter"
        labels = [f"--label={label}" for label in LABELS]
        common = ["--model", model, "--data", self.data, "--sequence-length", 32, *labels]
        fedpipe("train", *common, "--out", adapter, "--steps", steps, "--targets", "all-linear", "--learning-rate", rate, "--rank", 4)
        found = fedpipe("eval", *common, "--adapter", adapter)

        words = AutoTokenizer.from_pretrained(model)
        kind = AutoModelForSequenceClassification if model in OTHERS else BertForSequenceClassification
        base = kind.from_pretrained(model, num_labels=len(LABELS), dtype=torch.float32)
        tuned = PeftModel.from_pretrained(base, adapter).eval()
        merged, its_words = self.merged(model, adapter)
        self.assertEqual([merged.config.id2label[number] for number in range(len(LABELS))], LABELS)
        told, confusion = 0.0, [[0] * len(LABELS) for _ in LABELS]
        with torch.no_grad():
            for record in self.records:
                ids = torch.tensor([words(record["text"], truncation=True, max_length=32)["input_ids"]])
                logits, wanted = tuned(ids).logits, LABELS.index(record["label"])
                told += torch.nn.functional.cross_entropy(logits, torch.tensor([wanted])).item()
                confusion[wanted][int(logits.argmax())] += 1
                ours = its_words(record["text"], truncation=True, max_length=32, return_tensors="pt")
                self.assertEqual(ours["input_ids"].tolist(), ids.tolist())
                self.assertLess((merged(**ours).logits - logits).norm() / logits.norm(), 1e-5)
        self.assertAlmostEqual(found["loss"], told / len(self.records), delta=1e-5)
        self.assertEqual(found["confusion"], confusion)
        # It learned something, in the head and below it.
        self.assertGreater(found["balanced_accuracy"], 0.9)

    def merged(self, model: pathlib.Path, adapter: pathlib.Path, *more: object):
        """The export of both as one model, as people open it."""
        out = self.place / "merged"
        found = fedpipe("export", "--adapter", adapter, "--model", model, "--to", "merged", "-o", out, "--force", *more)
        self.assertLessEqual(found["logits_off"], found["logits_bound"])
        opened, told = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
        # Nothing was made up for want of a tensor, and no tensor is left over.
        self.assertEqual({what: list(names) for what, names in told.items() if names}, {})
        return opened.eval(), AutoTokenizer.from_pretrained(out)

    def test_an_adapter_with_its_head_says_in_peft_what_it_says_here(self):
        self.compare(ENCODER, 1e-2, 120)

    def test_other_families_say_in_peft_what_they_say_here(self):
        for model in OTHERS:
            with self.subTest(model.name):
                self.compare(model, 1e-2, 120)

    @unittest.skipUnless(MINILM, "FEDPIPE_MINILM does not name the model")
    def test_minilm_says_in_peft_what_it_says_here(self):
        self.compare(pathlib.Path(MINILM), 2e-3, 20)

    def test_an_export_for_peft_is_the_same_adapter(self):
        for model in (ENCODER, *OTHERS):
            with self.subTest(model.name):
                out = self.place / model.name
                fedpipe("export", "--adapter", model / "adapter", "--model", model, "--to", "peft", "-o", out)
                for name in ("adapter_model.safetensors", "adapter_config.json"):
                    self.assertTrue((out / name).is_file())
                ids = torch.tensor([[2, 57, 61, 30, 3]])
                opened = [AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32) for _ in range(2)]
                with torch.no_grad():
                    theirs = PeftModel.from_pretrained(opened[0], model / "adapter").eval()(ids).logits
                    ours = PeftModel.from_pretrained(opened[1], out).eval()(ids).logits
                self.assertTrue(torch.equal(theirs, ours))

    def test_a_merged_encoder_says_in_transformers_what_peft_says(self):
        base = BertForSequenceClassification.from_pretrained(ENCODER, dtype=torch.float32)
        theirs = PeftModel.from_pretrained(base, ENCODER / "adapter").eval()
        merged, words = self.merged(ENCODER, ENCODER / "adapter")
        self.assertEqual(merged.config.label2id, {"ham": 0, "sport": 1, "spam": 2})
        names = [f"--label={name}" for name in ("meeting", "goal", "money")]
        halves, _ = self.merged(ENCODER, ENCODER / "adapter", "--precision", "f16", *names)
        self.assertEqual(halves.config.id2label, {0: "meeting", 1: "goal", 2: "money"})
        self.assertEqual(halves.dtype, torch.float16)
        with torch.no_grad():
            # Two texts of different length: what fills up the shorter is not seen.
            ids = words(["a goal b", "money"], padding=True, return_tensors="pt")
            wanted = theirs(**ids).logits
            self.assertLess((merged(**ids).logits - wanted).norm() / wanted.norm(), 1e-5)
            self.assertLess((halves.float()(**ids).logits - wanted).norm() / wanted.norm(), 1e-2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
