#!/usr/bin/env python3
"""Gives the vocabularies that `fedpipe export` writes to the packages that people load them with, and compares the token ids.

    FEDPIPE_BIN=target/debug/fedpipe python3 tests/peft/check_vocabularies.py

Needs torch, transformers and gguf (benches/requirements.txt has versions), and for llama.cpp's own ids xllamacpp, a wheel of it; where one
is missing its tests are reported as skipped, with their names. Vocabularies and ids are those of the engine's tests.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
REFERENCE = ROOT / "libs/engine/tests/reference"
FEDPIPE = os.environ.get("FEDPIPE_BIN", str(ROOT / "target/debug/fedpipe"))
ROWS = 540  # more than each vocabulary has

try:
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    MISSING = None
except ImportError as error:
    MISSING = f"{error.name} is not installed"

# Ids of texts, without and with the tokens around a sequence. In a process of its own, which ends without waiting for the server.
LLAMA_CPP = """
import json, os, sys, urllib.request
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.port = sys.argv[1], 64, 1, 0
params.warmup = params.fit_params = False
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
place = server.listening_address + "/tokenize"
def ids(text, around):
    asked = json.dumps({"content": text, "add_special": around, "parse_special": True}).encode()
    request = urllib.request.Request(place, asked, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=60))["tokens"]
answers = [[ids(text, around) for around in (False, True)] for text in json.load(sys.stdin)]
with open(sys.argv[2], "w") as file:
    json.dump(answers, file)
os._exit(0)
"""


@unittest.skipIf(MISSING, MISSING)
class SentencePiece(unittest.TestCase):
    """The ways of Llama 2 and of Gemma, each with a tiny model of its family."""

    FAMILIES = {"llama2": "mistral", "gemma": "gemma3"}

    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = pathlib.Path(place.name)
        self.values = json.loads((REFERENCE / "sentencepiece/values.json").read_text())

    def each(self):
        for name, family in self.FAMILIES.items():
            with self.subTest(vocabulary=name):
                yield name, self.export(name, self.model(name, family), "gguf", "--name", "tiny")

    def model(self, name: str, family: str) -> pathlib.Path:
        """The family's tiny model with as many rows as the vocabulary needs."""
        folder = self.place / name / "model"
        model = AutoModelForCausalLM.from_pretrained(str(REFERENCE / "architectures" / family), dtype=torch.float32)
        model.resize_token_embeddings(ROWS, mean_resizing=False)
        model.config.bos_token_id, model.config.eos_token_id = (2, 1) if name == "gemma" else (1, 2)
        model.save_pretrained(str(folder))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(REFERENCE / "sentencepiece" / name / file, folder)
        return folder

    def export(self, name: str, model: pathlib.Path, to: str, *more: str) -> pathlib.Path:
        out = self.place / name / to
        adapter = REFERENCE / "architectures" / self.FAMILIES[name] / "adapter"
        command = [FEDPIPE, "export", "--adapter", adapter, "--model", model, "--to", to, "-o", out, "--precision", "f32", "--json", *more]
        said = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
        self.assertIsNone(json.loads(said.stdout)["tokenizer_differs"])
        return out

    def test_the_gguf_package_reads_pieces_scores_and_kinds(self):
        for name, out in self.each():
            said = {key: field.contents() for key, field in gguf.GGUFReader(str(out / "model.gguf")).fields.items()}
            self.assertEqual((said["tokenizer.ggml.model"], said["tokenizer.ggml.pre"]), ("llama", "default"))
            made = gguf.GGUFReader(str(REFERENCE / f"sentencepiece/{name}.gguf")).fields
            tokens, kinds = (made[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type"))
            tab = tokens.index("<0x09>")
            for place, (token, kind) in enumerate(zip(tokens, kinds)):
                if name == "gemma" and place == tab:
                    token, kind = "\t", gguf.TokenType.NORMAL
                own = (said["tokenizer.ggml.tokens"][place], said["tokenizer.ggml.token_type"][place])
                self.assertEqual(own, (token, int(kind)), place)
            self.assertEqual(len(said["tokenizer.ggml.scores"]), ROWS)
            ids = {key: said[f"tokenizer.ggml.{key}_token_id"] for key in ("bos", "eos", "unknown")}
            self.assertEqual(ids, {"bos": 2, "eos": 1, "unknown": 3} if name == "gemma" else {"bos": 1, "eos": 2, "unknown": 0})
            self.assertEqual(said["tokenizer.ggml.add_space_prefix"], name != "gemma")

    def test_transformers_makes_the_same_ids_of_the_file_and_of_the_folder_that_is_made_of_it(self):
        for name, out in self.each():
            # Where a blank is put in front, transformers' reader of GGUF does so neither before another nor behind a special token.
            ordinary = [want for want in self.values[name] if name == "gemma" or not (want["text"][:1] in (" ", "▁") or "<s>" in want["text"])]
            self.assertGreater(len(ordinary), 15)
            self.same(AutoTokenizer.from_pretrained(str(out), gguf_file="model.gguf"), ordinary)
            self.same(AutoTokenizer.from_pretrained(str(self.export(name, out, "merged"))), self.values[name])

    def same(self, tokenizer, texts):
        for want in texts:
            self.assertEqual(tokenizer(want["text"], add_special_tokens=False).input_ids, want["ids"], want["text"])
            self.assertEqual(tokenizer(want["text"]).input_ids, want["ids_with_special"], want["text"])

    @unittest.skipUnless(importlib.util.find_spec("xllamacpp"), "xllamacpp is not installed")
    def test_llama_cpp_loads_the_file_and_makes_the_same_ids(self):
        for name, out in self.each():
            answers = self.place / f"{name}.json"
            texts = json.dumps([want["text"] for want in self.values[name]])
            command = [sys.executable, "-c", LLAMA_CPP, str(out / "model.gguf"), str(answers)]
            subprocess.run(command, input=texts, check=True, capture_output=True, text=True, timeout=120)
            for want, got in zip(self.values[name], json.loads(answers.read_text()), strict=True):
                self.assertEqual(got, [want["ids"], want["ids_with_special"]], want["text"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
