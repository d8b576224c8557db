#!/usr/bin/env python3
"""Opens what `fedpipe export` writes with the packages that people load it with: PEFT, transformers, gguf.

    FEDPIPE_BIN=target/debug/fedpipe python3 tests/peft/check_exports.py

Needs torch, transformers, peft, safetensors and gguf (benches/requirements.txt has versions); where one is missing every
test is reported as skipped, with its name. The tiny model and the adapters are those of the engine's tests. With
FEDPIPE_SMOLLM2 naming the real model, it is exported and opened as well.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
REFERENCE = ROOT / "libs/engine/tests/reference"
FEDPIPE = os.environ.get("FEDPIPE_BIN", str(ROOT / "target/debug/fedpipe"))
SMOLLM2 = os.environ.get("FEDPIPE_SMOLLM2")
PROMPT = [5, 17, 3, 60, 8, 8, 41, 2, 33]

try:
    import gguf
    import numpy as np
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    MISSING = None
except ImportError as error:
    MISSING = f"{error.name} is not installed"

# Sums are taken in another order; relative to the largest logit.
F32 = 1e-5


def export(model, adapter, to: str, out: pathlib.Path, *more: str) -> dict:
    """What the command says of an export."""
    command = [FEDPIPE, "export", "--adapter", str(adapter), "--model", str(model), "--to", to, "-o", str(out), "--json", *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def load(folder, **more):
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, **more).eval()


def logits(model, prompt=None):
    with torch.no_grad():
        return model(torch.tensor([prompt or PROMPT])).logits[0]


class Case(unittest.TestCase):
    def setUp(self):
        self.place = tempfile.TemporaryDirectory()
        self.addCleanup(self.place.cleanup)
        self.out = pathlib.Path(self.place.name) / "out"

    def near(self, got, want, within):
        off = ((got - want).abs().max() / want.abs().max()).item()
        self.assertLessEqual(off, within)


@unittest.skipIf(MISSING, MISSING)
class Tiny(Case):
    ADAPTERS = ("tiny-adapter", "tiny-uneven")

    def of_peft(self, adapter: str):
        return logits(PeftModel.from_pretrained(load(REFERENCE / "tiny"), str(REFERENCE / adapter)))

    def each(self):
        for adapter in self.ADAPTERS:
            with self.subTest(adapter=adapter):
                self.out = pathlib.Path(self.place.name) / adapter
                yield adapter, self.of_peft(adapter)

    def test_peft_loads_the_adapter_with_its_ranks_and_alphas(self):
        for adapter, want in self.each():
            export(REFERENCE / "tiny", REFERENCE / adapter, "peft", self.out)
            model = PeftModel.from_pretrained(load(REFERENCE / "tiny"), str(self.out))
            self.near(logits(model), want, F32)

    def test_transformers_loads_the_merged_folder_in_every_precision(self):
        for adapter, want in self.each():
            for precision, dtype, within in (("f32", "float32", F32), ("f16", "float16", 1e-2), ("bf16", "bfloat16", 6e-2)):
                out = self.out / precision
                export(REFERENCE / "tiny", REFERENCE / adapter, "merged", out, "--precision", precision)
                self.assertEqual(json.loads((out / "config.json").read_text())["dtype"], dtype)
                self.near(logits(load(out)), want, within)

    def test_transformers_loads_a_folder_that_was_merged_from_a_gguf_file(self):
        for adapter, _ in self.each():
            export(REFERENCE / "tiny.gguf", REFERENCE / adapter, "merged", self.out, "--precision", "f32")
            base = load(REFERENCE, gguf_file="tiny.gguf")
            want = logits(PeftModel.from_pretrained(base, str(REFERENCE / adapter)))
            self.near(logits(load(self.out)), want, F32)

    def test_transformers_loads_the_gguf_file_from_either_source(self):
        for adapter, want in self.each():
            out = self.out / "folder"
            export(REFERENCE / "tiny", REFERENCE / adapter, "gguf", out, "--precision", "f32")
            self.near(logits(load(out, gguf_file="model.gguf")), want, F32)
            out = self.out / "gguf"
            export(REFERENCE / "tiny.gguf", REFERENCE / adapter, "gguf", out, "--precision", "f32")
            base = load(REFERENCE, gguf_file="tiny.gguf")
            want = logits(PeftModel.from_pretrained(base, str(REFERENCE / adapter)))
            self.near(logits(load(out, gguf_file="model.gguf")), want, F32)

    def test_the_gguf_package_reads_metadata_tokens_and_every_tensor(self):
        export(REFERENCE / "tiny", REFERENCE / "tiny-adapter", "gguf", self.out, "--precision", "q8_0", "--name", "a-tiny-one")
        reader = gguf.GGUFReader(str(self.out / "model.gguf"))
        said = {key: field.contents() for key, field in reader.fields.items()}
        self.assertEqual(said["general.architecture"], "llama")
        self.assertEqual(said["general.name"], "a-tiny-one")
        self.assertEqual(said["general.file_type"], int(gguf.LlamaFileType.MOSTLY_Q8_0))
        self.assertEqual(said["llama.attention.head_count_kv"], 2)
        self.assertEqual(said["llama.rope.dimension_count"], 8)
        self.assertEqual((said["tokenizer.ggml.model"], len(said["tokenizer.ggml.tokens"])), ("gpt2", 64))
        self.assertEqual(said["tokenizer.ggml.token_type"][63], int(gguf.TokenType.CONTROL))
        self.assertEqual(said["tokenizer.ggml.eos_token_id"], 63)
        kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
        self.assertEqual(len(kinds), 21)
        self.assertEqual((kinds["blk.1.attn_q.weight"], kinds["output_norm.weight"]), ("Q8_0", "F32"))

    def test_the_adapter_for_llama_cpp_changes_the_weights_by_its_rule(self):
        """llama-adapter.cpp: W += alpha / rank · B·A in the file's own order of rows, rank being that weight's."""
        for adapter, _ in self.each():
            lora, merged = self.out / "lora", self.out / "merged"
            export(REFERENCE / "tiny", REFERENCE / adapter, "gguf-lora", lora)
            export(REFERENCE / "tiny", REFERENCE / adapter, "gguf", merged, "--precision", "f32")
            reader = gguf.GGUFReader(str(lora / "adapter.gguf"))
            said = {key: field.contents() for key, field in reader.fields.items()}
            self.assertEqual((said["general.type"], said["adapter.type"], said["general.architecture"]), ("adapter", "lora", "llama"))
            factors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
            self.assertEqual(len(factors), 28)
            whole = {t.name: np.array(t.data) for t in gguf.GGUFReader(str(merged / "model.gguf")).tensors}
            plain = self.base_tensors()
            for name, before in plain.items():
                if f"{name}.lora_a" not in factors:
                    np.testing.assert_array_equal(whole[name], before)
                    continue
                a, b = factors[f"{name}.lora_a"], factors[f"{name}.lora_b"]
                self.assertEqual((a.shape[1], b.shape[0], a.shape[0]), (before.shape[1], before.shape[0], b.shape[1]))
                change = said["adapter.lora.alpha"] / a.shape[0] * (b @ a)
                np.testing.assert_allclose(whole[name], before + change, atol=2e-6)
                self.assertGreater(np.abs(change).max(), 1e-4, name)

    def base_tensors(self) -> dict:
        """The tiny model in llama.cpp's names and order of rows, by the formula of its converter."""
        names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
                 "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
                 "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
        top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
        out = {}
        for name, tensor in load_file(str(REFERENCE / "tiny/model.safetensors")).items():
            module, value = name.removesuffix(".weight"), tensor.numpy()
            if module in top:
                out[f"{top[module]}.weight"] = value
                continue
            _, _, layer, rest = module.split(".", 3)
            heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}.get(rest)
            if heads:
                value = value.reshape(heads, 2, value.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(value.shape)
            out[f"blk.{layer}.{names[rest]}.weight"] = value
        return out


@unittest.skipIf(MISSING, MISSING)
class Families(Case):
    """Every family's tiny checkpoint, merged and as GGUF, as transformers reads it."""

    def test_transformers_loads_every_family_from_a_merged_folder_and_from_gguf(self):
        for folder in sorted((REFERENCE / "architectures").iterdir()):
            with self.subTest(family=folder.name):
                want = logits(PeftModel.from_pretrained(load(folder), str(folder / "adapter")))
                merged, whole = (pathlib.Path(self.place.name) / f"{folder.name}-{to}" for to in ("merged", "gguf"))
                export(folder, folder / "adapter", "merged", merged)
                self.near(logits(load(merged)), want, F32)
                # transformers takes a llama that is called mistral for one, which the gguf package does not know.
                export(folder, folder / "adapter", "gguf", whole, "--precision", "f32", "--name", "tiny")
                if folder.name == "llama3":
                    # transformers does not read the divisors; the tensor is compared instead.
                    tensors = {t.name: np.array(t.data) for t in gguf.GGUFReader(str(whole / "model.gguf")).tensors}
                    inverse = load(folder).model.rotary_emb.inv_freq.numpy()
                    plain = 10000.0 ** (-np.arange(0, 8, 2) / 8)
                    np.testing.assert_allclose(plain / tensors["rope_freqs.weight"], inverse, rtol=1e-5)
                    continue
                # What transformers does not read of these: key_length of qwen3, context_length of gpt2, and for gemma3 the
                # width of heads as what scores are divided by.
                own = {"config": AutoConfig.from_pretrained(str(folder))} if folder.name in ("qwen3", "gpt2", "gemma3") else {}
                self.near(logits(load(whole, gguf_file="model.gguf", **own)), want, F32)

    def test_gguf_says_what_llama_cpp_reads_of_the_families_with_keys_of_their_own(self):
        wanted = {
            "gpt2": {"gpt2.context_length": 96, "gpt2.embedding_length": 16, "gpt2.feed_forward_length": 64, "gpt2.block_count": 2,
                     "gpt2.attention.head_count": 4, "gpt2.attention.layer_norm_epsilon": 1e-5},
            "gemma3": {"gemma3.attention.sliding_window": 6, "gemma3.attention.key_length": 8, "gemma3.rope.freq_base": 1e6,
                       "gemma3.attention.head_count_kv": 2, "gemma3.attention.layer_norm_rms_epsilon": 1e-5},
        }
        for name, keys in wanted.items():
            with self.subTest(family=name):
                folder, out = REFERENCE / "architectures" / name, self.out / name
                export(folder, folder / "adapter", "gguf", out, "--precision", "f32")
                reader = gguf.GGUFReader(str(out / "model.gguf"))
                for key, value in keys.items():
                    self.assertAlmostEqual(reader.fields[key].contents(), value, places=9, msg=key)
                arch = next(one for one, own in gguf.MODEL_ARCH_NAMES.items() if own == name)
                kinds = [gguf.TENSOR_NAMES[kind] for kind in gguf.MODEL_TENSORS[arch]]
                known = {kind.format(bid=layer) for kind in kinds for layer in range(6)}
                for tensor in reader.tensors:
                    self.assertIn(tensor.name.rsplit(".", 1)[0], known)

    def test_the_adapter_for_llama_cpp_changes_the_weights_of_every_family_by_its_rule(self):
        """As for the tiny model above, with the file's own tensors before and after."""

        def tensors(path: pathlib.Path) -> dict:
            return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(str(path)).tensors}

        for folder in sorted((REFERENCE / "architectures").iterdir()):
            with self.subTest(family=folder.name):
                place = pathlib.Path(self.place.name) / f"{folder.name}-lora"
                own, still = folder / "adapter", place / "still"
                still.mkdir(parents=True)
                (still / "adapter_config.json").write_bytes((own / "adapter_config.json").read_bytes())
                factors = load_file(str(own / "adapter_model.safetensors"))
                zeros = {key: tensor * (0 if "lora_B" in key else 1) for key, tensor in factors.items()}
                save_file(zeros, str(still / "adapter_model.safetensors"))
                export(folder, own, "gguf-lora", place / "lora")
                export(folder, still, "gguf", place / "before", "--precision", "f32")
                export(folder, own, "gguf", place / "after", "--precision", "f32")
                lora, before, after = (tensors(place / name) for name in ("lora/adapter.gguf", "before/model.gguf", "after/model.gguf"))
                alpha = gguf.GGUFReader(str(place / "lora/adapter.gguf")).fields["adapter.lora.alpha"].contents()
                self.assertEqual(len(lora), len(factors))
                for name, values in before.items():
                    if f"{name}.lora_a" not in lora:
                        np.testing.assert_array_equal(after[name], values, name)
                        continue
                    a, b = lora.pop(f"{name}.lora_a"), lora.pop(f"{name}.lora_b")
                    change = alpha / a.shape[0] * (b @ a)
                    np.testing.assert_allclose(after[name], values + change, atol=2e-6, err_msg=name)
                    self.assertGreater(np.abs(change).max(), 1e-4, name)
                self.assertEqual(lora, {}, "each changed a weight")

    def test_peft_loads_every_familys_adapter_with_all_its_modules(self):
        for folder in sorted((REFERENCE / "architectures").iterdir()):
            with self.subTest(family=folder.name), warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                out = pathlib.Path(self.place.name) / f"{folder.name}-peft"
                export(folder, folder / "adapter", "peft", out)
                own = {name: tensor for name, tensor in load_file(str(out / "adapter_model.safetensors")).items()}
                model = PeftModel.from_pretrained(load(folder), str(out))
                loaded = {name.replace(".default", ""): p for name, p in model.named_parameters() if "lora_" in name}
                self.assertEqual(set(own), set(loaded))
                for name, tensor in own.items():
                    self.assertTrue(torch.equal(tensor, loaded[name]), name)
                want = logits(PeftModel.from_pretrained(load(folder), str(folder / "adapter")))
                self.near(logits(model), want, F32)
                about = [str(one.message) for one in said]
                self.assertFalse([text for text in about if "fan_in_fan_out" in text or "keys" in text], about)


@unittest.skipIf(MISSING, MISSING)
@unittest.skipUnless(SMOLLM2, "FEDPIPE_SMOLLM2 does not name the model")
class SmolLM2(Case):
    TEXT = "The capital of France is Paris; it's 1234 km² away.\n\n  def f(x):\n\treturn x  # naïve 日本語 😀"

    def test_the_real_model_keeps_its_numbers_tokens_and_template(self):
        adapter = self.adapter()
        path = pathlib.Path(SMOLLM2)
        base = load(path.parent, gguf_file=path.name)
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        prompt = [504, 3575, 282, 4649, 314]  # "The capital of France is", by the engine's own reference
        want = logits(PeftModel.from_pretrained(base, str(adapter)), prompt)
        merged = self.out / "merged"
        said = export(path, adapter, "merged", merged)
        print("SmolLM2 merged, f16:", said["logits_off"])
        self.near(logits(load(merged), prompt), want, 1e-2)
        own = AutoTokenizer.from_pretrained(str(merged))
        self.assertEqual(own.encode("The capital of France is"), prompt)
        self.assertEqual(own.decode(own.encode(self.TEXT)), self.TEXT)
        turns = [{"role": "user", "content": "Hello"}]
        self.assertEqual(own.apply_chat_template(turns, tokenize=False), tokenizer.apply_chat_template(turns, tokenize=False))
        self.assertEqual(own.eos_token, tokenizer.eos_token)

        # Folder → gguf: the tokenizer is said in GGUF's words again.
        back = self.out / "gguf"
        said = export(merged, adapter, "gguf", back, "--precision", "q8_0")
        print("SmolLM2 gguf, q8_0:", said["logits_off"])
        fields = {key: field.contents() for key, field in gguf.GGUFReader(str(back / "model.gguf")).fields.items()}
        source = {key: field.contents() for key, field in gguf.GGUFReader(str(path)).fields.items()}
        for key in ("tokens", "merges", "pre", "eos_token_id", "bos_token_id"):
            self.assertEqual(fields[f"tokenizer.ggml.{key}"], source[f"tokenizer.ggml.{key}"], key)
        self.assertEqual(fields["tokenizer.chat_template"], source["tokenizer.chat_template"])

    def adapter(self) -> pathlib.Path:
        """Rank 4 on queries and values, every value from a formula."""
        tensors = {}
        for layer in range(30):
            for module, out in (("q_proj", 576), ("v_proj", 192)):
                key = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                i = torch.arange(4 * 576, dtype=torch.float64)
                tensors[f"{key}.lora_A.weight"] = (0.02 * torch.sin(0.37 * i)).float().reshape(4, 576)
                i = torch.arange(4 * out, dtype=torch.float64)
                tensors[f"{key}.lora_B.weight"] = (0.02 * torch.cos(0.37 * i)).float().reshape(out, 4)
        folder = self.out.parent / "adapter"
        folder.mkdir()
        save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none",
                  "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "smollm2"}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder


if __name__ == "__main__":
    unittest.main(verbosity=2)
