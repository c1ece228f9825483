"""Training of small language models: against a plain loop of transformers, across kills, and what bad input is told."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny_models
from click.testing import CliRunner

from curate import cli, lm
from curate.errors import RecipeError, SourceError, StageError
from curate.lm import train as training
from curate.lm.packed import Packed, pack
from curate.lm.tokenizer import train_tokenizer
from curate.lm.train import SIZES, evaluate_loss, train

torch = pytest.importorskip("torch", reason="training needs the extra `lm`")
transformers = pytest.importorskip("transformers", reason="training needs the extra `lm`")

TEXTS = tiny_models.texts(120)
SMALL: dict[str, Any] = {"window": 32, "batch_tokens": 128, "progress": False, "device": "cpu"}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size for tests, and stretches of which a batch has two."""
    monkeypatch.setitem(SIZES, "1m", training.Size(64, 2, 2, 96, 4e-3, 256))
    monkeypatch.setitem(training.UNIT, "cpu", 64)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm") / "tokenizer"
    train_tokenizer([pa.array(TEXTS)], folder, vocabulary=300)
    return folder


@pytest.fixture(scope="module")
def packed(reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack([pa.array(TEXTS)], tmp_path_factory.mktemp("lm") / "packed", reader).folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def weights(folder: Path) -> dict[str, Any]:
    return dict(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())


# --------------------------------------------------------------------------------------------- the pass


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "compiled"), [("float32", False), ("float32", True), ("bfloat16", False)])
def test_pass_and_gradients_are_those_of_transformers(tied: bool, kind: str, compiled: bool) -> None:
    from curate.lm import llama

    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
        tie_word_embeddings=tied, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )  # fmt: skip
    torch.manual_seed(1)
    theirs = transformers.LlamaForCausalLM(config)
    for weight in theirs.parameters():
        weight.data += torch.randn_like(weight) * 0.05
    assert llama.plain(config)
    shape = llama.Shape.of(config)
    ours = {name: torch.empty(size).requires_grad_() for name, size in shape.weights().items()}
    shape.copy(theirs.state_dict(), ours)
    window = 150  # no multiple of a block
    tokens, scale = torch.randint(0, 300, (3, window + 1)), torch.rand(3 * window)
    wanted = torch.nn.functional.cross_entropy(
        theirs(input_ids=tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].reshape(-1), reduction="none"
    )
    (wanted * scale).sum().backward()
    model = llama.Llama(shape, ours, window, getattr(torch, kind))
    if compiled:
        model._hidden = model._by_torch  # what a GPU compiles
    found = model.losses(tokens[:, :-1], tokens[:, 1:], scale)
    gradients = torch.autograd.grad(found.sum(), list(ours.values()))
    near, close = (1e-5, 1e-5) if kind == "float32" else (0.1, 0.1)
    assert found.dtype == torch.float32 and torch.allclose(found, wanted, atol=near)
    by_name = shape.to_transformers(dict(zip(ours, gradients, strict=True)))
    for name, weight in theirs.named_parameters():
        assert (by_name[name] - weight.grad).norm() <= close * weight.grad.norm(), name


def test_what_is_not_plain() -> None:
    from curate.lm import llama

    config = transformers.LlamaConfig
    assert llama.plain(config())
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    for other in ({"num_key_value_heads": 4}, {"attention_bias": True}, {"hidden_act": "gelu"}, {"rope_parameters": rope}):
        assert not llama.plain(config(**other))
    assert not llama.plain(transformers.GPT2Config())


# --------------------------------------------------------------------------------------------- packing


def test_packed_row(reader: Path, tmp_path: Path) -> None:
    from curate.lm.tokenizer import read

    texts = ["river stone", "", None, "garden", "🙂"]
    found = pack([pa.array(texts)], tmp_path / "whole", reader)
    ids = [read(reader).ids(pa.array([text]))[0].tolist() for text in texts if text]
    assert found.read().tolist() == [0, *ids[0], 0, *ids[1], 0, *ids[2], 0] and found.read().dtype == np.uint16
    assert (found.documents, found.tokens) == (3, len(found.read())) and isinstance(found.read(), np.memmap)
    cut = [pa.array(["x", *texts[:2]]).slice(1), pa.array([], pa.string()), pa.array(texts[2:], pa.large_string())]
    again = pack(iter(cut), tmp_path / "cut", reader)
    assert digests(again.folder) == digests(found.folder) and Packed.open(tmp_path / "cut") == again


def test_wide_tokens(reader: Path, tmp_path: Path) -> None:
    held = json.loads((reader / "tokenizer.json").read_text())
    more = [{**held["added_tokens"][0], "id": 300 + i, "content": f"<{i}>", "special": False} for i in range(1 << 16)]
    held["added_tokens"] += more
    (tmp_path / "tokenizer.json").write_text(json.dumps(held))
    found = pack([pa.array(["a <65535>"])], tmp_path / "packed", tmp_path)
    assert found.read().dtype == np.uint32 and found.read()[-2] == 300 + 65_535


def test_damaged_tokens(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no packed tokens"):
        train(tmp_path, tmp_path / "out")
    for name in ("tokens.json", "tokens.npy"):
        (tmp_path / name).write_bytes((packed / name).read_bytes()[:-100])
    with pytest.raises(SourceError, match="holds no packed tokens"):
        train(tmp_path, tmp_path / "out")


# --------------------------------------------------------------------------------------------- training


@dataclasses.dataclass(frozen=True)
class Half:
    """Every other row counts twice, the rest not at all."""

    def __call__(self, losses: np.ndarray, rows: np.ndarray) -> np.ndarray:
        assert losses.shape == rows.shape and (losses > 0).all()
        return 2.0 * (rows % 2)


def oracle(packed: Path, start: Path, steps: int, lr: float, half: bool = False, decay: float = 0.0) -> dict[str, Any]:
    """A plain loop of transformers, in the order of `train`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    stream = np.load(packed / "tokens.npy")
    rows = (len(stream) - 1) // 32
    order = np.random.Generator(np.random.PCG64([0, 0])).permutation(rows)
    named = list(model.named_parameters())
    groups = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))
    model.eval()
    for step in range(steps):
        here = order[step * 4 : step * 4 + 4]
        block = torch.from_numpy(np.stack([stream[r * 32 : r * 32 + 33] for r in here]).astype(np.int64))
        logits = model(input_ids=block[:, :-1]).logits
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), block[:, 1:], reduction="none").mean(1)
        if half:
            losses = losses * torch.from_numpy(2.0 * (here % 2)).float()
        optimiser.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        done = (step - 1) / max(1, steps - 2)
        for group in optimiser.param_groups:
            group["lr"] = lr if step < 1 else lr * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * done)))
        optimiser.step()
    return dict(model.named_parameters())


def gpt2(folder: Path, reader: Path) -> Path:
    torch.manual_seed(3)
    config = transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=0)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    for path in reader.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(("kind", "half", "decay"), [("llama", False, 0.1), ("llama", True, 0.0), ("gpt2", True, 0.1)])
def test_training_is_that_of_a_plain_loop(
    packed: Path, reader: Path, tmp_path: Path, kind: str, half: bool, decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(training.UNIT, "cpu", 96)  # of a batch of four rows, three and one
    start = gpt2(tmp_path / "start", reader) if kind == "gpt2" else tmp_path / "start"
    if kind == "llama":
        train(packed, start, epochs=0.1, **SMALL)
    train(
        packed, tmp_path / "end", start=start, tokens=5 * 128, lr=1e-3, warmup=1, weight_decay=decay,
        weights=Half() if half else None, **SMALL,
    )  # fmt: skip
    found, wanted, before = weights(tmp_path / "end"), oracle(packed, start, 5, 1e-3, half, decay), weights(start)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        moved = (weight - before[name]).norm()
        assert moved > 0 and (found[name] - weight).norm() <= 2e-3 * moved, name


def test_it_learns_and_others_read_it(packed: Path, reader: Path, tmp_path: Path) -> None:
    made = train(packed, tmp_path / "model", epochs=1, **SMALL)
    assert made.loss < 0.75 * made.curve[0]["loss"] and made.tokens_per_second > 0
    held = json.loads((tmp_path / "model" / "training.json").read_text())
    assert held["loss"] == made.loss and held["curve"] == made.curve and held["steps"] == made.steps
    assert made.curve[-1]["tokens"] == made.tokens and made.curve[-1]["lr"] == pytest.approx(4e-4)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert sum(p.numel() for p in model.parameters()) == made.parameters + made.embedding
    text = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = torch.tensor([[0, *text(TEXTS[0])["input_ids"]]])[:, :33]
    loss = model(input_ids=ids, labels=ids).loss.item()
    nll, count = evaluate_loss(tmp_path / "model", [pa.array(TEXTS[:1])], window=32, device="cpu")
    first = lm.load(str(tmp_path / "model"), device="cpu").losses(pa.array(TEXTS[:1]), 32)
    assert first.nll[0] / first.tokens[0] == pytest.approx(loss, rel=1e-5)
    assert (nll, count) == (first.nll.sum(), first.tokens.sum())


def test_same_texts_same_bytes(reader: Path, tmp_path: Path) -> None:
    def run(name: str, texts: Any, **more: Any) -> dict[str, str]:
        train(texts, tmp_path / name, **{**SMALL, "epochs": 0.2, "vocabulary": 300, **more})
        return digests(tmp_path / name)

    whole = run("whole", [pa.array(TEXTS)], threads=1)
    cut = (pa.array(TEXTS[at : at + 7]) for at in range(0, len(TEXTS), 7))
    before = torch.get_num_threads()
    assert run("cut", cut, threads=3) == whole
    assert torch.get_num_threads() == before
    assert run("given", pa.chunked_array([TEXTS[:5], TEXTS[5:]]), tokenizer=reader) == whole
    assert run("seed", [pa.array(TEXTS)], seed=1)["model.safetensors"] != whole["model.safetensors"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["cut", "given", "seed", "whole"]


def test_what_is_there_is_not_made_again(packed: Path, tmp_path: Path) -> None:
    first = train(packed, tmp_path / "model", epochs=0.1, **SMALL)
    stamp = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    again = train(packed, tmp_path / "model", epochs=0.1, threads=1, checkpoint_every=0, **SMALL)
    assert again == dataclasses.replace(first, seconds=0.0, tokens_per_second=0.0)
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == stamp
    other = train(packed, tmp_path / "model", epochs=0.1, lr=1e-3, **SMALL)
    assert other.loss != first.loss and other.seconds > 0


CHILD = """
import sys
from pathlib import Path
from curate.lm import train as training
training.SIZES["1m"] = training.Size(64, 2, 2, 96, 4e-3, 256)
training.UNIT["cpu"] = 64
import pyarrow as pa
import tiny_models
training.train(
    (pa.array([text]) for text in tiny_models.texts(120)), sys.argv[1], epochs=0.5, vocabulary=300, checkpoint_every=0,
    window=32, batch_tokens=128, device="cpu", progress=False,
)
"""


def step_of(path: Path) -> int:
    """The step of a checkpoint; 0 where there is none."""
    from safetensors import safe_open

    if not path.is_file():
        return 0
    with safe_open(path, "pt") as held:
        return json.loads(held.metadata()["about"])["step"]


def killed_after(folder: Path, step: int) -> int:
    """Train in a process of its own until there is a checkpoint of so many steps, and kill it; returns the step it got to."""
    path = f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[1]}"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], env={**os.environ, "PYTHONPATH": path})
    checkpoint = folder.with_name(f"{folder.name}.training") / training.CHECKPOINT
    while child.poll() is None and step_of(checkpoint) < step:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and not folder.exists()
    return step_of(checkpoint)


@pytest.mark.slow
def test_killed_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def texts() -> Iterator[pa.Array]:
        return (pa.array([text]) for text in TEXTS)

    more: dict[str, Any] = {**SMALL, "epochs": 0.5, "vocabulary": 300}
    train(texts(), tmp_path / "whole", **more)
    last = killed_after(tmp_path / "killed", 3)
    steps = []
    real = training._Run.step
    monkeypatch.setattr(training._Run, "step", lambda self, step: (steps.append(step), real(self, step))[1])
    train(texts(), tmp_path / "killed", **more)
    assert 3 <= last == steps[0] and digests(tmp_path / "killed") == digests(tmp_path / "whole")
    assert not (tmp_path / "killed.training").exists()


@pytest.mark.parametrize("damage", ["none", "other", "cut", "empty", "header"])
def test_what_a_checkpoint_counts_for(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    more = {**SMALL, "epochs": 0.1}
    train(packed, tmp_path / "whole", **more)
    steps, real = [], training._Run.step

    def step(run: Any, number: int) -> None:
        steps.append(number)
        if len(steps) == 3:
            raise KeyboardInterrupt
        real(run, number)

    monkeypatch.setattr(training._Run, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train(packed, tmp_path / "left", checkpoint_every=0, **{**more, "seed": int(damage == "other")})
    path = tmp_path / "left.training" / training.CHECKPOINT
    assert step_of(path) == 2
    held = path.read_bytes()
    changed = {"cut": held[:-100], "empty": b"", "header": held.replace(b'"weights":', b'"weighty":')}
    path.write_bytes(changed.get(damage, held))
    train(packed, tmp_path / "left", **more)
    assert steps[3] == (2 if damage == "none" else 0)
    assert digests(tmp_path / "left") == digests(tmp_path / "whole")


def test_fine_tuning(packed: Path, reader: Path, tmp_path: Path) -> None:
    train(packed, tmp_path / "prior", epochs=0.3, **SMALL)
    target = [pa.array(["silver kitchen shadow " * 20] * 20)]
    found = train(target, tmp_path / "conditional", start=tmp_path / "prior", **SMALL)
    nll = {name: evaluate_loss(tmp_path / name, target, window=32)[0] for name in ("prior", "conditional")}
    assert nll["conditional"] < 0.7 * nll["prior"] and found.curve[0]["lr"] <= 1e-3
    assert (tmp_path / "conditional" / "tokenizer.json").read_bytes() == (reader / "tokenizer.json").read_bytes()


def test_rates() -> None:
    plan = training._Plan(rows=100, total=100, batch=1, steps=100, warmup=10, lr=1.0, schedule="cosine", seed=0)
    rates = [plan.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10) and rates[-1] == pytest.approx(0.1)
    assert rates[10] == 1.0 and sorted(rates[10:], reverse=True) == rates[10:] and rates[54] == pytest.approx(0.56, abs=0.01)
    stable = [dataclasses.replace(plan, schedule="wsd").rate(step) for step in range(100)]
    assert stable[9:80] == [1.0] * 71 and stable[-1] == pytest.approx(0.1)
    assert stable[80:] == pytest.approx(np.linspace(stable[80], 0.1, 20))


def test_every_row_once_an_epoch(packed: Path, tmp_path: Path) -> None:
    seen = []

    @dataclasses.dataclass
    class Look:
        def __call__(self, losses: np.ndarray, rows: np.ndarray) -> np.ndarray:
            seen.append(rows)
            return np.ones(len(rows))

    train(packed, tmp_path / "model", epochs=2, weights=Look(), **{**SMALL, "batch_tokens": 1024})
    rows = np.concatenate(seen)
    number = (Packed.open(packed).tokens - 1) // 32
    assert sorted(rows[:number]) == sorted(rows[number:]) == list(range(number))
    assert (rows[:number] != rows[number:]).any() and (rows[:number] != np.arange(number)).any()


def test_small_corpora_are_cut_into_steps(packed: Path, tmp_path: Path) -> None:
    made = train(packed, tmp_path / "model", tokens=32 * 40, window=32, progress=False, device="cpu")
    assert made.steps == 40
    assert training._Plan.of(_asked(), Packed.open(packed), 1e-3, 256).batch == 256 // 32


def _asked(**more: Any) -> Any:
    given = {field.name: None for field in dataclasses.fields(training._Asked)}
    return training._Asked(**{**given, "window": 32, "schedule": "cosine", "seed": 0, "epochs": 9.0, **more})


# --------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("name", ["10m", "60m", "150m"])
def test_sizes(name: str) -> None:
    size = SIZES[name]
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=size.hidden, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        intermediate_size=size.mlp, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    assert sum(p.numel() for p in model.parameters()) == size.parameters() + 64 * size.hidden
    assert size.parameters() == pytest.approx(float(name[:-1]) * 1e6, rel=0.07)
    assert (
        f"| `{name}` | {size.hidden:,} | {size.layers} | {size.heads} | {size.mlp:,} | {size.parameters():,} |" in train.__doc__
    )
    assert not size.hidden % 64 and not size.mlp % 64 and size.hidden == 64 * size.heads


# --------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": "10mb"}, "no size '10mb'; did you mean '10m'"),
        ({"schedule": "cosin"}, "no schedule 'cosin'; did you mean 'cosine'"),
        ({"tokens": 10, "epochs": 1}, "give tokens or epochs, not both"),
        ({"epochs": 0}, "epochs is 0; it is a number above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"checkpoint_every": -1}, "checkpoint_every is -1; it is a number of at least 0"),
        ({"window": 1}, "window is 1; it is a whole number of at least 2"),
        ({"tokens": 1.5}, "tokens is 1.5"),
        ({"batch_tokens": 16}, "less than a window of 32"),
        ({"batch_tokens": 1 << 20}, "less than one batch of 1,048,576: lower batch_tokens, or give more"),
        ({"tokens": 64, "batch_tokens": 96}, "there are 64 tokens in windows of 32, less than one batch of 96"),
        ({"window": 1 << 20, "batch_tokens": None}, "less than one window of 1048576"),
        ({"weights": len}, "make it a dataclass"),
    ],
)
def test_what_is_asked_wrongly(packed: Path, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        train(packed, tmp_path / "model", **{**SMALL, **given})
    assert not (tmp_path / "model").exists()


@dataclasses.dataclass(frozen=True)
class Wrong:
    given: tuple[float, ...]

    def __call__(self, losses: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.array(self.given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1.0,), r"an array of shape \(1,\) for 4 rows"),
        ((1.0, 1.0, float("nan"), 1.0), "weights gave nan for a row"),
        ((1.0, -0.5, 1.0, 1.0), "weights gave -0.5 for a row"),
    ],
)
def test_weights_that_make_no_sense(packed: Path, tmp_path: Path, given: tuple[float, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        train(packed, tmp_path / "model", weights=Wrong(given), **SMALL)


def test_no_text(reader: Path, tmp_path: Path) -> None:
    for more in ({}, {"tokenizer": reader}):
        for texts in ([], [pa.array([None, ""], pa.string())]):
            with pytest.raises(RecipeError, match="there is no text to train on"):
                train(texts, tmp_path / "model", **SMALL, **more)
    assert list(tmp_path.iterdir()) == []


def test_divergence_names_the_step(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(
        StageError,
        match=r"diverged at step \d+ of \d+ \((loss (nan|inf)|weights that are no numbers)\): lower lr, which is 1e\+30",
    ):
        train(packed, tmp_path / "model", lr=1e30, warmup=0, checkpoint_every=0, **SMALL)
    assert not (tmp_path / "model").exists()
    train(packed, tmp_path / "model", epochs=0.1, **SMALL)


def test_folder_of_something_else(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds no model of a training: name another folder"):
        train(packed, tmp_path, **SMALL)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_start_that_does_not_fit(packed: Path, reader: Path, tmp_path: Path) -> None:
    train(packed, tmp_path / "model", epochs=0.1, **SMALL)
    train_tokenizer([pa.array(TEXTS)], tmp_path / "other", vocabulary=280)
    texts = [pa.array(TEXTS)]
    with pytest.raises(RecipeError, match=r"start .*model has another tokenizer than the tokenizer .*other"):
        train(texts, tmp_path / "new", start=tmp_path / "model", tokenizer=tmp_path / "other", **SMALL)
    small = gpt2(tmp_path / "gpt2", reader)
    with pytest.raises(RecipeError, match=r"window is 128, and start .* reads 64 tokens at most"):
        train(texts, tmp_path / "new", start=small, **{**SMALL, "window": 128})
    train_tokenizer([pa.array(TEXTS)], small, vocabulary=310)
    with pytest.raises(RecipeError, match="knows 300 tokens and its tokenizer has 310"):
        train(texts, tmp_path / "new", start=small, **SMALL)
    with pytest.raises(RecipeError, match=r"no such model: .*nowhere"):
        train(texts, tmp_path / "new", start=tmp_path / "nowhere", **SMALL)
    config = json.loads((reader / "tokenizer.json").read_text())
    config["added_tokens"], config["model"]["vocab"] = [], {"<x>": 0} | {k: v for k, v in config["model"]["vocab"].items() if v}
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(RecipeError, match=r"bare has no token to stand between documents"):
        train(texts, tmp_path / "new", tokenizer=tmp_path / "bare", **SMALL)


# --------------------------------------------------------------------------------------------- command line


def test_command(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    asked = ["--param", "window=32", "--param", "batch_tokens=128", "--param", "epochs=0.1", "--param", "vocabulary=300"]
    run = CliRunner().invoke(cli.main, ["train", "lm", str(data), "-o", str(tmp_path / "model"), *asked, "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["folder"] == str(tmp_path / "model") and found["steps"] > 2
    train([pa.array(TEXTS)], tmp_path / "same", epochs=0.1, vocabulary=300, **SMALL)
    assert digests(tmp_path / "same")["model.safetensors"] == digests(tmp_path / "model")["model.safetensors"]
    shown = CliRunner().invoke(cli.main, ["train", "lm", str(data), "-o", str(tmp_path / "model"), *asked])
    assert "nats per token" in shown.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--param", "epoch=1"], "there is no parameter 'epoch'; did you mean 'epochs'"),
        (["--param", "size=1mm"], "no size '1mm'"),
        (["--param", "weights=1"], "there is no parameter 'weights'"),
        (["--positive", "x"], "--positive and --negative are for classifiers"),
    ],
)
def test_command_with_wrong_parameters(tmp_path: Path, given: list[str], message: str) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    run = CliRunner().invoke(cli.main, ["train", "lm", str(data), "-o", str(tmp_path / "model"), *given])
    assert run.exit_code == 2 and message in run.output
